//! Requests for each pod of a drain, by the API server's audit log.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use bed::{control_plane::AuditEvent, progress};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams, Preconditions},
};
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    cluster::{
        AT_ONCE, Cluster, image, nodes,
        wire::{self, Nothing, Object},
    },
    numbers::number,
    table::Table,
};

/// Where the pods are.
const NAMESPACE: &str = "shop";
/// How long the last lines of the log may take.
const REST: Duration = Duration::from_secs(2);

/// Measures so many nodes at once, with so many pods each.
pub(crate) async fn measure(size: usize, pods: usize) -> Result<Table> {
    let cluster = Cluster::start_audited().await?;
    let (_operator, hosts) = cluster
        .settled(size, &image(0), json!({ "maxUnavailable": size }))
        .await?;
    namespace(&cluster.admin).await?;
    let all = (0..size).flat_map(|node| (0..pods).map(move |n| (node, n)));
    stream::iter(all)
        .map(|(node, n)| pod(&cluster.admin, node, n))
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    let mut kubelets = JoinSet::new();
    kubelets.spawn(let_go(cluster.admin.clone()));
    progress::say(format_args!("{size} nodes with {pods} pods each"));
    let before = cluster.asked_by_operator()?.len();
    let since = Instant::now();
    cluster
        .spec(json!({ "image": { "ref": image(1) } }))
        .await?;
    hosts.until_all_run(&image(1)).await?;
    let wall = since.elapsed();
    sleep(REST).await;
    let asked = cluster.asked_by_operator()?;
    Ok(table(
        asked.get(before..).unwrap_or_default(),
        size,
        pods,
        wall,
    ))
}

fn table(asked: &[AuditEvent], size: usize, pods: usize, wall: Duration) -> Table {
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for event in asked {
        if let Some(object) = event
            .object_ref
            .as_ref()
            .filter(|object| object.resource == "pods")
        {
            let resource = [object.resource.as_str(), object.subresource.as_str()].join("/");
            let resource = resource.trim_end_matches('/');
            let code = event.code().unwrap_or_default();
            let kind = format!("{} {resource} {code}", event.verb);
            *kinds.entry(kind).or_default() += 1;
        }
    }
    let count = |part: &str| {
        kinds
            .iter()
            .filter(|(kind, _)| kind.contains(part))
            .map(|(_, count)| count)
            .sum()
    };
    let (all, evictions): (u64, u64) = (count(""), count("eviction"));
    let each = number((size * pods) as u64);
    let mut table = Table::new([
        "nodes",
        "pods/node",
        "wall s",
        "requests/pod",
        "evictions/pod",
        "lists and watches/node",
        "what",
    ]);
    let what: Vec<_> = kinds
        .iter()
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    table.row([
        size.to_string(),
        pods.to_string(),
        format!("{:.1}", wall.as_secs_f64()),
        format!("{:.2}", number(all) / each),
        format!("{:.2}", number(evictions) / each),
        format!("{:.1}", number(all - evictions) / number(size as u64)),
        what.join(", "),
    ]);
    table
}

async fn namespace(client: &Client) -> Result<()> {
    let params = PostParams::default();
    let namespace: Namespace =
        serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } }))?;
    Api::all(client.clone()).create(&params, &namespace).await?;
    // No controller makes it.
    let account: ServiceAccount =
        serde_json::from_value(json!({ "metadata": { "name": "default" } }))?;
    Api::namespaced(client.clone(), NAMESPACE)
        .create(&params, &account)
        .await?;
    Ok(())
}

async fn pod(client: &Client, node: usize, n: usize) -> Result<()> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {
            "name": format!("web-{node}-{n}"),
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web",
                "uid": "00000000-0000-4000-8000-000000000000", "controller": true }],
        },
        "spec": {
            "nodeName": nodes::name(node),
            "automountServiceAccountToken": false,
            "containers": [{ "name": "web", "image": "registry.example.com/shop/web:1" }],
        },
    }))?;
    Api::namespaced(client.clone(), NAMESPACE)
        .create(&PostParams::default(), &pod)
        .await?;
    Ok(())
}

/// Plays the kubelets: a pod that is to go is gone at once.
async fn let_go(client: Client) {
    let mut going = JoinSet::new();
    let api = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    wire::watch(client, wire::PODS, |pod: Object<Nothing>| {
        while going.try_join_next().is_some() {}
        if pod.metadata.namespace != NAMESPACE || pod.metadata.deletion_timestamp.is_none() {
            return;
        }
        let api = api.clone();
        going.spawn(async move {
            let this = Preconditions {
                uid: Some(pod.metadata.uid),
                resource_version: None,
            };
            let params = DeleteParams::default().grace_period(0).preconditions(this);
            // It may be gone already.
            let _gone = api.delete(&pod.metadata.name, &params).await;
        });
    })
    .await;
}
