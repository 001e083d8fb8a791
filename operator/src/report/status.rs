//! What is shown in statuses: of a pool, and the condition Waiting of a `BootcNode`.
//!
//! Server-side apply with the operator's own field manager: fields of others (the agent's part of
//! the same status above all) stay untouched, and an equal status costs no new version.

use crd::names::condition;
use fsm::{
    NodeName, PoolName,
    view::{Condition, PoolStatus, Waiting},
};
use kube::Resource;
use serde_json::{Value, json};

use crate::{
    apply::body::Body,
    observe::{Stamp, time::rfc3339},
};

/// The whole status of a pool.
#[must_use]
pub fn pool(name: &PoolName, stamp: &Stamp, status: &PoolStatus) -> Body {
    let generation = status.observed_generation;
    let conditions = [
        status
            .up_to_date
            .as_ref()
            .map(|shown| (condition::UP_TO_DATE, shown)),
        status
            .is_degraded
            .as_ref()
            .map(|shown| (condition::DEGRADED, shown)),
    ];
    let conditions: Vec<Value> = conditions
        .into_iter()
        .flatten()
        .map(|(name, shown)| pool_condition(name, shown, generation))
        .collect();
    let mut shown = json!({
        "updateAvailable": status.update_available,
        "nodeCount": status.nodes,
        "updatedCount": status.updated,
        "updatingCount": status.updating,
        "degradedCount": status.degraded,
        "conditions": conditions,
    });
    // A field that is left out is removed; null is no value that the schema knows.
    for (field, value) in [
        ("observedGeneration", generation.map(Value::from)),
        (
            "targetDigest",
            status.target_digest.clone().map(Value::from),
        ),
        (
            "deployedDigest",
            status.deployed_digest.clone().map(Value::from),
        ),
        (
            "nextTagResolutionTime",
            status.next_tag_resolution.map(|at| rfc3339(at).into()),
        ),
    ] {
        if let Some(value) = value {
            shown[field] = value;
        }
    }
    applied::<crd::BootcNodePool>(name.as_str(), stamp, &shown)
}

fn pool_condition(name: &str, condition: &Condition, generation: Option<i64>) -> Value {
    let status = match condition.status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let mut shown = json!({
        "type": name,
        "status": status,
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": rfc3339(condition.since),
    });
    if let Some(generation) = generation {
        shown["observedGeneration"] = generation.into();
    }
    shown
}

/// The condition Waiting of a node.
#[must_use]
pub fn waiting(name: &NodeName, stamp: &Stamp, waiting: &Waiting) -> Body {
    let condition = json!({
        "type": condition::WAITING,
        "status": if waiting.waiting { "True" } else { "False" },
        "reason": waiting.reason,
        "message": waiting.message,
        "lastTransitionTime": rfc3339(waiting.since),
    });
    applied::<crd::BootcNode>(name.as_str(), stamp, &json!({ "conditions": [condition] }))
}

fn applied<K: Resource<DynamicType = ()>>(name: &str, stamp: &Stamp, status: &Value) -> Body {
    Body::ApplyStatus(json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": { "name": name, "uid": stamp.uid, "resourceVersion": stamp.version },
        "status": status,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fsm::Timestamp;

    const AT: Timestamp = Timestamp(1_767_225_601_000);

    fn stamp() -> Stamp {
        Stamp {
            uid: "u1".into(),
            version: "7".into(),
        }
    }

    fn condition(status: Option<bool>, reason: &str) -> Condition {
        Condition {
            status,
            reason: reason.into(),
            message: "m".into(),
            since: AT,
        }
    }

    #[test]
    fn a_pools_status_is_applied_whole_and_fenced() {
        let status = PoolStatus {
            observed_generation: Some(2),
            target_digest: Some("sha256:b".into()),
            deployed_digest: None,
            update_available: true,
            next_tag_resolution: Some(AT),
            nodes: 3,
            updated: 1,
            updating: 1,
            degraded: 1,
            up_to_date: Some(condition(Some(false), "RolloutInProgress")),
            is_degraded: Some(condition(None, "X")),
        };
        let time = "2026-01-01T00:00:01Z";
        let condition = |name: &str, status: &str, reason: &str| {
            json!({ "type": name, "status": status, "reason": reason, "message": "m",
                "lastTransitionTime": time, "observedGeneration": 2 })
        };
        let wanted = json!({
            "apiVersion": "node.bootc.dev/v1alpha1",
            "kind": "BootcNodePool",
            "metadata": { "name": "workers", "uid": "u1", "resourceVersion": "7" },
            "status": {
                "observedGeneration": 2, "targetDigest": "sha256:b", "updateAvailable": true,
                "nextTagResolutionTime": time,
                "nodeCount": 3, "updatedCount": 1, "updatingCount": 1, "degradedCount": 1,
                "conditions": [
                    condition("UpToDate", "False", "RolloutInProgress"),
                    condition("Degraded", "Unknown", "X"),
                ],
            },
        });
        assert_eq!(
            pool(&"workers".into(), &stamp(), &status),
            Body::ApplyStatus(wanted)
        );
    }

    #[test]
    fn what_a_node_waits_for_is_the_operators_part_of_the_status() {
        let shown = Waiting {
            waiting: true,
            reason: "Slot".into(),
            message: "for w0".into(),
            since: AT,
        };
        let wanted = json!({
            "apiVersion": "node.bootc.dev/v1alpha1",
            "kind": "BootcNode",
            "metadata": { "name": "w1", "uid": "u1", "resourceVersion": "7" },
            "status": { "conditions": [{
                "type": "Waiting", "status": "True", "reason": "Slot", "message": "for w0",
                "lastTransitionTime": "2026-01-01T00:00:01Z",
            }] },
        });
        assert_eq!(
            waiting(&"w1".into(), &stamp(), &shown),
            Body::ApplyStatus(wanted)
        );
    }

    /// What is written is what is read back: else each would follow the other for ever.
    #[test]
    fn a_status_survives_the_way_there_and_back() {
        let status = PoolStatus {
            observed_generation: Some(2),
            deployed_digest: Some("sha256:a".into()),
            nodes: 3,
            up_to_date: Some(condition(Some(true), "AllUpdated")),
            is_degraded: Some(condition(Some(false), "OK")),
            ..PoolStatus::default()
        };
        let Body::ApplyStatus(body) = pool(&"workers".into(), &stamp(), &status) else {
            panic!("a status is applied");
        };
        let object = serde_json::from_value(body).unwrap();
        assert_eq!(crate::observe::pool_status(&object), Some(status));
    }
}
