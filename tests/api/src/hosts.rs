//! Nodes and pods without a kubelet: what a test says about them is what holds.

use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{Account, Suite, kubelet};

/// Creates a Ready node with these labels, without taints.
pub async fn node(client: &Client, name: &str, labels: Value) -> Result<Node> {
    let nodes = Api::<Node>::all(client.clone());
    let node: Node = serde_json::from_value(json!({
        "metadata": { "name": name, "labels": labels },
    }))?;
    nodes.create(&PostParams::default(), &node).await?;
    // Admission taints a new node as not ready, and nobody else here would take that back.
    let untainted = Patch::Merge(json!({ "spec": { "taints": null } }));
    let params = PatchParams::default();
    nodes.patch(name, &params, &untainted).await?;
    nodes
        .patch_status(name, &params, &Patch::Merge(ready("True", "boot-1")))
        .await
        .map_err(Into::into)
}

/// A Node's status that says whether it is ready, in which boot.
#[must_use]
pub fn ready(status: &str, boot: &str) -> Value {
    let resources = json!({ "cpu": "4", "memory": "8Gi", "pods": "100" });
    json!({ "status": {
        "capacity": resources,
        "allocatable": resources,
        "nodeInfo": {
            "architecture": "amd64", "bootID": boot, "containerRuntimeVersion": "containerd://2",
            "kernelVersion": "6", "kubeProxyVersion": "", "kubeletVersion": "v1.36.0", "machineID": "",
            "operatingSystem": "linux", "osImage": "test", "systemUUID": "",
        },
        "conditions": [{
            "type": "Ready", "status": status, "reason": "Test", "message": "",
            "lastTransitionTime": k8s_openapi::jiff::Timestamp::now(),
        }],
    }})
}

/// Deletes a node; it may be gone already.
pub async fn delete_node(client: &Client, name: &str) -> Result<()> {
    let gone = Api::<Node>::all(client.clone())
        .delete(name, &DeleteParams::default())
        .await;
    match gone {
        Err(kube::Error::Api(status)) if !status.is_not_found() => {
            Err(kube::Error::Api(status).into())
        }
        _ => Ok(()),
    }
}

/// Puts what another JSON value says over this one; objects are joined, all else is replaced.
pub fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// A client with the token of an agent's pod on a node, as the kubelet would give it.
pub async fn agent_on(suite: &Suite, node: &str) -> Result<Client> {
    let pods = Api::<Pod>::namespaced(suite.admin.clone(), Account::AGENT.namespace);
    let pod: Pod = serde_json::from_value(json!({
        // Finished, as far as a played kubelet is concerned: no drain takes its token away.
        "metadata": {
            "name": format!("agent-on-{node}"), "annotations": { kubelet::PHASE: "Succeeded" },
        },
        "spec": {
            "nodeName": node,
            "serviceAccountName": Account::AGENT.name,
            "containers": [{ "name": "agent", "image": "none" }],
        },
    }))?;
    let pod = pods.create(&PostParams::default(), &pod).await?;
    let bound = json!({
        "apiVersion": "v1", "kind": "Pod", "name": pod.name_any(), "uid": pod.uid(),
    });
    suite.client_of(Account::AGENT, Some(bound)).await
}
