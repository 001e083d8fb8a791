//! Fleets that are held in one phase of an update, for whatever is to happen to them there.

use std::sync::Arc;

use anyhow::{Result, ensure};
use api_tests::{
    Fleet, Suite,
    fleet::{B, Boot, Stage, View},
    wait,
};
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    core::v1::Node,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

/// What the policy says that refuses a cordon.
pub(crate) const NO_CORDON: &str = "nobody cordons this node today";

/// A phase of an update that can be held from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The first node stages.
    Staging,
    /// Both are staged and the pool is paused.
    Staged,
    /// The first node has its slot, and a policy refuses its cordon.
    Cordoned,
    /// The first node's drain waits for a pod disruption budget.
    Draining,
    /// The first node was approved and has not gone down yet.
    Rebooting,
    /// The first node runs the new image and is not Ready.
    Verifying,
}

impl Phase {
    pub(crate) const ALL: [Self; 6] = [
        Self::Staging,
        Self::Staged,
        Self::Cordoned,
        Self::Draining,
        Self::Rebooting,
        Self::Verifying,
    ];

    /// For names of objects.
    pub(crate) fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// Two nodes on their way to image B, the first one held in a phase, the other one staged.
pub(crate) async fn held_in(suite: &Arc<Suite>, name: &str, phase: Phase) -> Result<Fleet> {
    let fleet = Fleet::settled(suite, name, 2, json!({})).await?;
    match phase {
        Phase::Staging => fleet.plan(1, |plan| plan.stage = Stage::Hold),
        Phase::Cordoned => forbid_cordon(&fleet, name, 1).await?,
        Phase::Draining => guard(&fleet, name, 1).await?,
        Phase::Rebooting => fleet.plan(1, |plan| plan.boot = Boot::Hold),
        Phase::Verifying => fleet.plan(1, |plan| plan.boot = Boot::NotReady),
        Phase::Staged => {}
    }
    fleet.pause(true).await?;
    fleet.want(B).await?;
    let first = if phase == Phase::Staging {
        "Staging"
    } else {
        "Staged"
    };
    fleet.until_states(&[first, "Staged"]).await?;
    if !matches!(phase, Phase::Staging | Phase::Staged) {
        fleet.pause(false).await?;
    }
    fleet
        .until(&format!("the first node is {phase:?}"), |view| {
            is_in(view, phase)
        })
        .await?;
    Ok(fleet)
}

fn is_in(view: &View, phase: Phase) -> Result<()> {
    let states = match phase {
        Phase::Staging => ["Staging", "Staged"],
        Phase::Staged | Phase::Cordoned | Phase::Draining => ["Staged", "Staged"],
        Phase::Rebooting => ["Rebooting", "Staged"],
        Phase::Verifying => ["Idle", "Staged"],
    };
    ensure!(view.states() == states, "{view}");
    let in_slot = !matches!(phase, Phase::Staging | Phase::Staged);
    ensure!(view.in_slot().len() == usize::from(in_slot), "{view}");
    let cordoned = in_slot && phase != Phase::Cordoned;
    ensure!(view.cordoned().len() == usize::from(cordoned), "{view}");
    if phase == Phase::Draining {
        let waiting = view.node_condition(&view.in_slot().concat(), "Waiting")?;
        ensure!(waiting.message.contains("PodDisruptionBudget"), "{view}");
    }
    Ok(())
}

/// A pod on a node that a budget lets nobody evict.
pub(crate) async fn guard(fleet: &Fleet, namespace: &str, n: usize) -> Result<()> {
    fleet
        .workload(&fleet.node(n), json!({ "app": "guarded" }))
        .await?;
    let budget: PodDisruptionBudget = serde_json::from_value(json!({
        "metadata": { "name": "guard" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "guarded" } } },
    }))?;
    let budgets = Api::namespaced(fleet.client(), namespace);
    budgets.create(&PostParams::default(), &budget).await?;
    Ok(())
}

/// Nobody may cordon the node, by an admission policy of that name.
pub(crate) async fn forbid_cordon(fleet: &Fleet, name: &str, n: usize) -> Result<()> {
    let node = fleet.node(n);
    let cordons = format!(
        "object.metadata.name == '{node}' && has(object.spec.unschedulable) && object.spec.unschedulable"
    );
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "matchConstraints": { "resourceRules": [{
                "apiGroups": [""], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["nodes"],
            }] },
            "matchConditions": [{ "name": "cordons", "expression": cordons }],
            "validations": [{ "expression": "false", "message": NO_CORDON }],
        },
    }))?;
    let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": { "policyName": name, "validationActions": ["Deny"] },
    }))?;
    let params = PostParams::default();
    Api::all(fleet.client()).create(&params, &policy).await?;
    Api::all(fleet.client()).create(&params, &binding).await?;
    wait::until("the policy is at work", || async {
        let cordon = Patch::Merge(json!({ "spec": { "unschedulable": true } }));
        let nodes = Api::<Node>::all(fleet.client());
        match nodes
            .patch(&node, &PatchParams::default().dry_run(), &cordon)
            .await
        {
            Err(kube::Error::Api(status)) if status.message.contains(NO_CORDON) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// Takes away what held the first node up, budget or policy, if there is one.
pub(crate) async fn unguard(fleet: &Fleet, name: &str) -> Result<()> {
    let client = fleet.client();
    delete(
        &Api::<PodDisruptionBudget>::namespaced(client.clone(), name),
        "guard",
    )
    .await?;
    delete(&Api::<ValidatingAdmissionPolicyBinding>::all(client), name).await
}

async fn delete<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    match api.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        gone => gone.map(drop).map_err(Into::into),
    }
}

/// Whatever held the fleet in its phase holds it no more.
pub(crate) async fn let_go(fleet: &Fleet, namespace: &str) -> Result<()> {
    fleet.plan_all(|plan| (plan.stage, plan.boot) = (Stage::Go, Boot::Go));
    fleet.node_ready(1, true).await?;
    unguard(fleet, namespace).await?;
    if fleet.view().await?.pool.is_some() {
        fleet.pause(false).await?;
    }
    Ok(())
}
