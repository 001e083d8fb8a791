//! Facts of a pool, its selector apart (that is [`Claim`]).

use std::{collections::BTreeSet, str::FromStr as _};

use crd::{
    RebootPolicy,
    names::{ANNOTATION_RETRY, FINALIZER_POOL_CLEANUP, condition},
};
use fsm::{
    Image, NodeName,
    time::Seconds,
    view::{Amount, Condition, ImageRef, PoolSpec, PoolStatus, PoolView, Retry},
};
use k8s_openapi::apimachinery::pkg::{apis::meta::v1, util::intstr::IntOrString};

use super::{
    bootcnode::secret,
    claims::Claim,
    time::{parse, timestamp},
    wire::{self, Part, condition_of},
};

/// What is kept of a pool.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Facts {
    /// What the decisions look at.
    pub(super) view: PoolView,
    /// Which nodes it claims.
    pub(super) claim: Claim,
    /// All its finalizers: a patch replaces the list.
    pub(super) finalizers: Vec<String>,
    /// What cannot be read and has no place in the status.
    pub(super) complaint: Option<String>,
}

impl From<wire::Pool> for Facts {
    fn from(pool: wire::Pool) -> Self {
        let meta = pool.metadata;
        let (claim, spec) = match &pool.spec {
            Part::Is(spec) => read(spec),
            Part::Missing => (Claim::Owned, unreadable("there is no spec")),
            Part::Odd(why) => (Claim::Owned, unreadable(why)),
        };
        let retry = meta
            .annotations
            .as_ref()
            .and_then(|all| all.get(ANNOTATION_RETRY));
        let (retry, complaint) = match retry.map(|text| parse_retry(text).ok_or(text)) {
            None => (None, None),
            Some(Ok(retry)) => (Some(retry), None),
            Some(Err(text)) => (
                None,
                Some(format!(
                    "the annotation {ANNOTATION_RETRY} cannot be read: {text:?}; \
                 write NODE[,NODE]@TIME with an RFC 3339 time"
                )),
            ),
        };
        let finalizers = meta.finalizers.unwrap_or_default();
        let view = PoolView {
            uid: meta.uid.unwrap_or_default(),
            generation: meta.generation.unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            finalizer: finalizers.iter().any(|name| name == FINALIZER_POOL_CLEANUP),
            spec,
            retry,
            status: pool.status.get().map(status),
        };
        Self {
            view,
            claim,
            finalizers,
            complaint,
        }
    }
}

/// The facts of a spec that has another shape than it should.
fn unreadable(why: &str) -> PoolSpec {
    let message = format!("the spec cannot be read: {why}");
    PoolSpec {
        invalid: Some(message.clone()),
        ..PoolSpec::of(ImageRef::Invalid(message))
    }
}

fn read(spec: &crd::BootcNodePoolSpec) -> (Claim, PoolSpec) {
    let mut faults = Faults::default();
    let claim = faults.take(
        "nodeSelector",
        Claim::new(&spec.node_selector),
        Claim::Owned,
    );
    let rollout = &spec.rollout;
    let facts = PoolSpec {
        image: image(&spec.image.reference),
        max_unavailable: faults.amount("maxUnavailable", &rollout.max_unavailable),
        paused: rollout.paused,
        drain_timeout: faults.seconds("drainTimeoutSeconds", rollout.drain_timeout_seconds),
        reboot_timeout: faults.seconds("rebootTimeoutSeconds", rollout.reboot_timeout_seconds),
        max_concurrent_staging: rollout
            .max_concurrent_staging
            .as_ref()
            .map(|amount| faults.amount("maxConcurrentStaging", amount)),
        min_ready: faults
            .seconds("minReadySeconds", Some(rollout.min_ready_seconds))
            .unwrap_or_default(),
        soft_reboot: spec.disruption.reboot_policy == RebootPolicy::AllowSoftReboot,
        secret: spec.pull_secret_ref.as_ref().map(secret),
        invalid: None,
    };
    (
        claim,
        PoolSpec {
            invalid: faults.all(),
            ..facts
        },
    )
}

/// What is wrong with a spec, field by field. The schema refuses all of it; objects that were
/// stored before the schema may still hold it.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn take<T, E: std::fmt::Display>(&mut self, field: &str, got: Result<T, E>, instead: T) -> T {
        got.unwrap_or_else(|error| {
            self.0.push(format!("{field}: {error}"));
            instead
        })
    }

    fn amount(&mut self, field: &str, amount: &IntOrString) -> Amount {
        let amount = crd::Amount::try_from(amount).map(|amount| match amount {
            crd::Amount::Count(count) => Amount::Count(count),
            crd::Amount::Percent(percent) => Amount::Percent(percent.into()),
        });
        self.take(field, amount, Amount::Count(1))
    }

    fn seconds(&mut self, field: &str, seconds: Option<i64>) -> Option<Seconds> {
        let seconds = u32::try_from(seconds?).map(|seconds| Some(Seconds(seconds)));
        self.take(
            field,
            seconds.map_err(|_| "it must be a number of seconds, 0 or more"),
            None,
        )
    }

    fn all(self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.join("; "))
    }
}

fn image(text: &str) -> ImageRef {
    let reference = match crd::ImageRef::from_str(text) {
        Ok(reference) => reference,
        Err(error) => return ImageRef::Invalid(error.to_string()),
    };
    if let Some(pinned) = reference.pinned().as_deref().and_then(Image::new) {
        return ImageRef::Pinned(pinned);
    }
    let repository = format!("{}/{}", reference.host(), reference.repository());
    ImageRef::Tag {
        reference: reference.to_string(),
        repository,
    }
}

/// `NODE[,NODE]@TIME`
fn parse_retry(text: &str) -> Option<Retry> {
    let (nodes, at) = text.rsplit_once('@')?;
    let names = nodes
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let nodes: BTreeSet<NodeName> = names.map(NodeName::from).collect();
    let at = parse(at)?;
    (!nodes.is_empty()).then_some(Retry { nodes, at })
}

fn status(status: &crd::BootcNodePoolStatus) -> PoolStatus {
    let count = |count: i64| usize::try_from(count).unwrap_or_default();
    PoolStatus {
        observed_generation: status.observed_generation,
        target_digest: status.target_digest.clone(),
        deployed_digest: status.deployed_digest.clone(),
        update_available: status.update_available,
        next_tag_resolution: status.next_tag_resolution_time.as_ref().map(timestamp),
        nodes: count(status.node_count),
        updated: count(status.updated_count),
        updating: count(status.updating_count),
        degraded: count(status.degraded_count),
        up_to_date: find(&status.conditions, condition::UP_TO_DATE),
        is_degraded: find(&status.conditions, condition::DEGRADED),
    }
}

fn find(conditions: &[v1::Condition], name: &str) -> Option<Condition> {
    let condition = condition_of(conditions, name)?;
    Some(Condition {
        status: match condition.status.as_str() {
            "True" => Some(true),
            "False" => Some(false),
            _ => None,
        },
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        since: timestamp(&condition.last_transition_time),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fsm::Timestamp;
    use serde_json::{Value, json};

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn facts(object: Value) -> Facts {
        serde_json::from_value::<wire::Pool>(object).unwrap().into()
    }

    fn of_spec(spec: &Value) -> PoolSpec {
        facts(json!({ "metadata": { "name": "p" }, "spec": spec }))
            .view
            .spec
    }

    #[test]
    fn every_used_field_becomes_a_fact() {
        let view = facts(json!({
            "metadata": {
                "name": "workers", "uid": "u1", "generation": 2,
                "finalizers": ["other", "bootc.dev/pool-cleanup"],
                "annotations": { "bootc.dev/retry": "w1, w2@2026-01-01T00:00:01Z" },
            },
            "spec": {
                "nodeSelector": { "matchLabels": { "role": "worker" } },
                "image": { "ref": format!("r.io/os:1@{DIGEST}") },
                "rollout": { "maxUnavailable": "25%", "paused": true, "drainTimeoutSeconds": 60,
                    "rebootTimeoutSeconds": 600, "maxConcurrentStaging": 2, "minReadySeconds": 5 },
                "disruption": { "rebootPolicy": "AllowSoftReboot" },
                "pullSecretRef": { "name": "s", "namespace": "ns" },
            },
            "status": { "nodeCount": 3, "updatedCount": 2, "targetDigest": DIGEST,
                "nextTagResolutionTime": "2026-01-01T00:00:01Z",
                "conditions": [{ "type": "UpToDate", "status": "Unknown", "reason": "TargetUnknown",
                    "message": "m", "lastTransitionTime": "2026-01-01T00:00:01Z" }] },
        }))
        .view;
        let at = Timestamp(1_767_225_601_000);
        let spec = PoolSpec {
            image: ImageRef::Pinned(Image::of("r.io/os", DIGEST).unwrap()),
            invalid: None,
            max_unavailable: Amount::Percent(25),
            paused: true,
            drain_timeout: Some(Seconds(60)),
            reboot_timeout: Some(Seconds(600)),
            max_concurrent_staging: Some(Amount::Count(2)),
            min_ready: Seconds(5),
            soft_reboot: true,
            secret: Some(fsm::view::SecretRef {
                name: "s".into(),
                namespace: "ns".into(),
            }),
        };
        let unknown = Condition {
            status: None,
            reason: "TargetUnknown".into(),
            message: "m".into(),
            since: at,
        };
        let status = PoolStatus {
            nodes: 3,
            updated: 2,
            target_digest: Some(DIGEST.into()),
            next_tag_resolution: Some(at),
            up_to_date: Some(unknown),
            ..PoolStatus::default()
        };
        let retry = Retry {
            nodes: ["w1".into(), "w2".into()].into(),
            at,
        };
        assert_eq!(view.spec, spec);
        assert_eq!(view.status, Some(status));
        assert_eq!(view.retry, Some(retry));
        assert_eq!((view.uid.as_str(), view.generation), ("u1", 2));
        assert_eq!((view.finalizer, view.deleting), (true, false));
    }

    #[test]
    fn a_tag_keeps_its_repository() {
        let tag = ImageRef::Tag {
            reference: "r.io/os:1".into(),
            repository: "r.io/os".into(),
        };
        assert_eq!(image("r.io/os:1"), tag);
        assert!(matches!(image("os"), ImageRef::Invalid(_)));
    }

    #[test]
    fn every_fault_of_a_spec_is_named_and_the_field_holds_its_default() {
        let spec = of_spec(&json!({
            "nodeSelector": {},
            "image": { "ref": "r.io/os:1" },
            "rollout": { "maxUnavailable": "150%", "minReadySeconds": -1 },
        }));
        let message = spec.invalid.unwrap();
        for field in ["nodeSelector", "maxUnavailable", "minReadySeconds"] {
            assert!(message.contains(field), "{field} in {message}");
        }
        assert_eq!(spec.max_unavailable, Amount::Count(1));
        assert_eq!(spec.min_ready, Seconds(0));
    }

    #[test]
    fn a_spec_of_another_shape_is_invalid_and_claims_what_it_owns() {
        let facts = facts(json!({ "metadata": { "name": "p" }, "spec": { "image": 5 } }));
        assert!(facts.view.spec.invalid.unwrap().contains("cannot be read"));
        assert_eq!(facts.claim, Claim::Owned);
    }

    #[test]
    fn a_retry_needs_nodes_and_a_time() {
        for text in ["w1", "@2026-01-01T00:00:00Z", "w1@soon", ""] {
            assert_eq!(parse_retry(text), None, "{text:?}");
        }
    }
}
