//! Names that both sides, the manifests and people's scripts agree on.

/// API group of both kinds.
pub const GROUP: &str = "node.bootc.dev";
/// API version of both kinds.
pub const VERSION: &str = "v1alpha1";

/// Node label, value `""`: the agent `DaemonSet` selects on it.
pub const LABEL_MANAGED: &str = "bootc.dev/managed";
/// Node label of control-plane nodes: one of them at a time is in a slot, over all pools.
pub const LABEL_CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// Node annotation, value: the pool that cordoned it. Set and removed in the same patch as the
/// cordon; a Node without it is never uncordoned by us.
pub const ANNOTATION_CORDONED_BY: &str = "bootc.dev/cordoned-by";
/// `BootcNode` annotation, value `""`: the node holds a reboot slot.
pub const ANNOTATION_IN_REBOOT_SLOT: &str = "bootc.dev/in-reboot-slot";
/// `BootcNode` annotation, `"true"` or `"false"`: was the node cordoned before it took its slot?
pub const ANNOTATION_WAS_CORDONED: &str = "bootc.dev/was-cordoned";
/// `BootcNode` annotation (ours), JSON: what the operator keeps of a node's rollout.
pub const ANNOTATION_ROLLOUT: &str = "bootc.dev/rollout";
/// On a pool, `NODE[,NODE]@TIME`: a person asks for another try. The operator copies TIME to the
/// `BootcNode` under the same name; the agent forgets attempts older than it.
pub const ANNOTATION_RETRY: &str = "bootc.dev/retry";
/// Everything of ours and of the Go operator in labels and annotations starts with this.
pub const PREFIX: &str = "bootc.dev/";

/// Finalizer of a pool: its nodes are let go (label, cordon, `BootcNode`) before it disappears.
pub const FINALIZER_POOL_CLEANUP: &str = "bootc.dev/pool-cleanup";

/// Field manager of the operator's writes.
pub const FIELD_MANAGER_OPERATOR: &str = "bootc-operator";
/// Field manager of the agent's status writes.
pub const FIELD_MANAGER_AGENT: &str = "bootc-nodeagent";

/// Namespace of the operator and of the pull secrets (pod security: restricted).
pub const NAMESPACE_OPERATOR: &str = "bootc-operator";
/// Namespace of the agent (pod security: privileged).
pub const NAMESPACE_AGENT: &str = "bootc-agent";
/// Service account of the operator, in [`NAMESPACE_OPERATOR`].
pub const SERVICE_ACCOUNT_OPERATOR: &str = "bootc-operator";
/// Service account of the agent, in [`NAMESPACE_AGENT`].
pub const SERVICE_ACCOUNT_AGENT: &str = "bootc-nodeagent";
/// Members may edit `BootcNode` specs and our annotations by hand (the admission policies' way out).
pub const GROUP_BREAK_GLASS: &str = "bootc.dev:break-glass";
/// Lease by which one operator acts. The Go operator uses the same name in the same namespace, so
/// the two exclude each other while a cluster moves from one to the other.
pub const LEASE: &str = "bootc-operator.bootc.dev";

/// Condition types of both kinds.
pub mod condition {
    /// Pool: every node runs the target.
    pub const UP_TO_DATE: &str = "UpToDate";
    /// Pool and node: something is wrong; the message says what and what happens next.
    pub const DEGRADED: &str = "Degraded";
    /// Node, by the agent: nothing is going on.
    pub const IDLE: &str = "Idle";
    /// Node, by the operator: the rollout waits for something here.
    pub const WAITING: &str = "Waiting";
}

/// Reasons of a pool's conditions.
pub mod pool_reason {
    /// `UpToDate=True`; also for a pool without nodes.
    pub const ALL_UPDATED: &str = "AllUpdated";
    /// `UpToDate=False`.
    pub const ROLLOUT_IN_PROGRESS: &str = "RolloutInProgress";
    /// `UpToDate=False`: `rollout.paused`, or no slot is allowed at all.
    pub const PAUSED: &str = "Paused";
    /// `UpToDate=Unknown`: no digest is resolved yet.
    pub const TARGET_UNKNOWN: &str = "TargetUnknown";
    /// `Degraded=False`.
    pub const OK: &str = "OK";
    /// `Degraded=True`: nodes failed; each is named.
    pub const NODE_DEGRADED: &str = "NodeDegraded";
    /// `Degraded=True`: another pool claims some of the nodes.
    pub const NODE_CONFLICT: &str = "NodeConflict";
    /// `Degraded=True`: two slot holders are unhealthy; nothing new is started.
    pub const ROLLOUT_HALTED: &str = "RolloutHalted";
    /// `Degraded=True`: the pull secret is missing or malformed.
    pub const SECRET_ERROR: &str = "SecretError";
    /// `Degraded=True`: the registry did not give a digest for the tag.
    pub const TAG_RESOLUTION_ERROR: &str = "TagResolutionError";
    /// `Degraded=True`: the spec cannot be followed.
    pub const INVALID_SPEC: &str = "InvalidSpec";

    /// Reasons of `Degraded=True`, the least urgent first: of several the last one is shown.
    pub const DEGRADED_BY_URGENCY: [&str; 6] = [
        NODE_DEGRADED,
        NODE_CONFLICT,
        ROLLOUT_HALTED,
        SECRET_ERROR,
        TAG_RESOLUTION_ERROR,
        INVALID_SPEC,
    ];
}

/// Reasons of a node's conditions.
pub mod node_reason {
    /// `Idle=True`.
    pub const IDLE: &str = "Idle";
    /// `Idle=False`: the image is being pulled and deployed.
    pub const STAGING: &str = "Staging";
    /// `Idle=False`: staged, locked, awaiting the approval.
    pub const STAGED: &str = "Staged";
    /// `Idle=False`: the reboot was asked for.
    pub const REBOOTING: &str = "Rebooting";
    /// `Degraded=False`.
    pub const HEALTHY: &str = "Healthy";
    /// `Degraded=True`: a step failed and is tried again.
    pub const ERROR: &str = "Error";
    /// `Degraded=True`: the host was in the attempted image and is back.
    pub const FELL_BACK: &str = "FellBack";
    /// `Degraded=True`: this host is not run by bootc; no retry.
    pub const NOT_BOOTC: &str = "NotBootc";
    /// `Waiting=True`: an awaited report of the agent is missing.
    pub const AGENT_SILENT: &str = "AgentSilent";
}
