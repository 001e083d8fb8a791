//! What is kept of a node's rollout: the annotation `bootc.dev/rollout`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{image::Image, time::Timestamp};

/// Where a node is in its rollout.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum State {
    /// Runs its image, or is not told of one yet.
    #[default]
    Idle,
    /// The agent pulls and deploys the image.
    Staging,
    /// The image is staged, locked; the node waits for a slot.
    Staged,
    /// It has a slot and is being cordoned.
    Cordoned,
    /// Its pods are being evicted.
    Draining,
    /// The reboot is approved.
    Rebooting,
    /// It runs the image and must show that it is well.
    Verifying,
    /// It is let go by its pool.
    Leaving,
}

impl State {
    /// All, in the order of a rollout.
    pub const ALL: [Self; 8] = [
        Self::Idle,
        Self::Staging,
        Self::Staged,
        Self::Cordoned,
        Self::Draining,
        Self::Rebooting,
        Self::Verifying,
        Self::Leaving,
    ];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What cannot be recomputed after a restart, stored in the same write as the effect that needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// Where the node is.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// Timeouts count from here: the last hop that needed a write. (A hop that needs none is done
    /// again after a restart and must not start them anew.)
    pub clock: Timestamp,
    /// When this was last written.
    pub written: Timestamp,
    /// The image that this update is for; what the agent is told to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// The reboot slot that the node holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,
    /// `desiredImageState: Booted`, and what that is for. Stays after the update, when the boot
    /// that it names is over and it is void.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// Number of the newest drain.
    pub attempt: u32,
    /// Reboots towards `image` that ended where they began.
    pub tries: u32,
    /// UID of the Node that this is about.
    pub node_uid: String,
    /// A drain that took too long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<DrainFault>,
    /// Hops since the write before this one, which needed none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hops: Vec<Hop>,
    /// The states of this update, or of the last one, as they were reached: for those who look back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<Mark>,
    /// W3C trace context of this update: one trace per node and image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// When the image of this update was wanted: the start of its trace.
    #[serde(skip_serializing_if = "Timestamp::is_zero")]
    pub began: Timestamp,
}

/// The trace of one update of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// W3C trace context: its trace, and the span that stands for the whole update.
    pub parent: String,
    /// When the image was wanted.
    pub began: Timestamp,
    /// The image.
    pub image: Option<Image>,
}

/// States that are told apart by facts alone. What is kept of a state is its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Nothing is approved, no slot is used.
    Apart,
    /// On the way down.
    GoingDown,
    /// On the way up.
    ComingUp,
    /// Let go.
    Leaving,
}

impl Record {
    /// What is kept of the state. A node without a slot has nothing to prove, so that it runs its
    /// image follows from what the agent says.
    #[must_use]
    pub fn group(&self) -> Group {
        match self.state {
            State::Verifying if self.slot.is_none() => Group::Apart,
            State::Idle | State::Staging | State::Staged => Group::Apart,
            State::Cordoned | State::Draining => Group::GoingDown,
            State::Rebooting | State::Verifying => Group::ComingUp,
            State::Leaving => Group::Leaving,
        }
    }

    /// Begins the trace of an update to `image`, wanted since `wanted`.
    pub(super) fn begin(&mut self, image: &Image, now: Timestamp, wanted: Timestamp) {
        self.traceparent = Some(super::trace::parent(&self.node_uid, image, now));
        self.began = wanted.min(now);
    }

    /// The trace of this update.
    #[must_use]
    pub fn trace(&self) -> Option<Trace> {
        let parent = self.traceparent.clone()?;
        let (began, image) = (self.began, self.image.clone());
        (!began.is_zero()).then_some(Trace {
            parent,
            began,
            image,
        })
    }

    /// Is `other` the same in all that has to be written down? Hops within a group of states
    /// follow again from what the agent and the Node say, so they need no write.
    #[must_use]
    pub fn is_kept_by(&self, other: &Self) -> bool {
        self.group() == other.group()
            && self.image == other.image
            && self.slot == other.slot
            && self.approval == other.approval
            && self.tries == other.tries
            && self.fault == other.fault
            && self.node_uid == other.node_uid
    }
}

/// A reboot slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Slot {
    /// The node was cordoned by somebody else when it took the slot.
    pub was_cordoned: bool,
    /// When it took it.
    pub since: Timestamp,
}

/// Leave to reboot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// The boot for which it holds; `None` for an agent that does not name its boots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// Digest of the image that ran then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// When it was given.
    pub at: Timestamp,
}

/// A drain that took longer than the pool's `drainTimeoutSeconds`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainFault {
    /// No other slot before this.
    pub until: Timestamp,
    /// How many in a row.
    pub times: u32,
}

/// When a state was reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// This one.
    pub state: State,
    /// Then.
    pub at: Timestamp,
}

/// From one state to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// From here.
    pub from: State,
    /// Since when it was there.
    pub since: Timestamp,
    /// To there.
    pub to: State,
    /// When.
    pub at: Timestamp,
    /// The event that did it, as the table of transitions names it.
    pub cause: String,
}

impl Hop {
    /// Is it the first of an update (or the end of another one that it replaces)?
    #[must_use]
    pub fn begins_update(&self) -> bool {
        let retargets = [
            "Retargeted",
            "RetargetedToBooted",
            "Revoked",
            "RevokedToBooted",
        ];
        retargets.contains(&self.cause.as_str())
            || (self.from == State::Idle && self.to == State::Staging)
    }
}
