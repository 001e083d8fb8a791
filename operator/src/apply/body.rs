//! Effects as requests: pure, so that each body is compared as JSON.
//!
//! Every request names the UID and the version that it was decided on: a decision that is late and
//! a replica that is not the leader any more get a 409 instead of an effect.

use crd::{
    BootcNode, BootcNodePool, DesiredImageState, RebootPolicy,
    names::{
        ANNOTATION_CORDONED_BY, ANNOTATION_IN_REBOOT_SLOT, ANNOTATION_RETRY, ANNOTATION_ROLLOUT,
        ANNOTATION_WAS_CORDONED, FINALIZER_POOL_CLEANUP, LABEL_MANAGED,
    },
};
use fsm::{
    NodeName,
    command::{Effect, NodeWrite},
    view::{NodeSpec, Owner},
};
use kube::Resource as _;
use serde_json::{Map, Value, json};

use crate::observe::{Stamp, time::rfc3339_exact};

/// What is sent for one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A JSON merge patch.
    Merge(Value),
    /// A strategic merge patch, for Kubernetes' own kinds.
    Strategic(Value),
    /// Server-side apply of the status.
    ApplyStatus(Value),
    /// A new object.
    Create(Box<BootcNode>),
    /// Its end, if it still is this one.
    Delete(Stamp),
}

/// The kind of object that an effect writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The Node.
    Node,
    /// The `BootcNode` that is named after it.
    BootcNode,
}

/// The object that an effect writes; none for a drain's.
#[must_use]
pub fn kind(effect: &Effect) -> Option<Kind> {
    match effect {
        Effect::CancelDrain | Effect::StartDrain { .. } => None,
        Effect::Uncordon
        | Effect::ForgetCordon
        | Effect::Unlabel
        | Effect::Label
        | Effect::Cordon { .. } => Some(Kind::Node),
        Effect::Delete | Effect::Create { .. } | Effect::Commit(_) => Some(Kind::BootcNode),
    }
}

/// The request that an effect on `node` is; `stamp` is the object's version. None for an effect on
/// an object that is not there, and for a drain's.
#[must_use]
pub fn body(node: &NodeName, effect: &Effect, stamp: Option<&Stamp>) -> Option<Body> {
    if let Effect::Create { owner, write } = effect {
        return Some(Body::Create(Box::new(create(node, owner, write))));
    }
    let stamp = stamp?;
    match effect {
        Effect::CancelDrain | Effect::StartDrain { .. } | Effect::Create { .. } => None,
        Effect::Cordon { by } => Some(cordon(stamp, &json!(by), &json!(true))),
        Effect::Uncordon => Some(cordon(stamp, &Value::Null, &Value::Null)),
        Effect::ForgetCordon => {
            let annotations = json!({ ANNOTATION_CORDONED_BY: null });
            Some(Body::Strategic(fenced(
                stamp,
                json!({ "annotations": annotations }),
            )))
        }
        Effect::Label => Some(label(stamp, &json!(""))),
        Effect::Unlabel => Some(label(stamp, &Value::Null)),
        Effect::Delete => Some(Body::Delete(stamp.clone())),
        Effect::Commit(write) => {
            let mut patch = fenced(stamp, json!({ "annotations": annotations(write) }));
            patch["spec"] = spec(&write.spec);
            Some(Body::Merge(patch))
        }
    }
}

/// Sets or removes our finalizer; `finalizers` are those that the pool has.
#[must_use]
pub fn finalizer(stamp: &Stamp, finalizers: &[String], ours: bool) -> Body {
    let others = finalizers
        .iter()
        .map(String::as_str)
        .filter(|name| *name != FINALIZER_POOL_CLEANUP);
    let all: Vec<&str> = others
        .chain(ours.then_some(FINALIZER_POOL_CLEANUP))
        .collect();
    Body::Merge(fenced(stamp, json!({ "finalizers": all })))
}

/// A patch of these metadata, refused unless the object is this one in this version.
fn fenced(stamp: &Stamp, mut metadata: Value) -> Value {
    metadata["uid"] = json!(stamp.uid);
    metadata["resourceVersion"] = json!(stamp.version);
    json!({ "metadata": metadata })
}

/// The cordon and whose it is change in one patch, or a crash in between would leave a cordon that
/// nobody takes back.
fn cordon(stamp: &Stamp, by: &Value, unschedulable: &Value) -> Body {
    let annotations = json!({ ANNOTATION_CORDONED_BY: by });
    let mut patch = fenced(stamp, json!({ "annotations": annotations }));
    patch["spec"] = json!({ "unschedulable": unschedulable });
    Body::Strategic(patch)
}

fn label(stamp: &Stamp, value: &Value) -> Body {
    Body::Strategic(fenced(stamp, json!({ "labels": { LABEL_MANAGED: value } })))
}

/// All annotations of ours; null removes one.
fn annotations(write: &NodeWrite) -> Value {
    json!({
        // A record is plain data: that it cannot be serialised is not a case.
        ANNOTATION_ROLLOUT: serde_json::to_string(&write.record).unwrap_or_default(),
        ANNOTATION_IN_REBOOT_SLOT: write.in_reboot_slot.then_some(""),
        ANNOTATION_WAS_CORDONED: write.was_cordoned.map(|was| was.to_string()),
        ANNOTATION_RETRY: write.retry.map(rfc3339_exact),
    })
}

/// The whole spec; null removes a field.
fn spec(spec: &NodeSpec) -> Value {
    json!({
        "desiredImage": spec.image,
        "desiredImageState": state(spec),
        "approvedBoot": spec.approved_boot,
        "pullSecretRef": spec.secret.as_ref().map(|secret| {
            json!({ "name": secret.name, "namespace": secret.namespace })
        }),
        "pullSecretHash": spec.secret_hash,
        "rebootPolicy": reboot_policy(spec),
    })
}

fn state(spec: &NodeSpec) -> DesiredImageState {
    if spec.booted {
        DesiredImageState::Booted
    } else {
        DesiredImageState::Staged
    }
}

fn reboot_policy(spec: &NodeSpec) -> RebootPolicy {
    if spec.soft_reboot {
        RebootPolicy::AllowSoftReboot
    } else {
        RebootPolicy::RebootOnly
    }
}

fn create(name: &NodeName, owner: &Owner, write: &NodeWrite) -> BootcNode {
    let spec = crd::BootcNodeSpec {
        desired_image: write.spec.image.as_ref().map(ToString::to_string),
        desired_image_state: state(&write.spec),
        approved_boot: write.spec.approved_boot.clone(),
        pull_secret_ref: write.spec.secret.as_ref().map(|secret| crd::SecretRef {
            name: secret.name.clone(),
            namespace: secret.namespace.clone(),
        }),
        pull_secret_hash: write.spec.secret_hash.clone(),
        reboot_policy: reboot_policy(&write.spec),
    };
    let mut object = BootcNode::new(name.as_str(), spec);
    let present = |map: Map<String, Value>| {
        let texts = map
            .into_iter()
            .filter_map(|(key, value)| Some((key, value.as_str()?.into())));
        texts.collect()
    };
    if let Value::Object(map) = annotations(write) {
        object.metadata.annotations = Some(present(map));
    }
    // It does not hold its owner's deletion up: the pool's finalizer does, and while it does the
    // nodes are let go in order. Otherwise the garbage collector would delete this first.
    let reference = k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference {
        api_version: BootcNodePool::api_version(&()).into_owned(),
        kind: BootcNodePool::kind(&()).into_owned(),
        name: owner.pool.to_string(),
        uid: owner.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(false),
    };
    object.metadata.owner_references = Some(vec![reference]);
    object
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use fsm::{Image, Record, State, Timestamp, view::SecretRef};

    fn stamp() -> Stamp {
        Stamp {
            uid: "u1".into(),
            version: "7".into(),
        }
    }

    fn built(effect: &Effect) -> Body {
        body(&"w1".into(), effect, Some(&stamp())).unwrap()
    }

    fn full() -> NodeWrite {
        NodeWrite {
            spec: NodeSpec {
                image: Image::new("r.io/os@sha256:1"),
                booted: true,
                approved_boot: Some("b1".into()),
                secret: Some(SecretRef {
                    name: "s".into(),
                    namespace: "ns".into(),
                }),
                secret_hash: Some("h".into()),
                soft_reboot: true,
            },
            record: Arc::new(Record {
                state: State::Rebooting,
                ..Record::default()
            }),
            in_reboot_slot: true,
            was_cordoned: Some(true),
            retry: Some(Timestamp(1_767_225_601_000)),
        }
    }

    fn empty() -> NodeWrite {
        NodeWrite {
            spec: NodeSpec::default(),
            record: Arc::default(),
            in_reboot_slot: false,
            was_cordoned: None,
            retry: None,
        }
    }

    #[test]
    fn writes_to_a_node_are_small_and_fenced() {
        let meta = |more: Value| {
            let mut meta = json!({ "uid": "u1", "resourceVersion": "7" });
            meta.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            meta
        };
        let cordoned_by = |by: Value| json!({ "annotations": { "bootc.dev/cordoned-by": by } });
        let managed = |value: Value| json!({ "labels": { "bootc.dev/managed": value } });
        for (effect, patch) in [
            (
                Effect::Cordon {
                    by: "workers".into(),
                },
                json!({ "metadata": meta(cordoned_by(json!("workers"))),
                        "spec": { "unschedulable": true } }),
            ),
            (
                Effect::Uncordon,
                json!({ "metadata": meta(cordoned_by(Value::Null)),
                        "spec": { "unschedulable": null } }),
            ),
            (
                Effect::ForgetCordon,
                json!({ "metadata": meta(cordoned_by(Value::Null)) }),
            ),
            (
                Effect::Label,
                json!({ "metadata": meta(managed(json!(""))) }),
            ),
            (
                Effect::Unlabel,
                json!({ "metadata": meta(managed(Value::Null)) }),
            ),
        ] {
            assert_eq!(built(&effect), Body::Strategic(patch), "{effect:?}");
        }
    }

    #[test]
    fn a_commit_writes_annotations_and_spec_at_once() {
        let write = full();
        let record = serde_json::to_string(&write.record).unwrap();
        let wanted = json!({
            "metadata": {
                "uid": "u1", "resourceVersion": "7",
                "annotations": {
                    "bootc.dev/rollout": record,
                    "bootc.dev/in-reboot-slot": "",
                    "bootc.dev/was-cordoned": "true",
                    "bootc.dev/retry": "2026-01-01T00:00:01Z",
                },
            },
            "spec": {
                "desiredImage": "r.io/os@sha256:1", "desiredImageState": "Booted",
                "approvedBoot": "b1", "pullSecretRef": { "name": "s", "namespace": "ns" },
                "pullSecretHash": "h", "rebootPolicy": "AllowSoftReboot",
            },
        });
        assert_eq!(built(&Effect::Commit(write)), Body::Merge(wanted));
    }

    #[test]
    fn a_commit_removes_what_is_not_there_any_more() {
        let Body::Merge(patch) = built(&Effect::Commit(empty())) else {
            panic!("a commit is a merge patch");
        };
        for gone in [
            "/metadata/annotations/bootc.dev~1in-reboot-slot",
            "/metadata/annotations/bootc.dev~1was-cordoned",
            "/metadata/annotations/bootc.dev~1retry",
            "/spec/desiredImage",
            "/spec/approvedBoot",
            "/spec/pullSecretRef",
            "/spec/pullSecretHash",
        ] {
            assert_eq!(patch.pointer(gone), Some(&Value::Null), "{gone}");
        }
        assert_eq!(patch["spec"]["desiredImageState"], "Staged");
        assert_eq!(patch["spec"]["rebootPolicy"], "RebootOnly");
    }

    #[test]
    fn a_new_bootcnode_belongs_to_its_pool_and_does_not_hold_it_up() {
        let owner = Owner {
            pool: "workers".into(),
            uid: "p1".into(),
        };
        let create = Effect::Create {
            owner,
            write: empty(),
        };
        let Some(Body::Create(object)) = body(&"w1".into(), &create, None) else {
            panic!("a creation needs no version");
        };
        let object = serde_json::to_value(object).unwrap();
        assert_eq!(object["metadata"]["name"], "w1");
        assert_eq!(
            object["metadata"]["ownerReferences"],
            json!([{ "apiVersion": "node.bootc.dev/v1alpha1", "kind": "BootcNodePool",
                "name": "workers", "uid": "p1", "controller": true, "blockOwnerDeletion": false }])
        );
        let annotations = object["metadata"]["annotations"].as_object().unwrap();
        assert_eq!(
            annotations.keys().collect::<Vec<_>>(),
            ["bootc.dev/rollout"]
        );
        assert_eq!(object["spec"].get("desiredImage"), None);
    }

    #[test]
    fn nothing_is_written_to_an_object_that_is_not_there() {
        for effect in [Effect::Uncordon, Effect::Delete, Effect::Commit(empty())] {
            assert_eq!(body(&"w1".into(), &effect, None), None, "{effect:?}");
        }
    }

    #[test]
    fn an_end_names_what_it_ends() {
        assert_eq!(built(&Effect::Delete), Body::Delete(stamp()));
    }

    #[test]
    fn our_finalizer_comes_and_goes_beside_others() {
        let ours = FINALIZER_POOL_CLEANUP.to_owned();
        let other = "other/finalizer".to_owned();
        for (before, set, after) in [
            (vec![], true, vec![&ours]),
            (vec![other.clone()], true, vec![&other, &ours]),
            (vec![ours.clone(), other.clone()], true, vec![&other, &ours]),
            (vec![ours.clone(), other.clone()], false, vec![&other]),
            (vec![ours.clone()], false, vec![]),
        ] {
            let meta = json!({ "uid": "u1", "resourceVersion": "7", "finalizers": after });
            let wanted = Body::Merge(json!({ "metadata": meta }));
            assert_eq!(
                finalizer(&stamp(), &before, set),
                wanted,
                "{before:?} {set}"
            );
        }
    }

    #[test]
    fn every_write_has_its_object() {
        assert_eq!(kind(&Effect::CancelDrain), None);
        assert_eq!(kind(&Effect::StartDrain { attempt: 1 }), None);
        assert_eq!(kind(&Effect::Label), Some(Kind::Node));
        assert_eq!(kind(&Effect::Delete), Some(Kind::BootcNode));
        for effect in [
            Effect::CancelDrain,
            Effect::Label,
            Effect::Delete,
            Effect::Uncordon,
        ] {
            assert_eq!(kind(&effect).is_some(), effect.is_write(), "{effect:?}");
        }
    }
}
