//! The `BootcNode` on its way in and out: spec to wish, report to status, status back to memory.

use crd::{
    BootcNode, BootcNodeStatus, DeploymentId, DesiredImageState, LastAttempt, RebootPolicy, Step,
    names::{ANNOTATION_RETRY, condition, node_reason},
};
use fsm::{
    Timestamp,
    host::{
        Attempt, Degraded, DegradedReason, Deployment, Report, Reported, Secret, Spec, State,
        StepName, StepTime, Wanted,
    },
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time},
    jiff,
};

use crate::{bootc::Images, text};

/// The longest message of a condition, in bytes; the schema admits more, people do not.
const LONGEST_MESSAGE: usize = 4000;

/// What the object asks for. One that is being deleted asks for nothing any more, however long somebody's
/// finalizer keeps it: with it the operator has let the node go, cordon and all.
#[must_use]
pub fn wanted(node: &BootcNode) -> Wanted {
    let spec = &node.spec;
    let deleted = node.metadata.deletion_timestamp.is_some();
    let Some(image) = spec.desired_image.as_ref().filter(|_| !deleted) else {
        return Wanted::Nothing;
    };
    let secret = spec.pull_secret_ref.as_ref().map(|it| Secret {
        namespace: it.namespace.clone(),
        name: it.name.clone(),
        hash: spec.pull_secret_hash.clone().unwrap_or_default(),
    });
    let annotations = node.metadata.annotations.as_ref();
    let retry = annotations
        .and_then(|all| all.get(ANNOTATION_RETRY))
        .and_then(|time| time.parse::<jiff::Timestamp>().ok());
    Wanted::Image(Spec {
        image: image.clone(),
        boot_it: spec.desired_image_state == DesiredImageState::Booted,
        approved_boot: spec.approved_boot.clone(),
        soft_reboot: spec.reboot_policy == RebootPolicy::AllowSoftReboot,
        secret,
        retry: retry.map(|it| Timestamp(it.as_millisecond())),
    })
}

/// The status that says this report.
///
/// `before` is the status that stands: a condition's time moves only when its status does, and its
/// images stay where the report says so.
#[must_use]
pub fn status(
    report: &Report,
    images: &Images,
    boot: &str,
    generation: Option<i64>,
    now: Timestamp,
    before: &BootcNodeStatus,
) -> BootcNodeStatus {
    let images = if report.keep_images {
        Images {
            booted: before.booted.clone(),
            staged: before.staged.clone(),
            rollback: before.rollback.clone(),
        }
    } else {
        images.clone()
    };
    let stamp = Stamp {
        generation,
        now: time(now),
        before,
    };
    BootcNodeStatus {
        observed_generation: generation,
        booted: images.booted,
        staged: images.staged,
        rollback: images.rollback,
        conditions: vec![idle(report, &stamp), degraded(report, &stamp)],
        boot: Some(boot.to_owned()),
        last_attempt: report.attempt.as_ref().map(last_attempt),
        steps: report.steps.iter().map(step).collect(),
    }
}

/// The part of a status that is ours; the operator's Waiting condition is not.
#[must_use]
pub fn ours(status: &BootcNodeStatus) -> BootcNodeStatus {
    let mut ours = status.clone();
    let mine = |it: &Condition| [condition::IDLE, condition::DEGRADED].contains(&it.type_.as_str());
    ours.conditions.retain(mine);
    ours
}

/// What our own status said, read back after a restart.
#[must_use]
pub fn reported(status: Option<&BootcNodeStatus>) -> Reported {
    let Some(status) = status else {
        return Reported::default();
    };
    let of = |kind: &str| status.conditions.iter().find(|it| it.type_ == kind);
    let report = of(condition::IDLE).map(|idle| Report {
        state: state_of(&idle.reason),
        message: idle.message.clone(),
        degraded: of(condition::DEGRADED).and_then(degraded_of),
        attempt: status.last_attempt.as_ref().map(attempt_of),
        steps: status.steps.iter().filter_map(step_of).collect(),
        keep_images: false,
    });
    let staged = status
        .staged
        .as_ref()
        .map(|it| match crd::image::digest_of(&it.image) {
            Some(_) => it.image.clone(),
            None => format!("{}@{}", it.image, it.image_digest),
        });
    Reported {
        report,
        boot: status.boot.clone(),
        booted: status.booted.as_ref().map(|it| it.image_digest.clone()),
        staged,
    }
}

struct Stamp<'a> {
    generation: Option<i64>,
    now: Time,
    before: &'a BootcNodeStatus,
}

impl Stamp<'_> {
    fn condition(&self, kind: &str, holds: bool, reason: &str, message: &str) -> Condition {
        let status = if holds { "True" } else { "False" };
        let before = self.before.conditions.iter().find(|it| it.type_ == kind);
        let since = before
            .filter(|it| it.status == status)
            .map_or_else(|| self.now.clone(), |it| it.last_transition_time.clone());
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: text::head(message, LONGEST_MESSAGE).to_owned(),
            observed_generation: self.generation,
            last_transition_time: since,
        }
    }
}

fn idle(report: &Report, stamp: &Stamp<'_>) -> Condition {
    let reason = match report.state {
        State::Idle => node_reason::IDLE,
        State::Staging => node_reason::STAGING,
        State::Staged => node_reason::STAGED,
        State::Rebooting => node_reason::REBOOTING,
    };
    let is_idle = report.state == State::Idle;
    stamp.condition(condition::IDLE, is_idle, reason, &report.message)
}

fn degraded(report: &Report, stamp: &Stamp<'_>) -> Condition {
    match &report.degraded {
        None => stamp.condition(condition::DEGRADED, false, node_reason::HEALTHY, ""),
        Some(Degraded { reason, message }) => {
            let reason = match reason {
                DegradedReason::Error => node_reason::ERROR,
                DegradedReason::FellBack => node_reason::FELL_BACK,
                DegradedReason::NotBootc => node_reason::NOT_BOOTC,
            };
            stamp.condition(condition::DEGRADED, true, reason, message)
        }
    }
}

fn state_of(reason: &str) -> State {
    match reason {
        node_reason::STAGING => State::Staging,
        node_reason::STAGED => State::Staged,
        node_reason::REBOOTING => State::Rebooting,
        _ => State::Idle,
    }
}

fn degraded_of(condition: &Condition) -> Option<Degraded> {
    let reason = match condition.reason.as_str() {
        node_reason::FELL_BACK => DegradedReason::FellBack,
        node_reason::NOT_BOOTC => DegradedReason::NotBootc,
        _ => DegradedReason::Error,
    };
    (condition.status == "True").then(|| Degraded {
        reason,
        message: condition.message.clone(),
    })
}

fn last_attempt(attempt: &Attempt) -> LastAttempt {
    LastAttempt {
        image_digest: attempt.digest.clone(),
        boot: attempt.boot.clone(),
        time: Some(time(attempt.at)),
        retry: attempt.retry.map(micro_time),
        rollback: attempt.rollback.as_ref().map(|it| DeploymentId {
            checksum: it.checksum.clone(),
            serial: it.serial.into(),
        }),
    }
}

fn attempt_of(attempt: &LastAttempt) -> Attempt {
    Attempt {
        digest: attempt.image_digest.clone(),
        boot: attempt.boot.clone(),
        at: attempt.time.as_ref().map_or(Timestamp(0), timestamp),
        retry: attempt.retry.as_ref().map(from_micro_time),
        rollback: attempt.rollback.as_ref().map(|it| Deployment {
            checksum: it.checksum.clone(),
            serial: it.serial.try_into().unwrap_or_default(),
        }),
    }
}

const STEP_NAMES: [(StepName, &str); 5] = [
    (StepName::Staging, node_reason::STAGING),
    (StepName::Unlocking, "Unlocking"),
    (StepName::Stopping, "Stopping"),
    (StepName::Booting, "Booting"),
    (StepName::Returning, "Returning"),
];

fn step(step: &StepTime) -> Step {
    let name = STEP_NAMES.iter().find(|(name, _)| *name == step.name);
    Step {
        name: name.map_or("", |(_, text)| text).to_owned(),
        start: Some(micro_time(step.start)),
        end: step.end.map(micro_time),
    }
}

fn step_of(step: &Step) -> Option<StepTime> {
    let (name, _) = STEP_NAMES.iter().find(|(_, text)| *text == step.name)?;
    Some(StepTime {
        name: *name,
        start: step.start.as_ref().map(from_micro_time)?,
        end: step.end.as_ref().map(from_micro_time),
    })
}

/// These times are whole seconds in the API: cut here, so that what is read back is what was written.
fn time(at: Timestamp) -> Time {
    let at = jiff::Timestamp::from_millisecond(at.whole_seconds().0);
    Time(at.unwrap_or_default())
}

fn timestamp(time: &Time) -> Timestamp {
    Timestamp(time.0.as_millisecond())
}

fn micro_time(at: Timestamp) -> MicroTime {
    MicroTime(jiff::Timestamp::from_millisecond(at.0).unwrap_or_default())
}

fn from_micro_time(time: &MicroTime) -> Timestamp {
    Timestamp(time.0.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_is_being_deleted_approves_nothing() {
        let spec = crd::BootcNodeSpec {
            desired_image: Some("r/os@sha256:1".into()),
            desired_image_state: DesiredImageState::Booted,
            ..crd::BootcNodeSpec::default()
        };
        let mut node = BootcNode::new("n", spec);
        assert!(wanted(&node).spec().is_some_and(|it| it.approves("b")));
        node.metadata.deletion_timestamp = Some(time(Timestamp(0)));
        assert_eq!(wanted(&node), Wanted::Nothing);
    }
}
