//! Facts of a Node.

use std::collections::{BTreeMap, BTreeSet};

use crd::names::{ANNOTATION_CORDONED_BY, LABEL_CONTROL_PLANE, LABEL_MANAGED};
use fsm::{PoolName, view::NodeView};

use super::{time::timestamp, wire};

/// What is kept of a Node: its facts, and the labels that a changed selector is tried on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Facts {
    /// Without its claims they are not complete: those depend on the pools.
    pub(super) view: NodeView,
    /// All labels.
    pub(super) labels: BTreeMap<String, String>,
}

impl From<wire::Node> for Facts {
    fn from(node: wire::Node) -> Self {
        let meta = node.metadata;
        let labels = meta.labels.unwrap_or_default();
        let status = node.status;
        let ready = status.ready();
        let cordoned_by = meta
            .annotations
            .unwrap_or_default()
            .remove(ANNOTATION_CORDONED_BY);
        let view = NodeView {
            uid: meta.uid.unwrap_or_default(),
            labelled: labels.contains_key(LABEL_MANAGED),
            cordoned: node.spec.unschedulable,
            cordoned_by: cordoned_by.map(PoolName::from),
            ready: ready.map(wire::NodeCondition::holds),
            ready_since: ready
                .and_then(|r| r.last_transition_time.as_ref())
                .map(timestamp),
            boot_id: Some(status.node_info.boot_id).filter(|id| !id.is_empty()),
            control_plane: labels.contains_key(LABEL_CONTROL_PLANE),
            claims: BTreeSet::new(),
        };
        Self { view, labels }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn facts(object: Value) -> Facts {
        serde_json::from_value::<wire::Node>(object).unwrap().into()
    }

    #[test]
    fn every_used_field_becomes_a_fact() {
        let facts = facts(json!({
            "metadata": {
                "name": "w1", "uid": "u1",
                "labels": { "bootc.dev/managed": "", "node-role.kubernetes.io/control-plane": "" },
                "annotations": { "bootc.dev/cordoned-by": "workers" },
            },
            "spec": { "unschedulable": true },
            "status": {
                "conditions": [
                    { "type": "DiskPressure", "status": "False" },
                    { "type": "Ready", "status": "Unknown",
                      "lastTransitionTime": "2026-01-01T00:00:01Z" },
                ],
                "nodeInfo": { "bootID": "b1" },
            },
        }));
        assert_eq!(
            facts.view,
            NodeView {
                uid: "u1".into(),
                labelled: true,
                cordoned: true,
                cordoned_by: Some("workers".into()),
                ready: Some(false),
                ready_since: Some(fsm::Timestamp(1_767_225_601_000)),
                boot_id: Some("b1".into()),
                control_plane: true,
                claims: BTreeSet::new(),
            }
        );
    }

    #[test]
    fn a_node_without_conditions_is_neither_ready_nor_not() {
        let facts = facts(json!({ "metadata": { "name": "w1", "uid": "u1" } }));
        assert_eq!(
            facts.view,
            NodeView {
                uid: "u1".into(),
                ..NodeView::default()
            }
        );
    }

    /// What of a Node wakes a decision up, and what does not (labels do by the claims they change).
    #[test]
    fn only_used_facts_count_as_a_change() {
        let before = json!({
            "metadata": { "name": "w1", "uid": "u1", "labels": { "role": "worker" } },
            "status": {
                "conditions": [{ "type": "Ready", "status": "True",
                    "lastHeartbeatTime": "2026-01-01T00:00:00Z",
                    "lastTransitionTime": "2026-01-01T00:00:00Z" }],
                "nodeInfo": { "bootID": "b1" },
            },
        });
        let rows: Vec<(&str, Value, bool)> = vec![
            ("/metadata/resourceVersion", json!("7"), false),
            ("/metadata/annotations", json!({ "volumes": "x" }), false),
            (
                "/status/conditions/0/lastHeartbeatTime",
                json!("2026-01-01T00:05:00Z"),
                false,
            ),
            ("/status/images", json!([{ "names": ["a"] }]), false),
            ("/status/nodeInfo/kubeletVersion", json!("v1.34.1"), false),
            (
                "/spec/taints",
                json!([{ "key": "k", "effect": "NoSchedule" }]),
                false,
            ),
            ("/status/conditions/0/status", json!("False"), true),
            ("/status/nodeInfo/bootID", json!("b2"), true),
            ("/spec/unschedulable", json!(true), true),
            ("/metadata/labels/role", json!("infra"), false),
            (
                "/metadata/annotations",
                json!({ "bootc.dev/cordoned-by": "p" }),
                true,
            ),
            ("/metadata/uid", json!("u2"), true),
        ];
        for (path, value, wakes) in rows {
            let mut after = before.clone();
            put(&mut after, path, value);
            assert_eq!(
                facts(after).view != facts(before.clone()).view,
                wakes,
                "{path}"
            );
        }
    }

    fn put(object: &mut Value, path: &str, value: Value) {
        let mut at = object;
        for step in path.split('/').skip(1) {
            at = match step.parse::<usize>() {
                Ok(index) => &mut at[index],
                Err(_) => &mut at[step],
            };
        }
        *at = value;
    }
}
