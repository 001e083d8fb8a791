//! Why a node waits: one value, rendered once into the condition Waiting, log fields and metrics.

use std::collections::BTreeSet;

use super::{
    facts::{DEAD_AFTER, Facts, Wanted},
    health::{self, Problem},
    record::{Record, State},
};
use crate::{input::BlockedPod, names::PoolName, time::Seconds};

/// The reason of a node whose drain waits for pods.
pub(crate) const DRAIN: &str = "Drain";
/// Pods named in one message.
const PODS_NAMED: usize = 5;

/// The cause a node waits for, with its evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitingOn {
    /// Other pools claim the node.
    Conflict(BTreeSet<PoolName>),
    /// The pool's target is not known.
    Target,
    /// `maxConcurrentStaging`
    StagingRoom,
    /// A slot.
    Slot,
    /// `rollout.paused`, or no slot is allowed at all.
    Paused,
    /// The node's cordon.
    Cordon,
    /// The pods that a drain waits for.
    Pods(Vec<BlockedPod>),
    /// The pool is halted, so a drained node is not rebooted.
    Halted,
    /// The Node is not Ready.
    NotReady,
    /// `minReadySeconds`
    MinReady(Seconds),
    /// Something is wrong.
    Problem(Problem),
}

/// What the pool knows of it.
#[derive(Clone, Copy, Debug)]
pub struct Outside<'a> {
    /// It is paused, or allows no slot.
    pub paused: bool,
    /// Other pools that claim the node.
    pub rivals: &'a BTreeSet<PoolName>,
    /// The pods that the drain waits for.
    pub pods: &'a [BlockedPod],
}

/// Why the node waits, if it does. The agent's own work (staging, rebooting) is no waiting.
#[expect(clippy::match_same_arms, reason = "in the order of a rollout")]
#[must_use]
pub fn waiting_on(
    record: &Record,
    facts: &Facts<'_>,
    problem: Option<&Problem>,
    outside: Outside<'_>,
) -> Option<WaitingOn> {
    use WaitingOn as W;
    if let Some(problem) = problem {
        return Some(W::Problem(problem.clone()));
    }
    if !outside.rivals.is_empty() {
        return Some(W::Conflict(outside.rivals.clone()));
    }
    match record.state {
        State::Idle | State::Staging if health::wants_room(record, facts) => Some(W::StagingRoom),
        State::Idle if record.image.is_none() && facts.wanted == Wanted::Unknown => Some(W::Target),
        State::Idle | State::Staging | State::Rebooting | State::Leaving => None,
        State::Staged if facts.not_ready() => Some(W::NotReady),
        State::Staged if outside.paused && record.slot.is_none() => Some(W::Paused),
        State::Staged => Some(W::Slot),
        State::Cordoned => Some(W::Cordon),
        State::Draining if facts.halted && outside.pods.is_empty() => Some(W::Halted),
        State::Draining => Some(W::Pods(outside.pods.to_vec())),
        State::Verifying if facts.not_ready() => Some(W::NotReady),
        State::Verifying if facts.settled(record) => None,
        State::Verifying => Some(W::MinReady(facts.limits.min_ready)),
    }
}

impl WaitingOn {
    /// The condition's reason.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Conflict(_) => "NodeConflict",
            Self::Target => "TargetUnknown",
            Self::StagingRoom => "StagingRoom",
            Self::Slot => "RebootSlot",
            Self::Paused => "Paused",
            Self::Cordon => "Cordon",
            Self::Pods(_) => DRAIN,
            Self::Halted => "RolloutHalted",
            Self::NotReady => "NotReady",
            Self::MinReady(_) => "MinReady",
            Self::Problem(problem) => problem.label,
        }
    }

    /// The condition's message.
    #[must_use]
    pub fn message(&self, pool: &PoolName) -> String {
        match self {
            Self::Conflict(rivals) => format!(
                "waiting until only one pool selects this node; also selected by {}",
                list(rivals)
            ),
            Self::Target => format!("waiting until pool {pool} knows the digest of its image"),
            Self::StagingRoom => {
                format!("waiting for room to stage: maxConcurrentStaging of pool {pool} is reached")
            }
            Self::Slot => format!("waiting for a reboot slot of pool {pool}"),
            Self::Paused => format!("staged; pool {pool} is paused and gives out no reboot slot"),
            Self::Cordon => "waiting until the node is cordoned".to_owned(),
            Self::Pods(pods) => pods_message(pods),
            Self::Halted => format!(
                "drained; pool {pool} is halted because nodes in reboot slots are unhealthy"
            ),
            Self::NotReady => format!(
                "waiting for the Node to be Ready (a node that is not Ready for {} seconds gives up a slot that it has not used)",
                DEAD_AFTER.0
            ),
            Self::MinReady(seconds) if seconds.0 > 0 => {
                format!(
                    "waiting for the Node to be Ready for {} seconds in its new boot",
                    seconds.0
                )
            }
            Self::MinReady(_) => "waiting for the Node to be Ready in its new boot".to_owned(),
            Self::Problem(problem) => problem.text.clone(),
        }
    }
}

fn list(pools: &BTreeSet<PoolName>) -> String {
    pools
        .iter()
        .map(PoolName::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

/// What a drain waits for, for people.
pub(crate) fn pods_message(pods: &[BlockedPod]) -> String {
    if pods.is_empty() {
        return "waiting for the drain".to_owned();
    }
    let named = pods.iter().take(PODS_NAMED).map(|pod| match &pod.why {
        Some(why) => format!("{}: {why}", pod.pod),
        None => format!("{} (shutting down)", pod.pod),
    });
    let named = named.collect::<Vec<_>>().join("; ");
    match pods.len().saturating_sub(PODS_NAMED) {
        0 => format!("waiting for pod {named}"),
        more => format!("waiting for pod {named}; and {more} more"),
    }
}
