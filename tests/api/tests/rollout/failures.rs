//! What goes wrong on one node stops nobody else, is told, and heals; two at once stop the pool.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use api_tests::{
    Fleet, Suite,
    fleet::{B, Boot, C, Stage},
    kubelet, wait,
};
use k8s_openapi::api::{core::v1::Pod, policy::v1::PodDisruptionBudget};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use libtest_mimic::Trial;
use serde_json::json;

use crate::phases::{NO_CORDON, forbid_cordon, guard, unguard};

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
        suite.trial(
            "failures::every_pod_that_holds_a_drain_up_is_named_on_node_and_pool",
            held_up,
        ),
        suite.trial(
            "failures::a_node_that_cannot_be_cordoned_is_told_and_stops_nobody",
            no_cordon,
        ),
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
    fleet.rebooted(&[1, 1, 1, 0, 0])?;
    // Both recover, and it goes on by itself.
    for n in [1, 2] {
        fleet.node_ready(n, true).await?;
    }
    let view = fleet.until_updated(B).await?;
    view.pool_is("Degraded=False/OK")?;
    fleet.rebooted(&[1; 5])?;
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
    fleet.rebooted(&[1, 1, 1])?;
    // Another image is another try.
    fleet.plan_all(|plan| plan.boot = Boot::Go);
    fleet.want(C).await?;
    let view = fleet.until_updated(C).await?;
    view.pool_is("Degraded=False/OK")?;
    fleet.rebooted(&[2, 2, 2])?;
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
    fleet.rebooted(&[0, 0])?;
    // It comes back by itself, and heals.
    fleet.plan(1, |plan| plan.boot = Boot::Go);
    let view = fleet.until_updated(B).await?;
    view.pool_is("Degraded=False/OK")?;
    fleet.finish().await
}

async fn blocked_drain(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "blocked-drain", 1, json!({})).await?;
    guard(&fleet, "blocked-drain", 1).await?;
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
    fleet.rebooted(&[0])?;
    unguard(&fleet, "blocked-drain").await?;
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

/// One by a budget, one by two of them, one by a finalizer, one by its grace period.
async fn held_up(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "held-up", 1, json!({})).await?;
    let node = fleet.node(1);
    guard(&fleet, "held-up", 1).await?;
    let named = |name: &str, change: serde_json::Value| {
        let mut pod = json!({ "metadata": { "generateName": null, "name": name } });
        api_tests::hosts::merge(&mut pod, change);
        pod
    };
    let labels = json!({ "metadata": { "labels": { "app": "twice" } } });
    fleet.pod(&node, named("twice", labels)).await?;
    let budgets = Api::<PodDisruptionBudget>::namespaced(fleet.client(), "held-up");
    for name in ["one", "two"] {
        let budget = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "twice" } } },
        }))?;
        budgets.create(&PostParams::default(), &budget).await?;
    }
    let kept = json!({ "metadata": { "finalizers": ["test.example.com/backup"] } });
    fleet.pod(&node, named("kept", kept)).await?;
    let slow = json!({
        "metadata": { "annotations": { kubelet::HOLDS: "" } },
        "spec": { "terminationGracePeriodSeconds": 3600 },
    });
    fleet.pod(&node, named("slow", slow)).await?;
    fleet.want(B).await?;
    let words = [
        "PodDisruptionBudget held-up/guard allows 0 disruptions",
        "held-up/twice: more than one PodDisruptionBudget",
        "held-up/kept: still there after its 0 s to stop, held by finalizers test.example.com/backup",
        "held-up/slow (shutting down)",
    ];
    let all = |message: &str| -> Result<()> {
        for part in words {
            ensure!(message.contains(part), "`{part}` is not in: {message}");
        }
        Ok(())
    };
    // The news of one cause come every 30 seconds.
    fleet
        .until("node and pool name all of them", |view| {
            all(&view.node_condition("held-up-1", "Waiting")?.message)?;
            all(&view.pool_is("UpToDate=False/RolloutInProgress")?.message)
        })
        .await?;
    fleet.rebooted(&[0])?;
    let pods = Api::<Pod>::namespaced(fleet.client(), "held-up");
    unguard(&fleet, "held-up").await?;
    for name in ["one", "two"] {
        budgets
            .delete(name, &kube::api::DeleteParams::default())
            .await?;
    }
    let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    pods.patch("kept", &PatchParams::default(), &free).await?;
    wait::until("all but the slow one are gone", || async {
        let left = pods.list(&ListParams::default()).await?.items.len();
        ensure!(left == 1, "{left} pods");
        Ok(())
    })
    .await?;
    let now = kube::api::DeleteParams::default().grace_period(0);
    pods.delete("slow", &now).await?;
    let view = fleet.until_updated(B).await?;
    let message = view.pool_is("UpToDate=True/AllUpdated")?.message;
    ensure!(message.is_empty(), "{message}");
    fleet.finish().await
}

async fn no_cordon(suite: Arc<Suite>) -> Result<()> {
    let rollout = json!({ "maxUnavailable": 2 });
    let fleet = Fleet::settled(&suite, "no-cordon", 2, rollout).await?;
    forbid_cordon(&fleet, "no-cordon", 1).await?;
    fleet.want(B).await?;
    fleet
        .until("it is told, and the other one is updated", |view| {
            let message = view.pool_is("Degraded=True/NodeDegraded")?.message;
            ensure!(
                message.contains("no-cordon-1") && message.contains(NO_CORDON),
                "{message}"
            );
            view.counts([2, 1, 0, 1])
        })
        .await?;
    fleet.rebooted(&[0, 1])?;
    unguard(&fleet, "no-cordon").await?;
    let view = fleet.until_updated(B).await?;
    view.pool_is("Degraded=False/OK")?;
    fleet.rebooted(&[1, 1])?;
    fleet.finish().await
}

/// The witness wants the node cordoned and empty when it is approved.
async fn uncordoned(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "uncordoned", 1, json!({})).await?;
    guard(&fleet, "uncordoned", 1).await?;
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
    unguard(&fleet, "uncordoned").await?;
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
    fleet.rebooted(&[0, 1, 1])?;
    // The one that is down anyway takes one of the two slots' room.
    fleet.used_slots(1..=1)?;
    fleet.node_ready(1, true).await?;
    fleet.until_updated(B).await?;
    fleet.finish().await
}
