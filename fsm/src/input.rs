//! What a [`Rollout`](crate::Rollout) is told.

use serde::{Deserialize, Serialize};

use crate::{
    names::{NodeName, PoolName},
    view::{BootcNodeView, NodeView, PoolView, SecretRef},
};

/// One piece of news. Objects come whole and replace what was known; `None` says that the object is
/// gone. An object must never be replaced by an older version of itself: a watch event older than
/// the answer to a write is to be dropped by the sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// A Node, or its end.
    Node(NodeName, Option<NodeView>),
    /// A `BootcNode`, or its end.
    BootcNode(NodeName, Option<BootcNodeView>),
    /// A pool, or its end.
    Pool(PoolName, Option<PoolView>),
    /// The first lists of Nodes, `BootcNode`s and pools are complete: what is not known by now does
    /// not exist. Nothing is decided before.
    Synced,
    /// The time of the last [`Command::WakeAt`](crate::Command::WakeAt) has come.
    Tick,
    /// Of a drain. Reports of another attempt than the running one are ignored.
    Drain {
        /// The node that is drained.
        node: NodeName,
        /// As in [`Effect::StartDrain`](crate::command::Effect::StartDrain).
        attempt: u32,
        /// How it goes.
        report: DrainReport,
    },
    /// A registry's answer to [`Command::Resolve`](crate::Command::Resolve).
    Resolved {
        /// The pool that asked.
        pool: PoolName,
        /// The reference that was asked for.
        reference: String,
        /// The digest (`sha256:…`), or why there is none.
        result: Result<String, String>,
    },
    /// A pull secret as it now is. To be sent for every pool with a `pullSecretRef`, at first sight
    /// and at each change; until then nothing new is staged in that pool.
    Secret {
        /// The pool that names it.
        pool: PoolName,
        /// The secret that was looked at.
        secret: SecretRef,
        /// Hash of its content, or what is wrong with it.
        result: Result<String, String>,
    },
    /// The end of a [`Command::Decide`](crate::Command::Decide). If objects that the writes
    /// returned are fed too, then before this.
    Done {
        /// The node that was decided on.
        node: NodeName,
        /// The decision's number.
        decision: u64,
        /// How many of its effects took place, from the first.
        done: usize,
        /// How it ended.
        outcome: Outcome,
    },
    /// The end of a [`Command::Pool`](crate::Command::Pool).
    PoolDone {
        /// The pool that was written.
        pool: PoolName,
        /// The write's number.
        write: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// The end of a [`Command::Waiting`](crate::Command::Waiting).
    WaitingDone {
        /// The node whose condition was written.
        node: NodeName,
        /// How it ended.
        outcome: Outcome,
    },
}

/// How a write ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done.
    Ok,
    /// 409: the object is newer than the decision, or exists already. Decided again on its news.
    Conflict,
    /// 404, or 422 for another UID: the object is gone. Decided again on its news.
    Gone,
    /// The API server refuses: forbidden, invalid, a webhook. Tried again with back-off and shown.
    Refused(String),
    /// No answer, or one that says nothing about the write: it may have taken place. Tried again
    /// with back-off and shown if it goes on.
    Failed(String),
}

/// How a drain goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DrainReport {
    /// Only what may stay is left.
    Done,
    /// Pods are left. Sent when the list changes (its order must not change by itself).
    Pods(Vec<BlockedPod>),
}

/// A pod that a drain waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlockedPod {
    /// `namespace/name`
    pub pod: String,
    /// Why it is still there, for people: `PodDisruptionBudget ns/pdb allows 0 disruptions`;
    /// `None` while it just shuts down.
    pub why: Option<String>,
}
