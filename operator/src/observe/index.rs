//! The whole cluster as it is known, and what of it is worth telling.
//!
//! Pure: watch events and answers in, inputs out. It is the only place that knows of versions; a
//! decision is stamped with those whose facts it was made on.

use std::collections::BTreeMap;

use fsm::{
    Input, NodeName, PoolName, Timestamp,
    view::{BootcNodeView, Kept, NodeView, StepView},
};
use kube::runtime::watcher::Event;
use tracing::warn;

use super::{
    claims::Claims,
    node, pool,
    table::{Stamp, Table},
    wire,
};

/// What is known of the cluster.
#[derive(Debug, Default)]
pub struct Index {
    nodes: Table<NodeName, node::Facts>,
    bootc_nodes: Table<NodeName, BootcNodeView>,
    pools: Table<PoolName, pool::Facts>,
    claims: Claims,
    /// What was complained of last: said once, not with every event.
    complaints: BTreeMap<PoolName, String>,
    synced: bool,
}

/// News of one of the three watches.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "passed on once, never stored")]
pub enum Watch {
    /// Of Nodes.
    Node(Event<wire::Node>),
    /// Of `BootcNode`s.
    BootcNode(Event<wire::BootcNode>),
    /// Of pools.
    Pool(Event<wire::Pool>),
}

/// An object as one of our writes left it.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "passed on once, never stored")]
pub enum Written {
    /// A Node.
    Node(wire::Node),
    /// A `BootcNode`.
    BootcNode(wire::BootcNode),
    /// A pool.
    Pool(wire::Pool),
}

/// An object that writes are fenced by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A Node.
    Node(NodeName),
    /// A `BootcNode`.
    BootcNode(NodeName),
    /// A pool.
    Pool(PoolName),
}

impl Written {
    /// The version that it has now.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        match self {
            Self::Node(object) => Stamp::from(&object.metadata),
            Self::BootcNode(object) => Stamp::from(&object.metadata),
            Self::Pool(object) => Stamp::from(&object.metadata),
        }
    }
}

impl Index {
    /// Takes in news of a watch.
    pub fn watched(&mut self, watch: Watch) -> Vec<Input> {
        let mut inputs = match watch {
            Watch::Node(event) => self.node(event),
            Watch::BootcNode(event) => self.bootc_node(event),
            Watch::Pool(event) => self.pool(event),
        };
        if !self.synced && self.is_complete() {
            self.synced = true;
            inputs.push(Input::Synced);
        }
        inputs
    }

    /// Takes in an object that one of our writes returned; `before` are the versions that it had
    /// since the decision.
    pub fn answered(&mut self, written: Written, before: Vec<String>) -> Vec<Input> {
        let Self {
            nodes,
            bootc_nodes,
            pools,
            claims,
            ..
        } = self;
        match written {
            Written::Node(object) => {
                let facts = |name: &_, object| node_facts(claims, bootc_nodes, name, object);
                let news = nodes.answered(object, before, facts, same_node);
                news.into_iter().map(|name| self.node_input(name)).collect()
            }
            Written::BootcNode(object) => {
                let news = bootc_nodes.answered(object, before, view, PartialEq::eq);
                news.into_iter()
                    .flat_map(|name| self.bootc_node_inputs(name))
                    .collect()
            }
            Written::Pool(object) => {
                let news = pools.answered(object, before, pool_facts, PartialEq::eq);
                news.into_iter()
                    .flat_map(|name| self.pool_inputs(name))
                    .collect()
            }
        }
    }

    /// A write that was decided on `stale` was refused as such: whoever decided it is told of the
    /// newer version as soon as that is here, even if it differs in nothing that counts.
    pub fn outdated(&mut self, target: Target, stale: &Stamp) -> Vec<Input> {
        match target {
            Target::Node(name) if self.nodes.outdated(&name, stale) => vec![self.node_input(name)],
            Target::BootcNode(name) if self.bootc_nodes.outdated(&name, stale) => {
                self.bootc_node_inputs(name)
            }
            Target::Pool(name) if self.pools.outdated(&name, stale) => self.pool_inputs(name),
            _ => Vec::new(),
        }
    }

    /// The version of an object whose facts were told last; none if it is not there.
    #[must_use]
    pub fn stamp(&self, target: &Target) -> Option<Stamp> {
        match target {
            Target::Node(name) => self.nodes.stamp(name),
            Target::BootcNode(name) => self.bootc_nodes.stamp(name),
            Target::Pool(name) => self.pools.stamp(name),
        }
        .cloned()
    }

    /// The finalizers of a pool.
    #[must_use]
    pub fn finalizers(&self, name: &PoolName) -> &[String] {
        self.pools
            .get(name)
            .map(|facts| facts.finalizers.as_slice())
            .unwrap_or_default()
    }

    /// The pool that a node's `BootcNode` belongs to.
    #[must_use]
    pub fn owner(&self, name: &NodeName) -> Option<&PoolName> {
        owner(&self.bootc_nodes, name)
    }

    /// The steps of the newest update that a node's agent reports.
    #[must_use]
    pub fn steps(&self, name: &NodeName) -> &[StepView] {
        let report = self.bootc_nodes.get(name).and_then(|it| it.report.as_ref());
        report.map(|it| it.steps.as_slice()).unwrap_or_default()
    }

    /// When the node took the slot that it holds.
    #[must_use]
    pub fn slot_since(&self, name: &NodeName) -> Option<Timestamp> {
        match &self.bootc_nodes.get(name)?.kept {
            Kept::Is(record) => Some(record.slot.as_ref()?.since),
            Kept::Missing | Kept::Unreadable(_) => None,
        }
    }

    fn is_complete(&self) -> bool {
        self.nodes.is_complete() && self.bootc_nodes.is_complete() && self.pools.is_complete()
    }

    fn node(&mut self, event: Event<wire::Node>) -> Vec<Input> {
        let Self {
            nodes,
            bootc_nodes,
            claims,
            ..
        } = self;
        let facts = |name: &_, object| node_facts(claims, bootc_nodes, name, object);
        let news = nodes.watched(event, facts, same_node);
        news.into_iter().map(|name| self.node_input(name)).collect()
    }

    fn bootc_node(&mut self, event: Event<wire::BootcNode>) -> Vec<Input> {
        let news = self.bootc_nodes.watched(event, view, PartialEq::eq);
        news.into_iter()
            .flat_map(|name| self.bootc_node_inputs(name))
            .collect()
    }

    fn pool(&mut self, event: Event<wire::Pool>) -> Vec<Input> {
        let news = self.pools.watched(event, pool_facts, PartialEq::eq);
        news.into_iter()
            .flat_map(|name| self.pool_inputs(name))
            .collect()
    }

    fn node_input(&self, name: NodeName) -> Input {
        let view = self.nodes.get(&name).map(|facts| facts.view.clone());
        Input::Node(name, view)
    }

    /// A `BootcNode`, and its Node if the owner decides who claims that.
    fn bootc_node_inputs(&mut self, name: NodeName) -> Vec<Input> {
        let view = self.bootc_nodes.get(&name);
        let owner = view
            .and_then(|view| view.owner.as_ref())
            .map(|owner| &owner.pool);
        let claims = &self.claims;
        let node = self.nodes.get_mut(&name);
        let claimed = node.is_some_and(|node| claims.renew(&mut node.view, &node.labels, owner));
        let mut inputs = vec![Input::BootcNode(name.clone(), view.cloned())];
        if claimed {
            inputs.push(self.node_input(name));
        }
        inputs
    }

    /// A pool, and the nodes whose claims change with its selector.
    fn pool_inputs(&mut self, name: PoolName) -> Vec<Input> {
        let facts = self.pools.get(&name);
        complain(
            &mut self.complaints,
            &name,
            facts.and_then(|facts| facts.complaint.as_ref()),
        );
        let changed = self.claims.set(&name, facts.map(|facts| &facts.claim));
        let mut inputs = vec![Input::Pool(name, facts.map(|facts| facts.view.clone()))];
        if changed {
            inputs.extend(self.renewed_nodes());
        }
        inputs
    }

    fn renewed_nodes(&mut self) -> Vec<Input> {
        let Self {
            nodes,
            bootc_nodes,
            claims,
            ..
        } = self;
        let mut inputs = Vec::new();
        for (name, facts) in nodes.iter_mut() {
            if claims.renew(&mut facts.view, &facts.labels, owner(bootc_nodes, name)) {
                inputs.push(Input::Node(name.clone(), Some(facts.view.clone())));
            }
        }
        inputs
    }
}

fn complain(known: &mut BTreeMap<PoolName, String>, pool: &PoolName, complaint: Option<&String>) {
    let Some(complaint) = complaint else {
        known.remove(pool);
        return;
    };
    if known.get(pool) != Some(complaint) {
        warn!(%pool, "{complaint}");
        known.insert(pool.clone(), complaint.clone());
    }
}

fn owner<'a>(
    bootc_nodes: &'a Table<NodeName, BootcNodeView>,
    name: &NodeName,
) -> Option<&'a PoolName> {
    Some(&bootc_nodes.get(name)?.owner.as_ref()?.pool)
}

fn node_facts(
    claims: &Claims,
    bootc_nodes: &Table<NodeName, BootcNodeView>,
    name: &NodeName,
    object: wire::Node,
) -> node::Facts {
    let mut facts = node::Facts::from(object);
    claims.renew(&mut facts.view, &facts.labels, owner(bootc_nodes, name));
    facts
}

/// Labels count by the claims that they make.
fn same_node(a: &node::Facts, b: &node::Facts) -> bool {
    let (a, b): (&NodeView, &NodeView) = (&a.view, &b.view);
    a == b
}

fn view(_: &NodeName, object: wire::BootcNode) -> BootcNodeView {
    object.into()
}

fn pool_facts(_: &PoolName, object: wire::Pool) -> pool::Facts {
    object.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(name: &str, version: &str, labels: &Value) -> Watch {
        let meta =
            json!({ "name": name, "uid": name, "resourceVersion": version, "labels": labels });
        Watch::Node(Event::Apply(
            serde_json::from_value(json!({ "metadata": meta })).unwrap(),
        ))
    }

    fn pool(name: &str, version: &str, selector: &Value) -> Watch {
        let object = json!({
            "metadata": { "name": name, "uid": name, "resourceVersion": version },
            "spec": { "nodeSelector": selector, "image": { "ref": "r.io/os:1" } },
        });
        Watch::Pool(Event::Apply(serde_json::from_value(object).unwrap()))
    }

    fn bootc_node(name: &str, owner: &str) -> Watch {
        let owner = json!([{ "apiVersion": "node.bootc.dev/v1alpha1", "kind": "BootcNodePool",
            "name": owner, "uid": owner, "controller": true }]);
        let meta = json!({ "name": name, "uid": name, "ownerReferences": owner });
        Watch::BootcNode(Event::Apply(
            serde_json::from_value(json!({ "metadata": meta })).unwrap(),
        ))
    }

    /// Which nodes are told of, and who claims them.
    fn told(inputs: &[Input]) -> Vec<String> {
        let claims = |view: &NodeView| {
            let names: Vec<_> = view.claims.iter().map(PoolName::as_str).collect();
            names.join("+")
        };
        let node = |input: &Input| match input {
            Input::Node(name, view) => Some(format!(
                "{name}:{}",
                view.as_ref().map(claims).unwrap_or_default()
            )),
            _ => None,
        };
        inputs.iter().filter_map(node).collect()
    }

    fn selector(role: &str) -> Value {
        json!({ "matchLabels": { "role": role } })
    }

    #[test]
    fn a_changed_selector_tells_of_the_nodes_that_it_concerns_and_no_others() {
        let mut index = Index::default();
        index.watched(node("w1", "1", &json!({ "role": "worker" })));
        index.watched(node("i1", "1", &json!({ "role": "infra" })));
        index.watched(node("c1", "1", &json!({})));
        assert_eq!(
            told(&index.watched(pool("p", "1", &selector("worker")))),
            ["w1:p"]
        );
        assert_eq!(
            told(&index.watched(pool("q", "1", &selector("worker")))),
            ["w1:p+q"]
        );
        assert_eq!(
            told(&index.watched(pool("p", "2", &selector("infra")))),
            ["i1:p", "w1:q"]
        );
        assert!(told(&index.watched(pool("p", "3", &selector("infra")))).is_empty());
    }

    #[test]
    fn a_label_wakes_only_where_it_changes_a_claim() {
        let mut index = Index::default();
        index.watched(pool("p", "1", &selector("worker")));
        let worker = json!({ "role": "worker" });
        assert_eq!(told(&index.watched(node("w1", "1", &worker))), ["w1:p"]);
        let zoned = json!({ "role": "worker", "zone": "a" });
        assert!(index.watched(node("w1", "2", &zoned)).is_empty());
        assert_eq!(
            told(&index.watched(node("w1", "3", &json!({ "zone": "a" })))),
            ["w1:"]
        );
    }

    #[test]
    fn a_pool_whose_selector_breaks_keeps_the_nodes_that_it_owns() {
        let mut index = Index::default();
        index.watched(pool("p", "1", &selector("worker")));
        index.watched(node("w1", "1", &json!({ "role": "worker" })));
        index.watched(node("w2", "1", &json!({ "role": "worker" })));
        index.watched(bootc_node("w1", "p"));
        assert_eq!(told(&index.watched(pool("p", "2", &json!({})))), ["w2:"]);
        assert_eq!(told(&index.watched(bootc_node("w2", "p"))), ["w2:p"]);
    }

    #[test]
    fn the_end_of_a_pool_ends_its_claims() {
        let mut index = Index::default();
        index.watched(node("w1", "1", &json!({ "role": "worker" })));
        index.watched(pool("p", "1", &selector("worker")));
        let Watch::Pool(Event::Apply(object)) = pool("p", "1", &selector("worker")) else {
            unreachable!();
        };
        let inputs = index.watched(Watch::Pool(Event::Delete(object)));
        assert!(matches!(&inputs[0], Input::Pool(_, None)));
        assert_eq!(told(&inputs), ["w1:"]);
    }

    #[test]
    fn synced_is_said_once_and_after_all_three_lists() {
        let mut index = Index::default();
        let synced = |inputs: &[Input]| inputs.contains(&Input::Synced);
        assert!(!synced(&index.watched(Watch::Node(Event::InitDone))));
        assert!(!synced(&index.watched(Watch::Pool(Event::InitDone))));
        assert!(synced(&index.watched(Watch::BootcNode(Event::InitDone))));
        assert!(!synced(&index.watched(Watch::Node(Event::InitDone))));
    }

    #[test]
    fn a_refused_write_is_told_of_the_newer_version_at_once_if_it_is_here() {
        let mut index = Index::default();
        index.watched(node("w1", "1", &json!({})));
        let target = || Target::Node("w1".into());
        let stale = index.stamp(&target()).unwrap();
        index.watched(node("w1", "2", &json!({})));
        assert_eq!(told(&index.outdated(target(), &stale)), ["w1:"]);
        let stale = index.stamp(&target()).unwrap();
        assert!(index.outdated(target(), &stale).is_empty());
        assert_eq!(told(&index.watched(node("w1", "3", &json!({})))), ["w1:"]);
    }
}
