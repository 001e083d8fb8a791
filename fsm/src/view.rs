//! Objects of the cluster, cut down to what decisions need. The operator's `observe` is the only
//! place that makes them.

use std::{collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    image::{Image, Running},
    names::{NodeName, PoolName},
    node::Record,
    time::{Seconds, Timestamp},
};

/// A Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// `metadata.uid`
    pub uid: String,
    /// Has the label `bootc.dev/managed`.
    pub labelled: bool,
    /// `spec.unschedulable`
    pub cordoned: bool,
    /// Annotation `bootc.dev/cordoned-by`: the pool whose cordon this is.
    pub cordoned_by: Option<PoolName>,
    /// The condition Ready: `Some(false)` for False and Unknown, `None` if there is none.
    pub ready: Option<bool>,
    /// Its lastTransitionTime.
    pub ready_since: Option<Timestamp>,
    /// `status.nodeInfo.bootID`, empty is `None`.
    pub boot_id: Option<String>,
    /// Has the label `node-role.kubernetes.io/control-plane`.
    pub control_plane: bool,
    /// The pools whose selector matches the node's labels. The operator sends the Node again when
    /// these change, be it by the Node or by a pool.
    pub claims: BTreeSet<PoolName>,
}

/// A `BootcNode`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootcNodeView {
    /// `metadata.uid`
    pub uid: String,
    /// `metadata.generation`
    pub generation: i64,
    /// The pool that it belongs to; `None` without a controller reference of kind `BootcNodePool`.
    pub owner: Option<Owner>,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// What the agent is told.
    pub spec: NodeSpec,
    /// Annotation `bootc.dev/rollout`.
    pub kept: Kept,
    /// Annotation `bootc.dev/in-reboot-slot` is present.
    pub in_reboot_slot: bool,
    /// Annotation `bootc.dev/was-cordoned`.
    pub was_cordoned: Option<bool>,
    /// Annotation `bootc.dev/retry`: the newest request of a person that reached this node.
    pub retry: Option<Timestamp>,
    /// What the agent says; `None` before its first word.
    pub report: Option<Arc<Report>>,
    /// The condition Waiting as it stands.
    pub waiting: Option<Waiting>,
}

/// The pool that a `BootcNode` belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its name.
    pub pool: PoolName,
    /// Its UID: a pool made anew under the same name is another one.
    pub uid: String,
}

/// The spec of a `BootcNode`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// `desiredImage`
    pub image: Option<Image>,
    /// `desiredImageState` is `Booted`.
    pub booted: bool,
    /// `approvedBoot`
    pub approved_boot: Option<String>,
    /// `pullSecretRef`
    pub secret: Option<SecretRef>,
    /// `pullSecretHash`
    pub secret_hash: Option<String>,
    /// `rebootPolicy` is `AllowSoftReboot`.
    pub soft_reboot: bool,
}

/// A Secret by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretRef {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

/// The annotation `bootc.dev/rollout`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kept {
    /// There is none.
    #[default]
    Missing,
    /// It is no [`Record`]; why.
    Unreadable(String),
    /// As the operator wrote it.
    Is(Arc<Record>),
}

/// What the agent says in the status of a `BootcNode`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The generation of the spec that it speaks of; `None` from an agent that does not say.
    pub observed_generation: Option<i64>,
    /// The boot in which it was made; `None` from an agent that does not say.
    pub boot: Option<String>,
    /// The image that runs.
    pub booted: Option<Running>,
    /// The image that is staged.
    pub staged: Option<Running>,
    /// The condition Idle.
    pub activity: Activity,
    /// The condition Degraded, if True.
    pub degraded: Option<AgentFault>,
    /// The newest update's steps, for traces. No decision looks at them.
    pub steps: Vec<StepView>,
}

/// A step of an update on its host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepView {
    /// What was done.
    pub name: String,
    /// When it began.
    pub start: Timestamp,
    /// When it ended; `None` while it runs.
    pub end: Option<Timestamp>,
}

/// The agent's condition Idle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Activity {
    /// No such condition, or a reason that is not known.
    #[default]
    Unknown,
    /// Idle=True.
    Idle,
    /// Idle=False, Staging.
    Staging,
    /// Idle=False, Staged.
    Staged,
    /// Idle=False, Rebooting.
    Rebooting,
}

/// The agent's condition Degraded=True.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentFault {
    /// Its reason.
    pub kind: AgentFaultKind,
    /// Its message.
    pub message: String,
}

/// Reasons of the agent's Degraded=True.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AgentFaultKind {
    /// A step failed and is tried again; also any reason that is not known.
    Error,
    /// The host was in the attempted image and is back.
    FellBack,
    /// This host is not run by bootc.
    NotBootc,
}

/// The condition Waiting of a `BootcNode`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Its status: the node waits for something.
    pub waiting: bool,
    /// Its reason, the name of the cause.
    pub reason: String,
    /// Its message: the cause with its evidence.
    pub message: String,
    /// Its lastTransitionTime, in whole seconds.
    pub since: Timestamp,
}

/// A `BootcNodePool`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolView {
    /// `metadata.uid`
    pub uid: String,
    /// `metadata.generation`
    pub generation: i64,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// The finalizer `bootc.dev/pool-cleanup` is there.
    pub finalizer: bool,
    /// What people ask for.
    pub spec: PoolSpec,
    /// Annotation `bootc.dev/retry`; one that cannot be read is `None`.
    pub retry: Option<Retry>,
    /// The status as it stands; `None` before the first.
    pub status: Option<PoolStatus>,
}

/// The spec of a pool, without its selector (the operator matches it).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSpec {
    /// The wanted image.
    pub image: ImageRef,
    /// What else is wrong with the spec (a selector that cannot be used, a percentage out of
    /// range); the fields here then hold their defaults.
    pub invalid: Option<String>,
    /// `rollout.maxUnavailable`
    pub max_unavailable: Amount,
    /// `rollout.paused`
    pub paused: bool,
    /// `rollout.drainTimeoutSeconds`; `None` and 0: no timeout.
    pub drain_timeout: Option<Seconds>,
    /// `rollout.rebootTimeoutSeconds`
    pub reboot_timeout: Option<Seconds>,
    /// `rollout.maxConcurrentStaging`
    pub max_concurrent_staging: Option<Amount>,
    /// `rollout.minReadySeconds`
    pub min_ready: Seconds,
    /// `disruption.rebootPolicy` is `AllowSoftReboot`.
    pub soft_reboot: bool,
    /// `pullSecretRef`
    pub secret: Option<SecretRef>,
}

impl PoolSpec {
    /// A spec that says what image is wanted and nothing else: the rest is as the API has it by default.
    #[must_use]
    pub fn of(image: ImageRef) -> Self {
        Self {
            image,
            invalid: None,
            max_unavailable: Amount::Count(1),
            paused: false,
            drain_timeout: None,
            reboot_timeout: None,
            max_concurrent_staging: None,
            min_ready: Seconds(0),
            soft_reboot: false,
            secret: None,
        }
    }
}

/// `spec.image.ref`, parsed by the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageRef {
    /// With a digest; a tag beside it is dropped.
    Pinned(Image),
    /// By tag: a registry knows the digest.
    Tag {
        /// `host/repository:tag`
        reference: String,
        /// `host/repository`
        repository: String,
    },
    /// Not a reference; why.
    Invalid(String),
}

/// So many nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Amount {
    /// A count.
    Count(u32),
    /// A percentage of the pool's nodes, rounded up.
    Percent(u32),
}

impl Amount {
    /// The number of nodes out of `nodes`.
    #[must_use]
    pub fn of(self, nodes: usize) -> usize {
        match self {
            Self::Count(count) => count as usize,
            Self::Percent(percent) => (nodes * percent as usize).div_ceil(100),
        }
    }
}

/// A person's request for another try, from a pool's annotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// For these nodes.
    pub nodes: BTreeSet<NodeName>,
    /// Attempts older than this are forgotten.
    pub at: Timestamp,
}

/// The status of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// `observedGeneration`
    pub observed_generation: Option<i64>,
    /// `targetDigest`
    pub target_digest: Option<String>,
    /// `deployedDigest`
    pub deployed_digest: Option<String>,
    /// `updateAvailable`
    pub update_available: bool,
    /// `nextTagResolutionTime`, in whole seconds.
    pub next_tag_resolution: Option<Timestamp>,
    /// `nodeCount`
    pub nodes: usize,
    /// `updatedCount`
    pub updated: usize,
    /// `updatingCount`
    pub updating: usize,
    /// `degradedCount`
    pub degraded: usize,
    /// The condition `UpToDate`.
    pub up_to_date: Option<Condition>,
    /// The condition `Degraded`.
    pub is_degraded: Option<Condition>,
}

/// A condition of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// `None` is Unknown.
    pub status: Option<bool>,
    /// Why, in one word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// lastTransitionTime, in whole seconds: when `status` last changed.
    pub since: Timestamp,
}
