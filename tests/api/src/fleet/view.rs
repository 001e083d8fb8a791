//! A fleet's objects at one moment, and short words about them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use anyhow::{Context as _, Result, ensure};
use crd::{BootcNode, BootcNodePool, BootcNodePoolStatus, names};
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::Condition};
use kube::ResourceExt as _;

/// A fleet's objects at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// The pool.
    pub pool: Option<BootcNodePool>,
    /// The nodes of the fleet.
    pub nodes: BTreeMap<String, Node>,
    /// Their `BootcNode`s.
    pub bootc: BTreeMap<String, BootcNode>,
}

impl View {
    pub(super) fn new<'a>(
        pool: Option<BootcNodePool>,
        names: impl Iterator<Item = &'a str>,
        nodes: Vec<Node>,
        bootc: Vec<BootcNode>,
    ) -> Self {
        let names: BTreeSet<_> = names.map(ToOwned::to_owned).collect();
        let ours = |name: &String| names.contains(name);
        let nodes = nodes.into_iter().map(|node| (node.name_any(), node));
        let bootc = bootc.into_iter().map(|node| (node.name_any(), node));
        Self {
            pool,
            nodes: nodes.filter(|(name, _)| ours(name)).collect(),
            bootc: bootc.filter(|(name, _)| ours(name)).collect(),
        }
    }

    /// The pool's status; empty if there is none.
    #[must_use]
    pub fn status(&self) -> BootcNodePoolStatus {
        self.pool
            .as_ref()
            .and_then(|pool| pool.status.clone())
            .unwrap_or_default()
    }

    /// The digest that all nodes ran when last they were updated.
    #[must_use]
    pub fn deployed(&self) -> Option<String> {
        self.status().deployed_digest
    }

    /// A condition of the pool.
    pub fn condition(&self, kind: &str) -> Result<Condition> {
        let mut all = self.status().conditions.into_iter();
        all.find(|condition| condition.type_ == kind)
            .with_context(|| format!("no condition {kind}: {self}"))
    }

    /// Complains unless the pool has a condition, written `UpToDate=True/AllUpdated`.
    pub fn pool_is(&self, wanted: &str) -> Result<Condition> {
        let (kind, _) = wanted.split_once('=').context("no =")?;
        let condition = self.condition(kind)?;
        let shown = format!("{kind}={}/{}", condition.status, condition.reason);
        ensure!(shown == wanted, "not {wanted}: {self}");
        Ok(condition)
    }

    /// Complains unless the status speaks of the spec as it is.
    pub fn is_current(&self) -> Result<()> {
        let wanted = self.pool.as_ref().and_then(|pool| pool.metadata.generation);
        ensure!(
            self.status().observed_generation == wanted,
            "outdated: {self}"
        );
        Ok(())
    }

    /// Complains unless the counts are these: nodes, updated, updating, degraded.
    pub fn counts(&self, wanted: [i64; 4]) -> Result<()> {
        let status = self.status();
        let counts = [
            status.node_count,
            status.updated_count,
            status.updating_count,
            status.degraded_count,
        ];
        ensure!(
            counts == wanted,
            "counts {counts:?}, not {wanted:?}: {self}"
        );
        Ok(())
    }

    /// The nodes that are cordoned.
    #[must_use]
    pub fn cordoned(&self) -> Vec<&str> {
        let cordoned = |node: &Node| {
            node.spec
                .as_ref()
                .is_some_and(|s| s.unschedulable == Some(true))
        };
        self.nodes_where(cordoned)
    }

    /// The nodes with a label.
    #[must_use]
    pub fn labelled(&self, label: &str) -> Vec<&str> {
        self.nodes_where(|node| node.labels().contains_key(label))
    }

    fn nodes_where(&self, holds: impl Fn(&Node) -> bool) -> Vec<&str> {
        let all = self.nodes.iter().filter(|(_, node)| holds(node));
        all.map(|(name, _)| name.as_str()).collect()
    }

    /// The nodes that hold a slot.
    #[must_use]
    pub fn in_slot(&self) -> Vec<&str> {
        let holds = |node: &BootcNode| {
            node.annotations()
                .contains_key(names::ANNOTATION_IN_REBOOT_SLOT)
        };
        let all = self.bootc.iter().filter(|(_, node)| holds(node));
        all.map(|(name, _)| name.as_str()).collect()
    }

    /// A condition of a node.
    pub fn node_condition(&self, node: &str, kind: &str) -> Result<Condition> {
        let status = self.bootc.get(node).and_then(|node| node.status.clone());
        let mut all = status.unwrap_or_default().conditions.into_iter();
        all.find(|condition| condition.type_ == kind)
            .with_context(|| format!("{node} has no condition {kind}: {self}"))
    }

    /// Is every node told to run this image?
    #[must_use]
    pub fn is_wanted(&self, image: &str) -> bool {
        let wanted = |node: &BootcNode| node.spec.desired_image.as_deref() == Some(image);
        self.bootc.values().all(wanted)
    }

    /// Does every agent say that it runs this digest?
    #[must_use]
    pub fn runs(&self, digest: &str) -> bool {
        let runs = |node: &BootcNode| {
            let booted = node.status.as_ref().and_then(|it| it.booted.as_ref());
            booted.is_some_and(|booted| booted.image_digest == digest)
        };
        self.bootc.values().all(runs)
    }

    /// The reasons of the nodes' `Idle` conditions, in the nodes' order.
    #[must_use]
    pub fn states(&self) -> Vec<String> {
        let idle = |name: &String| {
            let condition = self.node_condition(name, names::condition::IDLE);
            condition.map_or_else(|_| "-".to_owned(), |condition| condition.reason)
        };
        self.bootc.keys().map(idle).collect()
    }
}

/// For complaints: conditions and states in a line each.
impl fmt::Display for View {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status();
        for condition in &status.conditions {
            let Condition {
                type_,
                status,
                reason,
                message,
                ..
            } = condition;
            write!(out, "\n  {type_}={status}/{reason} {message:?}")?;
        }
        let slots = self.in_slot();
        for (name, node) in &self.bootc {
            let conditions = node.status.iter().flat_map(|status| &status.conditions);
            let conditions: Vec<_> = conditions
                .map(|c| format!("{}={}/{} {}", c.type_, c.status, c.reason, c.message))
                .collect();
            let slot = if slots.contains(&name.as_str()) {
                " in a slot"
            } else {
                ""
            };
            let state = node.spec.desired_image_state;
            write!(out, "\n  {name}{slot}: {state:?}, {conditions:?}")?;
        }
        write!(out, "\n  cordoned: {:?}", self.cordoned())
    }
}
