//! Facts of a `BootcNode`.

use std::sync::Arc;

use crd::{
    DesiredImageState, ImageInfo, RebootPolicy,
    names::{
        ANNOTATION_IN_REBOOT_SLOT, ANNOTATION_RETRY, ANNOTATION_ROLLOUT, ANNOTATION_WAS_CORDONED,
        GROUP, condition, node_reason,
    },
};
use fsm::{
    Image, Record, Running, Timestamp,
    view::{
        Activity, AgentFault, AgentFaultKind, BootcNodeView, Kept, NodeSpec, Owner, Report,
        SecretRef, StepView, Waiting,
    },
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::core::ObjectMeta;

use super::{
    time::{parse, timestamp},
    wire::{self, Part, condition_of},
};

impl From<wire::BootcNode> for BootcNodeView {
    fn from(node: wire::BootcNode) -> Self {
        let owner = owner(&node.metadata);
        let waiting = node
            .status
            .get()
            .and_then(|status| waiting(&status.conditions));
        let meta = node.metadata;
        let annotations = meta.annotations.unwrap_or_default();
        let annotation = |name: &str| annotations.get(name).map(String::as_str);
        Self {
            uid: meta.uid.unwrap_or_default(),
            generation: meta.generation.unwrap_or_default(),
            owner,
            deleting: meta.deletion_timestamp.is_some(),
            spec: node.spec.get().map(spec).unwrap_or_default(),
            kept: kept(annotation(ANNOTATION_ROLLOUT)),
            in_reboot_slot: annotation(ANNOTATION_IN_REBOOT_SLOT).is_some(),
            was_cordoned: annotation(ANNOTATION_WAS_CORDONED).and_then(|text| text.parse().ok()),
            retry: annotation(ANNOTATION_RETRY).and_then(parse),
            report: report(&node.status).map(Arc::new),
            waiting,
        }
    }
}

/// The pool that controls the object.
#[must_use]
pub fn owner(meta: &ObjectMeta) -> Option<Owner> {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    let ours = |api: &str| api.split_once('/').is_some_and(|(group, _)| group == GROUP);
    let owner = owners.iter().find(|owner| {
        owner.controller == Some(true) && owner.kind == "BootcNodePool" && ours(&owner.api_version)
    })?;
    Some(Owner {
        pool: owner.name.as_str().into(),
        uid: owner.uid.clone(),
    })
}

fn spec(spec: &crd::BootcNodeSpec) -> NodeSpec {
    NodeSpec {
        image: spec.desired_image.as_deref().and_then(Image::new),
        booted: spec.desired_image_state == DesiredImageState::Booted,
        approved_boot: spec.approved_boot.clone(),
        secret: spec.pull_secret_ref.as_ref().map(secret),
        secret_hash: spec.pull_secret_hash.clone(),
        soft_reboot: spec.reboot_policy == RebootPolicy::AllowSoftReboot,
    }
}

/// A reference to a Secret as a fact.
pub(super) fn secret(secret: &crd::SecretRef) -> SecretRef {
    SecretRef {
        name: secret.name.clone(),
        namespace: secret.namespace.clone(),
    }
}

fn kept(annotation: Option<&str>) -> Kept {
    match annotation.map(record) {
        None => Kept::Missing,
        Some(Ok(record)) => Kept::Is(Arc::new(record)),
        Some(Err(why)) => Kept::Unreadable(why),
    }
}

/// Every field of a record has a default, but one without a state (or a list, which serde would
/// take for an empty record) was not written by the operator.
fn record(text: &str) -> Result<Record, String> {
    let fields: serde_json::Map<_, _> = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if !fields.contains_key("state") {
        return Err("it has no state".to_owned());
    }
    serde_json::from_value(fields.into()).map_err(|error| error.to_string())
}

/// What the agent says. The operator writes into the same status, so a status alone is no word of
/// the agent's. One that cannot be read is a fault of the node: there it is shown and heals.
fn report(status: &Part<crd::BootcNodeStatus>) -> Option<Report> {
    let status = match status {
        Part::Missing => return None,
        Part::Is(status) => status,
        Part::Odd(why) => {
            let message = format!("the status of the BootcNode cannot be read: {why}");
            let fault = AgentFault {
                kind: AgentFaultKind::Error,
                message,
            };
            return Some(Report {
                degraded: Some(fault),
                ..Report::default()
            });
        }
    };
    let idle = condition_of(&status.conditions, condition::IDLE);
    let degraded = condition_of(&status.conditions, condition::DEGRADED);
    let silent = status.booted.is_none()
        && status.boot.is_none()
        && status.observed_generation.is_none()
        && idle.is_none()
        && degraded.is_none();
    (!silent).then(|| Report {
        observed_generation: status.observed_generation,
        boot: status.boot.clone(),
        booted: status.booted.as_ref().map(running),
        staged: status.staged.as_ref().map(running),
        activity: idle.map(activity).unwrap_or_default(),
        degraded: degraded
            .filter(|condition| condition.status == "True")
            .map(fault),
        steps: status.steps.iter().filter_map(step).collect(),
    })
}

fn step(step: &crd::Step) -> Option<StepView> {
    let at = |time: &MicroTime| Timestamp(time.0.as_millisecond());
    Some(StepView {
        name: step.name.clone(),
        start: step.start.as_ref().map(at)?,
        end: step.end.as_ref().map(at),
    })
}

fn running(info: &ImageInfo) -> Running {
    let image = Some(info.image.clone()).filter(|image| !image.is_empty());
    Running {
        image,
        digest: info.image_digest.clone(),
    }
}

fn activity(idle: &Condition) -> Activity {
    match (idle.status.as_str(), idle.reason.as_str()) {
        ("True", _) => Activity::Idle,
        ("False", node_reason::STAGING) => Activity::Staging,
        ("False", node_reason::STAGED) => Activity::Staged,
        ("False", node_reason::REBOOTING) => Activity::Rebooting,
        _ => Activity::Unknown,
    }
}

fn fault(degraded: &Condition) -> AgentFault {
    let kind = match degraded.reason.as_str() {
        node_reason::FELL_BACK => AgentFaultKind::FellBack,
        node_reason::NOT_BOOTC => AgentFaultKind::NotBootc,
        _ => AgentFaultKind::Error,
    };
    AgentFault {
        kind,
        message: degraded.message.clone(),
    }
}

fn waiting(conditions: &[Condition]) -> Option<Waiting> {
    let condition = condition_of(conditions, condition::WAITING)?;
    Some(Waiting {
        waiting: condition.status == "True",
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        since: timestamp(&condition.last_transition_time),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fsm::{State, Timestamp};
    use serde_json::{Value, json};

    fn view(object: Value) -> BootcNodeView {
        serde_json::from_value::<wire::BootcNode>(object)
            .unwrap()
            .into()
    }

    fn reported(status: &Value) -> Option<Report> {
        view(json!({ "metadata": { "name": "w1" }, "status": status }))
            .report
            .map(Arc::unwrap_or_clone)
    }

    #[test]
    fn every_used_field_becomes_a_fact() {
        let record = Record {
            state: State::Staged,
            attempt: 3,
            ..Record::default()
        };
        let view = view(json!({
            "metadata": {
                "name": "w1", "uid": "u1", "generation": 4,
                "deletionTimestamp": "2026-01-01T00:00:00Z",
                "ownerReferences": [
                    { "apiVersion": "v1", "kind": "Node", "name": "w1", "uid": "n1" },
                    { "apiVersion": "node.bootc.dev/v1alpha1", "kind": "BootcNodePool",
                      "name": "workers", "uid": "p1", "controller": true },
                ],
                "annotations": {
                    "bootc.dev/rollout": serde_json::to_string(&record).unwrap(),
                    "bootc.dev/in-reboot-slot": "",
                    "bootc.dev/was-cordoned": "false",
                    "bootc.dev/retry": "2026-01-01T00:00:01Z",
                },
            },
            "spec": {
                "desiredImage": "r/os@sha256:1", "desiredImageState": "Booted", "approvedBoot": "b1",
                "pullSecretRef": { "name": "s", "namespace": "ns" }, "pullSecretHash": "h",
                "rebootPolicy": "AllowSoftReboot",
            },
            "status": { "conditions": [{
                "type": "Waiting", "status": "True", "reason": "Slot", "message": "for w0",
                "lastTransitionTime": "2026-01-01T00:00:01Z",
            }] },
        }));
        let at = Timestamp(1_767_225_601_000);
        let wanted = BootcNodeView {
            uid: "u1".into(),
            generation: 4,
            owner: Some(Owner {
                pool: "workers".into(),
                uid: "p1".into(),
            }),
            deleting: true,
            spec: NodeSpec {
                image: Image::new("r/os@sha256:1"),
                booted: true,
                approved_boot: Some("b1".into()),
                secret: Some(SecretRef {
                    name: "s".into(),
                    namespace: "ns".into(),
                }),
                secret_hash: Some("h".into()),
                soft_reboot: true,
            },
            kept: Kept::Is(Arc::new(record)),
            in_reboot_slot: true,
            was_cordoned: Some(false),
            retry: Some(at),
            report: None,
            waiting: Some(Waiting {
                waiting: true,
                reason: "Slot".into(),
                message: "for w0".into(),
                since: at,
            }),
        };
        assert_eq!(view, wanted);
    }

    #[test]
    fn a_record_that_is_no_record_is_said_to_be_unreadable() {
        for text in ["", "{", "[]", "{}", r#"{"state":"Dancing"}"#] {
            let annotations = json!({ "bootc.dev/rollout": text });
            let object = json!({ "metadata": { "name": "w1", "annotations": annotations } });
            assert!(matches!(view(object).kept, Kept::Unreadable(_)), "{text:?}");
        }
    }

    #[test]
    fn an_owner_must_be_a_pool_and_the_controller() {
        for (api, kind, controller) in [
            ("node.bootc.dev/v1alpha1", "BootcNodePool", false),
            ("node.bootc.dev/v1alpha1", "BootcNode", true),
            ("bootc.bootc.dev/v1alpha1", "BootcNodePool", true),
        ] {
            let owner = json!({ "apiVersion": api, "kind": kind, "name": "p", "uid": "u",
                                "controller": controller });
            let object = json!({ "metadata": { "name": "w1", "ownerReferences": [owner] } });
            assert_eq!(view(object).owner, None, "{api} {kind} {controller}");
        }
    }

    #[test]
    fn the_agents_conditions_become_its_activity_and_fault() {
        for (idle, reason, activity) in [
            ("True", "Idle", Activity::Idle),
            ("False", "Staging", Activity::Staging),
            ("False", "Staged", Activity::Staged),
            ("False", "Rebooting", Activity::Rebooting),
            ("False", "Dancing", Activity::Unknown),
            ("Unknown", "Staged", Activity::Unknown),
        ] {
            let status = json!({ "conditions": [{ "type": "Idle", "status": idle,
                "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" }] });
            assert_eq!(
                reported(&status).unwrap().activity,
                activity,
                "{idle}/{reason}"
            );
        }
        for (reason, kind) in [
            ("Error", AgentFaultKind::Error),
            ("FellBack", AgentFaultKind::FellBack),
            ("NotBootc", AgentFaultKind::NotBootc),
            ("Novel", AgentFaultKind::Error),
        ] {
            let status = json!({ "conditions": [{ "type": "Degraded", "status": "True",
                "reason": reason, "message": "why",
                "lastTransitionTime": "2026-01-01T00:00:00Z" }] });
            let fault = reported(&status).unwrap().degraded.unwrap();
            assert_eq!(
                (fault.kind, fault.message.as_str()),
                (kind, "why"),
                "{reason}"
            );
        }
    }

    #[test]
    fn the_agent_has_spoken_once_it_says_anything_itself() {
        assert_eq!(reported(&Value::Null), None);
        assert_eq!(reported(&json!({})), None);
        let booted = json!({ "booted": { "image": "", "imageDigest": "sha256:1" } });
        let running = Running {
            image: None,
            digest: "sha256:1".into(),
        };
        assert_eq!(reported(&booted).unwrap().booted, Some(running));
        assert!(reported(&json!({ "boot": "b1" })).is_some());
    }

    #[test]
    fn a_status_of_a_strangers_shape_degrades_its_node() {
        let fault = reported(&json!({ "booted": 5 })).unwrap().degraded.unwrap();
        assert!(
            fault.message.contains("cannot be read"),
            "{}",
            fault.message
        );
    }
}
