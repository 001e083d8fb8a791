//! Fleets that are held in one phase of an update, for whatever is to happen to them there.

use std::sync::Arc;

use anyhow::{Result, ensure};
use api_tests::{
    Fleet, Suite,
    fleet::{B, Boot, Stage, View},
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

/// A phase of an update that can be held from outside. (Cordoned is over as soon as the Node shows
/// the cordon.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The first node stages.
    Staging,
    /// Both are staged and the pool is paused.
    Staged,
    /// The first node's drain waits for a pod disruption budget.
    Draining,
    /// The first node was approved and has not gone down yet.
    Rebooting,
    /// The first node runs the new image and is not Ready.
    Verifying,
}

impl Phase {
    pub(crate) const ALL: [Self; 5] = [
        Self::Staging,
        Self::Staged,
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
        Phase::Draining => guard(&fleet, name, 1).await?,
        Phase::Rebooting => fleet.plan(1, |plan| plan.boot = Boot::Hold),
        Phase::Verifying => fleet.plan(1, |plan| plan.boot = Boot::NotReady),
        Phase::Staged => {}
    }
    fleet.spec(json!({ "rollout": { "paused": true } })).await?;
    fleet.want(B).await?;
    let first = if phase == Phase::Staging {
        "Staging"
    } else {
        "Staged"
    };
    fleet
        .until("it is staged", |view| {
            ensure!(view.states() == [first, "Staged"], "{view}");
            Ok(())
        })
        .await?;
    if !matches!(phase, Phase::Staging | Phase::Staged) {
        fleet
            .spec(json!({ "rollout": { "paused": false } }))
            .await?;
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
        Phase::Staged | Phase::Draining => ["Staged", "Staged"],
        Phase::Rebooting => ["Rebooting", "Staged"],
        Phase::Verifying => ["Idle", "Staged"],
    };
    ensure!(view.states() == states, "{view}");
    let in_slot = !matches!(phase, Phase::Staging | Phase::Staged);
    ensure!(view.in_slot().len() == usize::from(in_slot), "{view}");
    ensure!(view.cordoned().len() == usize::from(in_slot), "{view}");
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

/// Takes the budget away, if there is one.
pub(crate) async fn unguard(fleet: &Fleet, namespace: &str) -> Result<()> {
    let budgets = Api::<PodDisruptionBudget>::namespaced(fleet.client(), namespace);
    match budgets.delete("guard", &DeleteParams::default()).await {
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
        fleet
            .spec(json!({ "rollout": { "paused": false } }))
            .await?;
    }
    Ok(())
}
