//! What a [`Rollout`](crate::Rollout) asks for.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    names::{NodeName, PoolName},
    node::{Hop, Record, Trace},
    time::Timestamp,
    view::{NodeSpec, Owner, PoolStatus, SecretRef, Waiting},
};

/// One thing to be done. They may be done in any order and at the same time, but the effects of one
/// decision; results come back as [`Input`](crate::Input)s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// What a node needs. Never a second one for a node before the first one's
    /// [`Input::Done`](crate::Input::Done).
    Decide(Decision),
    /// A write to a pool. Never a second one for a pool before the first one's
    /// [`Input::PoolDone`](crate::Input::PoolDone).
    Pool {
        /// The pool.
        pool: PoolName,
        /// To be named in the answer.
        write: u64,
        /// What is written.
        what: PoolWrite,
    },
    /// The condition Waiting of a node's `BootcNode`; answered by
    /// [`Input::WaitingDone`](crate::Input::WaitingDone). `metadata.uid` is that of the
    /// `BootcNode` as it was last fed.
    Waiting {
        /// The node.
        node: NodeName,
        /// The condition.
        waiting: Waiting,
    },
    /// Ask a registry for a tag's digest; answered by [`Input::Resolved`](crate::Input::Resolved).
    Resolve {
        /// The pool that asks.
        pool: PoolName,
        /// `host/repository:tag`
        reference: String,
        /// The credentials to use.
        secret: Option<SecretRef>,
    },
    /// A node went from one state to another: for logs, spans and metrics. Told once it is certain
    /// (after the write that keeps it, where there is one).
    Hop {
        /// The node.
        node: NodeName,
        /// Its pool.
        pool: Option<PoolName>,
        /// From where to where, when and why.
        hop: Hop,
        /// The record after it, with image, slot and trace.
        record: Arc<Record>,
        /// The update that the node was on before it.
        trace: Option<Trace>,
        /// Told once before, perhaps: the operator was started anew, and whoever was told last may
        /// have been cut off. For what may be repeated, such as spans.
        again: bool,
    },
    /// An Event for people, and a log line.
    Notice(Notice),
    /// Send [`Input::Tick`](crate::Input::Tick) at this time; replaces the one asked for before.
    /// `None`: no timer.
    WakeAt(Option<Timestamp>),
}

/// Ordered effects on one node. Each must succeed before the next begins; the first failure ends
/// the decision. Each is fenced by the version of the object that was last fed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The node.
    pub node: NodeName,
    /// The pool for which it is decided: the owner of its `BootcNode`, or the one that will be.
    pub pool: Option<PoolName>,
    /// To be named in the answer.
    pub id: u64,
    /// In the order release, commit, acquire; an approval that may still be acted on is taken back
    /// before all.
    pub effects: Vec<Effect>,
}

/// One thing done to a node. All may be repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// End the drain: when this is done it evicts nothing more. No write.
    CancelDrain,
    /// Node: `spec.unschedulable: false`, remove the annotation `cordoned-by`; one patch.
    Uncordon,
    /// Node: remove the annotation `cordoned-by` alone (somebody else uncordoned it).
    ForgetCordon,
    /// Node: remove the label `bootc.dev/managed`.
    Unlabel,
    /// `BootcNode`: delete it, by UID.
    Delete,
    /// `BootcNode`: make it, named after its node. A `Conflict` if it exists.
    Create {
        /// The controller reference.
        owner: Owner,
        /// What it shall hold.
        write: NodeWrite,
    },
    /// `BootcNode`: annotations and spec in one write.
    Commit(NodeWrite),
    /// Node: set the label `bootc.dev/managed: ""`.
    Label,
    /// Node: `spec.unschedulable: true` and the annotation `cordoned-by`, in one patch.
    Cordon {
        /// The annotation's value.
        by: PoolName,
    },
    /// Drain the node; answered by [`Input::Drain`](crate::Input::Drain). No write here: the effect
    /// is done once the drain is on its way. Replaces a drain of the same node.
    StartDrain {
        /// To be named in the answers.
        attempt: u32,
    },
}

impl Effect {
    /// Does it write to the API server? (A drain's evictions are counted apart.)
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self, Self::CancelDrain | Self::StartDrain { .. })
    }
}

/// What a `BootcNode` shall hold: the whole spec, and these annotations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeWrite {
    /// The whole spec; a field that is `None` is removed.
    pub spec: NodeSpec,
    /// Annotation `bootc.dev/rollout`, as JSON.
    pub record: Arc<Record>,
    /// Annotation `bootc.dev/in-reboot-slot: ""`; absent if false.
    pub in_reboot_slot: bool,
    /// Annotation `bootc.dev/was-cordoned`; absent if `None`.
    pub was_cordoned: Option<bool>,
    /// Annotation `bootc.dev/retry`, RFC 3339; absent if `None`.
    pub retry: Option<Timestamp>,
}

/// One write to a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PoolWrite {
    /// Add the finalizer `bootc.dev/pool-cleanup`.
    AddFinalizer,
    /// Remove it: every node was let go.
    RemoveFinalizer,
    /// The whole status.
    Status(Box<PoolStatus>),
}

/// An Event for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The object that it is about.
    pub about: About,
    /// Type Warning, else Normal.
    pub warning: bool,
    /// One word in `CamelCase`.
    pub reason: String,
    /// What was being done, one word in `CamelCase`.
    pub action: String,
    /// A sentence.
    pub note: String,
}

/// The object that a [`Notice`] is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum About {
    /// A pool.
    Pool(PoolName),
    /// A `BootcNode`, related to its pool. (Where it does not exist any more: the Node.)
    Node(NodeName, Option<PoolName>),
}
