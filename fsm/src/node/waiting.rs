//! Why a node does not go on: one value, rendered once into the condition Waiting, Events, log
//! fields, metrics, spans and `kubectl bootc why`. [`WaitingOn::label`] is its name for programs,
//! its `Display` the sentence for people.

use std::{collections::BTreeSet, fmt};

use super::{
    facts::{DEAD_AFTER, DrainStage, Facts, Wanted},
    health::{self, Problem},
    record::{Record, State},
};
use crate::{
    image::Image,
    input::BlockedPod,
    names::PoolName,
    time::{Seconds, Timestamp},
};

/// Pods named in one message.
const PODS_NAMED: usize = 5;

/// What a node waits for, with its evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitingOn {
    /// Something is wrong.
    Problem(Problem),
    /// Other pools claim the node.
    Conflict(BTreeSet<PoolName>),
    /// The operator has not put its finalizer on the pool yet, or not seen its pull secret.
    Pool(PoolName),
    /// The pool's target is not known.
    Target(PoolName),
    /// `maxConcurrentStaging`
    StagingRoom(PoolName),
    /// The host pulls and deploys the image (`None`: the agent was not told which).
    Stage(Option<Image>),
    /// The agent's word on the last change.
    Report,
    /// A slot.
    Slot(PoolName),
    /// Another node of the control plane is in a slot or not Ready.
    ControlPlane,
    /// `rollout.paused`, or no slot is allowed at all.
    Paused(PoolName),
    /// The pool is halted: its unhealthy slot holders come first.
    Halted {
        /// It.
        pool: PoolName,
        /// The node has its slot and is drained already.
        drained: bool,
    },
    /// The node's cordon.
    Cordon,
    /// The pods that a drain waits for.
    Pods(Vec<BlockedPod>),
    /// The host reboots into the image.
    Reboot(Option<Image>),
    /// The Node is not Ready.
    NotReady,
    /// The Node's kubelet has not reported from the new boot yet.
    Kubelet,
    /// `minReadySeconds`
    MinReady(Seconds),
    /// The end of what binds the node to a pool that lets it go.
    Release,
}

/// What the pool knows of it.
#[derive(Clone, Copy, Debug)]
pub struct Outside<'a> {
    /// The node's pool.
    pub pool: &'a PoolName,
    /// The pool's nodes may be decided on.
    pub ready: bool,
    /// It is paused, or allows no slot.
    pub paused: bool,
    /// The node is of the control plane, and another one of that is down or in a slot.
    pub control_plane_busy: bool,
    /// Other pools that claim the node.
    pub rivals: &'a BTreeSet<PoolName>,
    /// The pods that the drain waits for.
    pub pods: &'a [BlockedPod],
}

/// Why the node waits. Only a node that runs what it shall waits for nothing.
#[must_use]
pub fn waiting_on(
    record: &Record,
    facts: &Facts<'_>,
    problem: Option<&Problem>,
    outside: Outside<'_>,
) -> Option<WaitingOn> {
    use WaitingOn as W;
    let pool = || outside.pool.clone();
    if let Some(problem) = problem {
        return Some(W::Problem(problem.clone()));
    }
    if record.state == State::Leaving {
        return Some(W::Release);
    }
    if !outside.rivals.is_empty() {
        return Some(W::Conflict(outside.rivals.clone()));
    }
    if facts.wanted == Wanted::Left {
        return Some(W::Release);
    }
    if record.image.is_none() && facts.wanted == Wanted::Unknown {
        return Some(W::Target(pool()));
    }
    if !outside.ready {
        return Some(W::Pool(pool()));
    }
    if health::wants_room(record, facts) && !facts.room {
        return Some(W::StagingRoom(pool()));
    }
    match record.state {
        State::Idle if health::is_updated(record, facts) => None,
        State::Idle => Some(W::Report),
        State::Staging if !facts.heard() => Some(W::Report),
        State::Staging => Some(W::Stage(record.image.clone())),
        State::Staged => Some(staged(facts, outside)),
        State::Cordoned => Some(W::Cordon),
        State::Draining => Some(draining(record, facts, outside)),
        State::Rebooting if facts.back(record) => Some(W::Report),
        State::Rebooting => Some(W::Reboot(record.image.clone())),
        State::Verifying => Some(verifying(record, facts)),
        State::Leaving => Some(W::Release),
    }
}

/// What keeps a staged node from its slot, what only a person can end first.
fn staged(facts: &Facts<'_>, outside: Outside<'_>) -> WaitingOn {
    let pool = outside.pool.clone();
    if facts.not_ready() {
        WaitingOn::NotReady
    } else if facts.wanted == Wanted::Unknown {
        WaitingOn::Target(pool)
    } else if outside.paused {
        WaitingOn::Paused(pool)
    } else if facts.halted {
        WaitingOn::Halted {
            pool,
            drained: false,
        }
    } else if !facts.heard() {
        WaitingOn::Report
    } else if outside.control_plane_busy {
        WaitingOn::ControlPlane
    } else {
        WaitingOn::Slot(pool)
    }
}

fn draining(record: &Record, facts: &Facts<'_>, outside: Outside<'_>) -> WaitingOn {
    let stage = facts
        .drain
        .filter(|drain| drain.attempt == record.attempt)
        .map(|drain| drain.stage);
    let staged = record
        .image
        .as_ref()
        .is_some_and(|image| facts.staged_is(image));
    match stage {
        Some(DrainStage::Done) if !staged => WaitingOn::Stage(record.image.clone()),
        Some(DrainStage::Done) if facts.halted => WaitingOn::Halted {
            pool: outside.pool.clone(),
            drained: true,
        },
        _ => WaitingOn::Pods(outside.pods.to_vec()),
    }
}

fn verifying(record: &Record, facts: &Facts<'_>) -> WaitingOn {
    if facts.not_ready() {
        WaitingOn::NotReady
    } else if facts.settled(record) {
        WaitingOn::Report
    } else if facts.limits.min_ready > Seconds(0) {
        WaitingOn::MinReady(facts.limits.min_ready)
    } else {
        WaitingOn::Kubelet
    }
}

impl WaitingOn {
    /// Its name for programs, in `CamelCase`: the condition's reason, the Event's, a metric's
    /// label, a span's and a log line's value.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Problem(problem) => problem.label,
            Self::Conflict(_) => "NodeConflict",
            Self::Pool(_) => "PoolNotReady",
            Self::Target(_) => "TargetUnknown",
            Self::StagingRoom(_) => "StagingRoom",
            Self::Stage(_) => "Staging",
            Self::Report => "AgentReport",
            Self::Slot(_) => "RebootSlot",
            Self::ControlPlane => "ControlPlane",
            Self::Paused(_) => "Paused",
            Self::Halted { .. } => "RolloutHalted",
            Self::Cordon => "Cordon",
            Self::Pods(_) => "Drain",
            Self::Reboot(_) => "Rebooting",
            Self::NotReady => "NotReady",
            Self::Kubelet => "Kubelet",
            Self::MinReady(_) => "MinReady",
            Self::Release => "Leaving",
        }
    }

    /// Is it the host's own work? That is shown as a wait only when it takes its time.
    #[must_use]
    pub fn is_work(&self) -> bool {
        matches!(self, Self::Stage(_) | Self::Reboot(_))
    }

    /// Is something in the way of this very node, so that an Event tells of it? (What all nodes of
    /// a pool wait for in turn, or by a person's will, is told of the pool.)
    #[must_use]
    pub fn is_obstacle(&self) -> bool {
        match self {
            Self::Problem(_)
            | Self::Conflict(_)
            | Self::NotReady
            | Self::Kubelet
            | Self::Report => true,
            Self::Pods(pods) => !pods.is_empty(),
            _ => false,
        }
    }

    /// Will it not pass by itself, as far as one can see?
    #[must_use]
    pub fn is_warning(&self) -> bool {
        matches!(self, Self::Problem(_) | Self::Conflict(_))
    }
}

impl fmt::Display for WaitingOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Problem(problem) => f.write_str(&problem.text),
            Self::Conflict(rivals) => write!(
                f,
                "waiting until only one pool selects this node; also selected by {}",
                list(rivals)
            ),
            Self::Pool(pool) => write!(
                f,
                "waiting until the operator has prepared pool {pool}: its finalizer, its pull secret"
            ),
            Self::Target(pool) => {
                write!(f, "waiting until pool {pool} knows the digest of its image")
            }
            Self::StagingRoom(pool) => write!(
                f,
                "waiting for room to stage: maxConcurrentStaging of pool {pool} is reached"
            ),
            Self::Stage(image) => write!(
                f,
                "waiting for the host to pull and deploy {}",
                named(image.as_ref())
            ),
            Self::Report => f.write_str("waiting for the agent to report on the last change"),
            Self::Slot(pool) => write!(f, "waiting for a reboot slot of pool {pool}"),
            Self::ControlPlane => f.write_str(
                "waiting for the rest of the control plane: only one of its nodes goes down at a time, and none while another one is not Ready",
            ),
            Self::Paused(pool) => write!(
                f,
                "staged; pool {pool} is paused and gives out no reboot slot"
            ),
            Self::Halted { pool, drained } => write!(
                f,
                "{}; pool {pool} is halted because nodes in reboot slots are unhealthy",
                if *drained { "drained" } else { "staged" }
            ),
            Self::Cordon => f.write_str("waiting until the node is cordoned"),
            Self::Pods(pods) => f.write_str(&pods_message(pods)),
            Self::Reboot(image) => write!(
                f,
                "waiting for the host to reboot into {}",
                named(image.as_ref())
            ),
            Self::NotReady => write!(
                f,
                "waiting for the Node to be Ready (a node that is not Ready for {} seconds gives up a slot that it has not used)",
                DEAD_AFTER.0
            ),
            Self::Kubelet => {
                f.write_str("waiting for the Node's kubelet to report from the new boot")
            }
            Self::MinReady(seconds) => write!(
                f,
                "waiting for the Node to be Ready for {} seconds in its new boot",
                seconds.0
            ),
            Self::Release => {
                f.write_str("waiting until the cordon, label and BootcNode of its pool are gone")
            }
        }
    }
}

/// A wait as it was last seen, and since when for this cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The cause.
    pub on: WaitingOn,
    /// Since when.
    pub since: Timestamp,
}

fn named(image: Option<&Image>) -> &str {
    image.map_or("its image", Image::as_str)
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
