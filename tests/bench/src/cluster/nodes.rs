//! Nodes as big as those of a real cluster: labels, annotations, addresses, conditions, 50 images,
//! and the managedFields that the API server adds for each of their writers.

use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::{api::core::v1::Node, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::AT_ONCE;

/// The pool of all nodes.
pub(crate) const POOL: &str = "workers";
/// The label by which it selects them.
pub(crate) const LABEL: &str = "node.example.com/pool";
/// Images that a kubelet reports unless it is told otherwise.
const IMAGES: usize = 50;

/// The name of node `n`.
pub(crate) fn name(n: usize) -> String {
    format!("node-{n:05}.prod.example.com")
}

/// The boot of a host that has rebooted so often.
pub(crate) fn boot(n: usize, reboots: u32) -> String {
    format!("{n:08x}-0000-4000-8000-{reboots:012x}")
}

/// Creates nodes 0 to `size`.
pub(crate) async fn create(client: &Client, size: usize) -> Result<()> {
    stream::iter(0..size)
        .map(|n| create_one(client, n, json!({ LABEL: POOL })))
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await
}

/// Creates one with these labels more.
pub(crate) async fn create_one(client: &Client, n: usize, labels: Value) -> Result<()> {
    let api = Api::<Node>::all(client.clone());
    let by = |manager: &str| Some(manager.to_owned());
    let params = PostParams {
        field_manager: by("kubelet"),
        ..PostParams::default()
    };
    api.create(&params, &serde_json::from_value(object(n, labels))?)
        .await?;
    // Admission taints a new node; the node controller takes that back.
    let ready = json!({ "spec": { "taints": null, "podCIDR": format!("10.{}.{}.0/24", n / 256, n % 256) } });
    let params = PatchParams {
        field_manager: by("kube-controller-manager"),
        ..PatchParams::default()
    };
    api.patch(&name(n), &params, &Patch::Strategic(ready))
        .await?;
    Ok(())
}

fn object(n: usize, more_labels: Value) -> Value {
    let name = name(n);
    let mut labels = json!({
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/instance-type": "m6i.2xlarge",
        "beta.kubernetes.io/os": "linux",
        "failure-domain.beta.kubernetes.io/region": "eu-central-1",
        "failure-domain.beta.kubernetes.io/zone": "eu-central-1b",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "node-role.kubernetes.io/worker": "",
        "node.kubernetes.io/instance-type": "m6i.2xlarge",
        "topology.kubernetes.io/region": "eu-central-1",
        "topology.kubernetes.io/zone": "eu-central-1b",
    });
    if let (Value::Object(labels), Value::Object(more)) = (&mut labels, more_labels) {
        labels.extend(more);
    }
    json!({
        "metadata": {
            "name": name, "labels": labels,
            "annotations": {
                "csi.volume.kubernetes.io/nodeid": format!("{{\"ebs.csi.aws.com\":\"i-{n:017x}\",\"efs.csi.aws.com\":\"i-{n:017x}\"}}"),
                "cluster.example.com/machine": format!("machine-api/prod-workers-eu-central-1b-{n:05}"),
                "flannel.alpha.coreos.com/backend-data": "{\"VNI\":1,\"VtepMAC\":\"aa:bb:cc:dd:ee:ff\"}",
                "flannel.alpha.coreos.com/backend-type": "vxlan",
                "flannel.alpha.coreos.com/kube-subnet-manager": "true",
                "flannel.alpha.coreos.com/public-ip": "10.0.0.1",
                "node.alpha.kubernetes.io/ttl": "0",
                "volumes.kubernetes.io/controller-managed-attach-detach": "true",
            },
        },
        "spec": { "providerID": format!("aws:///eu-central-1b/i-{n:017x}") },
        "status": status(n),
    })
}

fn status(n: usize) -> Value {
    let resources = json!({
        "cpu": "8", "ephemeral-storage": "104845292Ki", "hugepages-1Gi": "0", "hugepages-2Mi": "0",
        "memory": "32386608Ki", "pods": "250",
    });
    json!({
        "addresses": [
            { "type": "InternalIP", "address": format!("10.0.{}.{}", n / 256, n % 256) },
            { "type": "Hostname", "address": name(n) },
            { "type": "InternalDNS", "address": name(n) },
        ],
        "capacity": resources, "allocatable": resources,
        "conditions": conditions("True", Timestamp::now()),
        "daemonEndpoints": { "kubeletEndpoint": { "Port": 10250 } },
        "images": (0..IMAGES).map(image).collect::<Vec<_>>(),
        "nodeInfo": {
            "architecture": "amd64", "bootID": boot(n, 0),
            "containerRuntimeVersion": "containerd://2.1.4", "kernelVersion": "6.12.0-55.el10.x86_64",
            "kubeProxyVersion": "", "kubeletVersion": "v1.34.1", "operatingSystem": "linux",
            "machineID": format!("{n:032x}"), "osImage": "Example Linux 10 (Image Mode)",
            "systemUUID": boot(n, u32::MAX),
        },
    })
}

fn image(n: usize) -> Value {
    let repository = format!("registry.example.com/team-{:02}/service-{n:02}", n % 7);
    json!({
        "names": [format!("{repository}@sha256:{n:064x}"), format!("{repository}:v1.{n}.0-20260801")],
        "sizeBytes": 123_456_789 + n,
    })
}

/// The conditions that a kubelet reports, at this time.
fn conditions(ready: &str, since: Timestamp) -> Value {
    let now = Timestamp::now();
    let pressure = |kind: &str, resource: &str| {
        json!({
            "type": format!("{kind}Pressure"), "status": "False",
            "reason": format!("KubeletHasSufficient{kind}"),
            "message": format!("kubelet has sufficient {resource} available"),
            "lastHeartbeatTime": now, "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    json!([
        pressure("Memory", "memory"), pressure("Disk", "disk space"), pressure("PID", "PID"),
        { "type": "Ready", "status": ready, "reason": "KubeletReady",
          "message": "kubelet is posting ready status",
          "lastHeartbeatTime": now, "lastTransitionTime": since },
    ])
}

/// What a kubelet sends when its host has booted.
pub(crate) fn booted(boot: &str) -> Value {
    json!({ "status": {
        "conditions": conditions("True", Timestamp::now()), "nodeInfo": { "bootID": boot },
    } })
}

/// What a kubelet sends when nothing has happened.
pub(crate) fn heartbeat() -> Value {
    let now = Timestamp::now();
    let beat = |kind: &str| json!({ "type": kind, "lastHeartbeatTime": now });
    let all = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"].map(beat);
    json!({ "status": { "conditions": all } })
}
