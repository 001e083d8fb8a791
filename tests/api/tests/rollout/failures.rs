//! What goes wrong on one node stops nobody else, is told, and heals; two at once stop the pool.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use api_tests::{
    Fleet, Suite,
    fleet::{B, Boot, C, Stage},
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use libtest_mimic::Trial;
use serde_json::json;

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial("failures::a_degraded_node_stops_nobody_else", degraded),
        suite.trial("failures::two_unhealthy_slots_halt_the_pool", halted),
        suite.trial(
            "failures::a_node_that_fell_back_is_not_tried_again",
            fell_back,
        ),
        suite.trial("failures::a_node_that_stays_down_is_degraded", stays_down),
        suite.trial("failures::a_blocked_drain_names_its_budget", blocked_drain),
        suite.trial("failures::an_uncordoned_node_is_drained_anew", uncordoned),
        suite.trial(
            "failures::a_node_that_is_not_ready_takes_no_slot",
            not_ready,
        ),
    ]
}

async fn degraded(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "degraded", 3, json!({})).await?;
    fleet.plan(1, |plan| plan.stage = Stage::Fail);
    fleet.want(B).await?;
    fleet
        .until("the others are updated", |view| {
            let message = view.pool_is("Degraded=True/NodeDegraded")?.message;
            ensure!(
                message.contains("degraded-1") && message.contains("as the test wants it"),
                "{message}"
            );
            view.pool_is("UpToDate=False/RolloutInProgress")?;
            view.counts([3, 2, 0, 1])
        })
        .await?;
    fleet.plan(1, |plan| plan.stage = Stage::Go);
    let view = fleet.until_updated(B).await?;
    view.pool_is("Degraded=False/OK")?;
    fleet.finish().await
}

async fn halted(suite: Arc<Suite>) -> Result<()> {
    let rollout = json!({ "maxUnavailable": 3 });
    let fleet = Fleet::settled(&suite, "halted", 5, rollout).await?;
    fleet.plan_all(|plan| plan.boot = Boot::Hold);
    fleet.plan(1, |plan| plan.boot = Boot::NotReady);
    fleet.plan(2, |plan| plan.boot = Boot::NotReady);
    fleet.want_staged(B).await?;
    fleet
        .until("the rollout is halted", |view| {
            let message = view.pool_is("Degraded=True/RolloutHalted")?.message;
            let wanted = "2 of 3 nodes in reboot slots are unhealthy (halted-1: NotReady, halted-2: NotReady)";
            ensure!(message.contains(wanted), "{message}");
            Ok(())
        })
        .await?;
    // The third one was approved before: it finishes, and nobody takes its place.
    fleet.plan_all(|plan| plan.boot = Boot::Go);
    let view = fleet
        .until("the third one is done", |view| {
            view.counts([5, 1, 4, 0])
                .or_else(|_| view.counts([5, 1, 2, 2]))
        })
        .await?;
    ensure!(view.in_slot() == ["halted-1", "halted-2"], "{view}");
    ensure!(fleet.reboots() == [1, 1, 1, 0, 0], "{:?}", fleet.reboots());
    // Both recover, and it goes on by itself.
    for n in [1, 2] {
        fleet.node_ready(n, true).await?;
    }
    let view = fleet.until_updated(B).await?;
    view.pool_is("Degraded=False/OK")?;
    ensure!(fleet.reboots() == [1; 5], "{:?}", fleet.reboots());
    fleet.finish().await
}

async fn fell_back(suite: Arc<Suite>) -> Result<()> {
    let rollout = json!({ "maxUnavailable": 2 });
    let fleet = Fleet::settled(&suite, "fell-back", 3, rollout).await?;
    fleet.plan(1, |plan| plan.boot = Boot::FallBack);
    fleet.want(B).await?;
    fleet
        .until("the others are updated, the first keeps its slot", |view| {
            let message = view.pool_is("Degraded=True/NodeDegraded")?.message;
            ensure!(message.contains("fell-back-1"), "{message}");
            ensure!(
                view.in_slot() == ["fell-back-1"] && view.cordoned() == ["fell-back-1"],
                "{view}"
            );
            view.counts([3, 2, 0, 1])
        })
        .await?;
    ensure!(fleet.reboots() == [1, 1, 1], "{:?}", fleet.reboots());
    // Another image is another try.
    fleet.plan_all(|plan| plan.boot = Boot::Go);
    fleet.want(C).await?;
    let view = fleet.until_updated(C).await?;
    view.pool_is("Degraded=False/OK")?;
    ensure!(fleet.reboots() == [2, 2, 2], "{:?}", fleet.reboots());
    fleet.finish().await
}

async fn stays_down(suite: Arc<Suite>) -> Result<()> {
    let rollout = json!({ "rebootTimeoutSeconds": 3 });
    let fleet = Fleet::settled(&suite, "stays-down", 2, rollout).await?;
    fleet.plan(1, |plan| plan.boot = Boot::Lost);
    fleet.want_staged(B).await?;
    fleet
        .until("the timeout is told", |view| {
            let message = view.pool_is("Degraded=True/NodeDegraded")?.message;
            ensure!(message.contains("stays-down-1"), "{message}");
            ensure!(view.in_slot() == ["stays-down-1"], "{view}");
            Ok(())
        })
        .await?;
    ensure!(fleet.reboots() == [0, 0], "{:?}", fleet.reboots());
    // It comes back by itself, and heals.
    fleet.plan(1, |plan| plan.boot = Boot::Go);
    let view = fleet.until_updated(B).await?;
    view.pool_is("Degraded=False/OK")?;
    fleet.finish().await
}

async fn blocked_drain(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "blocked-drain", 1, json!({})).await?;
    let budgets = Api::<PodDisruptionBudget>::namespaced(fleet.client(), "blocked-drain");
    fleet
        .workload("blocked-drain-1", json!({ "app": "guarded" }))
        .await?;
    let budget: PodDisruptionBudget = serde_json::from_value(json!({
        "metadata": { "name": "guard" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "guarded" } } },
    }))?;
    budgets.create(&PostParams::default(), &budget).await?;
    fleet.want(B).await?;
    fleet
        .until("the drain says what it waits for", |view| {
            let waiting = view.node_condition("blocked-drain-1", "Waiting")?;
            ensure!(waiting.status == "True", "{view}");
            ensure!(
                waiting
                    .message
                    .contains("PodDisruptionBudget blocked-drain/guard"),
                "{view}"
            );
            ensure!(view.cordoned() == ["blocked-drain-1"], "{view}");
            Ok(())
        })
        .await?;
    ensure!(fleet.reboots() == [0]);
    budgets.delete("guard", &DeleteParams::default()).await?;
    fleet.until_updated(B).await?;
    fleet
        .until("nothing is waited for any more", |view| {
            let waiting = view.node_condition("blocked-drain-1", "Waiting")?;
            ensure!(waiting.status == "False", "{view}");
            Ok(())
        })
        .await?;
    fleet.finish().await
}

/// The witness wants the node cordoned and empty when it is approved.
async fn uncordoned(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "uncordoned", 1, json!({})).await?;
    let budgets = Api::<PodDisruptionBudget>::namespaced(fleet.client(), "uncordoned");
    fleet
        .workload("uncordoned-1", json!({ "app": "guarded" }))
        .await?;
    let budget: PodDisruptionBudget = serde_json::from_value(json!({
        "metadata": { "name": "guard" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "guarded" } } },
    }))?;
    budgets.create(&PostParams::default(), &budget).await?;
    fleet.want(B).await?;
    let cordoned = |view: &api_tests::fleet::View| {
        ensure!(view.cordoned() == ["uncordoned-1"], "{view}");
        Ok(())
    };
    fleet.until("it is cordoned", cordoned).await?;
    fleet.cordon(1, false).await?;
    fleet.until("it is cordoned again", cordoned).await?;
    fleet
        .workload("uncordoned-1", json!({}))
        .await
        .context("a pod that came in between")?;
    budgets.delete("guard", &DeleteParams::default()).await?;
    fleet.until_updated(B).await?;
    fleet.finish().await
}

async fn not_ready(suite: Arc<Suite>) -> Result<()> {
    let rollout = json!({ "maxUnavailable": 2 });
    let fleet = Fleet::settled(&suite, "not-ready", 3, rollout).await?;
    fleet.node_ready(1, false).await?;
    fleet.want(B).await?;
    fleet
        .until("the others are updated", |view| {
            ensure!(
                view.cordoned().is_empty() && view.in_slot().is_empty(),
                "{view}"
            );
            view.counts([3, 2, 1, 0])
        })
        .await?;
    ensure!(fleet.reboots() == [0, 1, 1], "{:?}", fleet.reboots());
    // The one that is down anyway takes one of the two slots' room.
    ensure!(
        fleet.most_slots() == 1,
        "{} slots at once",
        fleet.most_slots()
    );
    fleet.node_ready(1, true).await?;
    fleet.until_updated(B).await?;
    fleet.finish().await
}
