//! A rollout as a person sees it: one line a node, read from the same objects
//! that `kubectl` shows.

use std::collections::BTreeMap;

use anyhow::Result;
use crd::{BootcNode, BootcNodePool, names};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};

use crate::env::is_ready;

/// One node of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLine {
    /// Its name.
    pub name: String,
    /// Where it is in its rollout: Idle, Staging, Staged, Draining, …
    pub state: String,
    /// Version of the image that runs, as the agent reports it.
    pub version: String,
    /// Digest of the image that runs; empty while there is no report.
    pub digest: String,
    /// What it waits for or what is wrong with it; empty if nothing.
    pub note: String,
    /// The kernel's boot, as the kubelet reports it.
    pub boot: String,
    /// The Node is Ready.
    pub ready: bool,
    /// The Node is cordoned.
    pub cordoned: bool,
}

/// A pool and its nodes, by name.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The nodes that have a `BootcNode`.
    pub nodes: Vec<NodeLine>,
    /// Nodes of the pool, as its status says.
    pub total: u64,
    /// Nodes on the target.
    pub updated: u64,
    /// The message of the condition `UpToDate`, or its reason if it has none.
    pub up_to_date: String,
    /// The message of Degraded=True.
    pub degraded: Option<String>,
    /// The pool's target digest.
    pub target: String,
}

impl View {
    /// Reads everything once.
    pub async fn of(client: &Client, pool: &str) -> Result<Self> {
        let pool = Api::<BootcNodePool>::all(client.clone()).get(pool).await?;
        let bootc_nodes = Api::<BootcNode>::all(client.clone())
            .list(&ListParams::default())
            .await?;
        let nodes = Api::<Node>::all(client.clone())
            .list(&ListParams::default())
            .await?;
        let nodes: BTreeMap<String, Node> = nodes
            .into_iter()
            .map(|node| (node.name_any(), node))
            .collect();
        let status = pool.status.clone().unwrap_or_default();
        let up_to_date = condition(&status.conditions, names::condition::UP_TO_DATE);
        let degraded = condition(&status.conditions, names::condition::DEGRADED);
        let uid = pool.uid();
        let mut lines: Vec<NodeLine> = bootc_nodes
            .iter()
            .filter(|bn| {
                bn.owner_references()
                    .iter()
                    .any(|owner| Some(&owner.uid) == uid.as_ref())
            })
            .map(|bn| line(bn, nodes.get(&bn.name_any())))
            .collect();
        lines.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self {
            nodes: lines,
            total: status.node_count.try_into().unwrap_or(0),
            updated: status.updated_count.try_into().unwrap_or(0),
            up_to_date: up_to_date
                .map(|c| {
                    if c.message.is_empty() {
                        c.reason.clone()
                    } else {
                        c.message.clone()
                    }
                })
                .unwrap_or_default(),
            degraded: degraded
                .filter(|c| c.status == "True")
                .map(|c| format!("{}: {}", c.reason, c.message)),
            target: status.target_digest.unwrap_or_default(),
        })
    }

    /// Do all nodes run `digest`, with nothing under way?
    #[must_use]
    pub fn all_on(&self, digest: &str) -> bool {
        !self.nodes.is_empty()
            && self.target == digest
            && self.updated == self.total
            && self
                .nodes
                .iter()
                .all(|node| node.digest == digest && node.ready && !node.cordoned)
    }
}

fn line(bn: &BootcNode, node: Option<&Node>) -> NodeLine {
    let status = bn.status.clone().unwrap_or_default();
    let booted = status.booted.clone().unwrap_or_default();
    let waiting =
        condition(&status.conditions, names::condition::WAITING).filter(|c| c.status == "True");
    let degraded =
        condition(&status.conditions, names::condition::DEGRADED).filter(|c| c.status == "True");
    let boot =
        node.and_then(|node| Some(node.status.as_ref()?.node_info.as_ref()?.boot_id.clone()));
    NodeLine {
        name: bn.name_any(),
        state: state(bn, node),
        version: booted.version.unwrap_or_default(),
        digest: booted.image_digest,
        note: degraded
            .or(waiting)
            .map(|c| c.message.clone())
            .unwrap_or_default(),
        boot: boot.unwrap_or_default(),
        ready: node.is_some_and(is_ready),
        cordoned: node.is_some_and(is_cordoned),
    }
}

/// The state that the operator keeps, with the hops that it does not store
/// added from what the agent and the Node say.
fn state(bn: &BootcNode, node: Option<&Node>) -> String {
    let status = bn.status.clone().unwrap_or_default();
    let kept = bn
        .annotations()
        .get(names::ANNOTATION_ROLLOUT)
        .and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok())
        .and_then(|record| record["state"].as_str().map(str::to_owned))
        .unwrap_or_default();
    let agent = condition(&status.conditions, names::condition::IDLE).map(|c| c.reason.as_str());
    let desired = bn
        .spec
        .desired_image
        .as_deref()
        .and_then(|image| image.rsplit_once('@'))
        .map_or("", |(_, digest)| digest);
    match (kept.as_str(), agent) {
        ("Staging", Some(names::node_reason::STAGED)) => "Staged".to_owned(),
        ("Cordoned", _) if node.is_some_and(is_cordoned) => "Draining".to_owned(),
        ("Rebooting", Some(names::node_reason::IDLE))
            if status.booted.is_some_and(|b| b.matches(desired)) =>
        {
            "Verifying".to_owned()
        }
        ("", _) => "new".to_owned(),
        _ => kept,
    }
}

fn is_cordoned(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true)
}

/// The condition of a type, if it is there.
#[must_use]
pub fn condition<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}
