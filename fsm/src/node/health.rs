//! How a node stands, for its pool: which bucket, what is wrong with it, whether it is a candidate.

use super::{
    facts::{Facts, MAX_TRIES, REBOOT_AFTER, Wanted},
    record::{Record, State},
};
use crate::view::AgentFaultKind;

/// What is wrong with a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// In one word.
    pub label: &'static str,
    /// In a sentence, with what happens next.
    pub text: String,
}

/// The flag Degraded beside the state. `refused` is what the API server says against our last
/// write, if it does.
pub fn problem(record: &Record, facts: &Facts<'_>, refused: Option<&str>) -> Option<Problem> {
    let found = |label, text| Some(Problem { label, text });
    if let Some(fault) = facts.report.and_then(|report| report.degraded.as_ref()) {
        let label = match fault.kind {
            AgentFaultKind::FellBack => "FellBack",
            AgentFaultKind::NotBootc => "NotBootc",
            AgentFaultKind::Error => "Degraded",
        };
        return found(label, fault.message.clone());
    }
    if record.tries >= MAX_TRIES {
        let text = format!(
            "{} approved reboots ended in the old image; not tried again until another image is wanted or bootc.dev/retry asks for it",
            record.tries
        );
        return found("TriesSpent", text);
    }
    if let Some(fault) = record
        .fault
        .as_ref()
        .filter(|fault| !facts.past(fault.until))
    {
        let text = format!(
            "its drain took longer than drainTimeoutSeconds ({} in a row); the node is uncordoned and tried again after a back-off",
            fault.times
        );
        return found("DrainTimedOut", text);
    }
    if let Some(limit) = facts.limits.reboot.filter(|_| is_down(record))
        && facts.reboot_late(record, limit)
    {
        let text = format!("not back {} seconds after its reboot was approved", limit.0);
        return found("RebootTimedOut", text);
    }
    if record.state != State::Rebooting && facts.silent(record) {
        let text = "the agent has not reported on the last change for 10 minutes: is its pod running on the node?";
        return found("AgentSilent", text.to_owned());
    }
    refused.map(Problem::refused)
}

impl Problem {
    /// What the API server says against our last write.
    #[must_use]
    pub fn refused(text: &str) -> Self {
        Self {
            label: "WriteRefused",
            text: text.to_owned(),
        }
    }
}

/// Why a slot holder counts against its pool, if it does.
pub fn unhealthy(
    record: &Record,
    facts: &Facts<'_>,
    problem: Option<&Problem>,
) -> Option<&'static str> {
    if let Some(problem) = problem {
        return Some(problem.label);
    }
    if record.state == State::Verifying && facts.not_ready() {
        return Some("NotReady");
    }
    let late =
        facts.limits.reboot.is_none() && is_down(record) && facts.reboot_late(record, REBOOT_AFTER);
    late.then_some("RebootTimedOut")
}

/// May it take a slot, as far as the node itself is concerned?
#[must_use]
pub fn is_candidate(record: &Record, facts: &Facts<'_>, problem: Option<&Problem>) -> bool {
    record.state == State::Staged
        && record.slot.is_none()
        && problem.is_none()
        && !facts.contested
        && !facts.not_ready()
        && facts.heard()
        && matches!(&facts.wanted, Wanted::Wants(image)
            if record.image.as_ref() == Some(image) && facts.staged_is(image))
}

/// Would it stage the wanted image if there were room?
#[must_use]
pub fn wants_room(record: &Record, facts: &Facts<'_>) -> bool {
    matches!(&facts.wanted, Wanted::Wants(image)
        if record.image.as_ref() != Some(image) && !facts.booted_is(image))
        && !facts.contested
        && record.slot.is_none()
        && record.state != State::Leaving
}

/// Does it hold no slot and run what is wanted (or, where that is not known, what it was told)?
#[must_use]
pub fn is_updated(record: &Record, facts: &Facts<'_>) -> bool {
    let wanted = match &facts.wanted {
        Wanted::Wants(image) => Some(image),
        _ => record.image.as_ref(),
    };
    record.state == State::Idle
        && record.slot.is_none()
        && wanted.is_some_and(|image| facts.booted_is(image))
}

fn is_down(record: &Record) -> bool {
    matches!(record.state, State::Rebooting | State::Verifying)
}
