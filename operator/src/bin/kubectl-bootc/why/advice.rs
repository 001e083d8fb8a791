//! What to do, by the cause. The names are those of [`fsm::node::waiting::WaitingOn::label`] and of a
//! pool's conditions.

use crate::model::OPERATOR;

/// What a person can do about it, a line each.
pub(super) fn of(reason: &str, node: &str, pool: &str) -> Vec<String> {
    let retry = || format!("once the cause is gone: kubectl bootc retry {node}");
    let lines: Vec<String> = match reason {
        "Drain" => vec![
            "give the pods somewhere to go: add replicas or room, or let the budget allow a disruption".into(),
            format!("or wait: evictions are tried again by themselves; a drain without end is bounded by spec.rollout.drainTimeoutSeconds of pool {pool}"),
        ],
        "DrainTimedOut" => vec![
            "see above which pods did not go; the node is uncordoned and tried again by itself after a back-off".into(),
            retry(),
        ],
        "RebootSlot" => vec![
            format!("nothing: its turn comes when a holder is done (kubectl bootc why HOLDER); spec.rollout.maxUnavailable of pool {pool} allows more at a time"),
        ],
        "ControlPlane" => vec![
            "nothing, unless a node of the control plane is not Ready: bring that back first".into(),
        ],
        "StagingRoom" => vec![
            format!("nothing: spec.rollout.maxConcurrentStaging of pool {pool} allows more at a time"),
        ],
        "Paused" => vec![
            format!("kubectl bootc resume {pool} (or raise spec.rollout.maxUnavailable, if that is 0)"),
        ],
        "RolloutHalted" => vec![
            format!("bring the unhealthy nodes back (kubectl bootc why NODE); the rollout goes on by itself once fewer than two are"),
            format!("if the image is at fault: kubectl bootc set-image {pool} REF with the one before"),
        ],
        "NodeConflict" => vec![
            "change the selectors so that one pool alone selects the node; until then none updates it".into(),
        ],
        "NodeDegraded" => vec![
            "kubectl bootc why NODE says more of each; kubectl bootc retry NODE tries again".into(),
        ],
        "TargetUnknown" | "TagResolutionError" | "InvalidSpec" => vec![
            format!("correct spec.image.ref of pool {pool}, its pull secret, or the registry's answer; it is asked again by itself"),
        ],
        "SecretError" | "PoolNotReady" => vec![
            format!("spec.pullSecretRef of pool {pool} must name a Secret of type kubernetes.io/dockerconfigjson in the operator's namespace"),
        ],
        "Staging" => vec![
            format!("nothing, while it gets on; else see the agent: kubectl -n {} logs -l app.kubernetes.io/name=bootc-nodeagent --field-selector spec.nodeName={node}", crd::names::NAMESPACE_AGENT),
        ],
        "Rebooting" | "RebootTimedOut" => vec![
            "look at the host's console; a host that comes back is taken up again by itself".into(),
        ],
        "NotReady" | "Kubelet" | "MinReady" => vec![
            format!("kubectl describe node {node}; the rollout goes on by itself once the node is Ready"),
        ],
        "AgentReport" | "AgentSilent" => vec![
            format!("is the agent's pod running on the node? kubectl -n {} get pods --field-selector spec.nodeName={node} -o wide", crd::names::NAMESPACE_AGENT),
        ],
        "FellBack" => vec![
            "the image did not boot well on this host, and is not tried again by itself: see the host's journal of the boot before".into(),
            format!("a corrected image is taken at once (kubectl bootc set-image {pool} REF); {}", retry()),
        ],
        "TriesSpent" => vec![retry()],
        "Degraded" => vec![
            "see bootc's own words above; the step is tried again by itself".into(),
            retry(),
        ],
        "NotBootc" => vec![
            format!("this host is not run by bootc: take it out of the selector of pool {pool}"),
        ],
        "WriteRefused" => vec![
            "an admission policy, a webhook or RBAC refuses the operator's write: see its words above".into(),
        ],
        reason if reason == OPERATOR => vec![
            format!("is an operator running? kubectl -n {} get pods,leases", crd::names::NAMESPACE_OPERATOR),
        ],
        _ => Vec::new(),
    };
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever a node can wait for by a will or a fault, there is something to be said about it.
    #[test]
    fn every_cause_has_advice() {
        for reason in [
            "NodeConflict",
            "PoolNotReady",
            "TargetUnknown",
            "StagingRoom",
            "Staging",
            "AgentReport",
            "RebootSlot",
            "ControlPlane",
            "Paused",
            "RolloutHalted",
            "Drain",
            "Rebooting",
            "NotReady",
            "Kubelet",
            "MinReady",
            "FellBack",
            "NotBootc",
            "Degraded",
            "TriesSpent",
            "DrainTimedOut",
            "RebootTimedOut",
            "AgentSilent",
            "WriteRefused",
            "SecretError",
            "TagResolutionError",
            "InvalidSpec",
            "NodeDegraded",
            OPERATOR,
        ] {
            assert!(!of(reason, "w1", "workers").is_empty(), "{reason}");
        }
        assert!(of("RebootSlot", "w1", "workers")[0].contains("pool workers"));
    }
}
