//! What a pool's numbers say: how many at once, how long at least, how long at most.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use api_tests::{
    Fleet, Suite,
    fleet::{B, Boot, Stage, View, reference},
};
use crd::names;
use libtest_mimic::Trial;
use serde_json::json;
use tokio::time::Instant;

use crate::phases::{guard, unguard};

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial("limits::so_many_stage_at_once_and_no_more", staging),
        suite.trial("limits::a_node_must_be_ready_for_so_long", min_ready),
        suite.trial(
            "limits::control_plane_nodes_go_one_at_a_time_over_all_pools",
            control_plane,
        ),
        suite.trial("limits::timeouts_run_across_a_restart", timeouts),
    ]
}

fn told_to_run_b(view: &View) -> usize {
    let wanted = reference(B);
    let told = |node: &&crd::BootcNode| node.spec.desired_image.as_deref() == Some(&wanted);
    view.bootc.values().filter(told).count()
}

async fn staging(suite: Arc<Suite>) -> Result<()> {
    let rollout = json!({ "maxConcurrentStaging": "50%", "maxUnavailable": 0 });
    let fleet = Fleet::settled(&suite, "staging-room", 3, rollout).await?;
    fleet.plan_all(|plan| plan.stage = Stage::Hold);
    fleet.want(B).await?;
    fleet
        .until("half of three, which is two, stage", |view| {
            let message = view.pool_is("UpToDate=False/Paused")?.message;
            ensure!(
                message.starts_with("0/3 updated; 1 pending, 2 staging"),
                "{message}"
            );
            ensure!(told_to_run_b(view) == 2, "{view}");
            Ok(())
        })
        .await?;
    // One that is done makes room for the third.
    fleet.plan(1, |plan| plan.stage = Stage::Go);
    fleet
        .until_states(&["Staged", "Staging", "Staging"])
        .await?;
    fleet.plan_all(|plan| plan.stage = Stage::Go);
    fleet
        .spec(json!({ "rollout": { "maxUnavailable": 1 } }))
        .await?;
    fleet.until_updated(B).await?;
    fleet.finish().await
}

/// Only the lower bound is looked at.
async fn min_ready(suite: Arc<Suite>) -> Result<()> {
    let rollout = json!({ "minReadySeconds": 6 });
    let fleet = Fleet::settled(&suite, "min-ready", 1, rollout).await?;
    fleet.plan(1, |plan| plan.boot = Boot::Hold);
    fleet.want(B).await?;
    fleet.until_states(&["Rebooting"]).await?;
    let before = Instant::now();
    fleet.plan(1, |plan| plan.boot = Boot::Go);
    fleet
        .until("it has to show that it is well", |view| {
            let message = view.pool_is("UpToDate=False/RolloutInProgress")?.message;
            ensure!(message == "0/1 updated; 1 verifying", "{message}");
            ensure!(view.in_slot() == ["min-ready-1"], "{view}");
            Ok(())
        })
        .await?;
    fleet.until_updated(B).await?;
    // Kubernetes cuts times to whole seconds.
    ensure!(
        before.elapsed() >= Duration::from_secs(5),
        "{:?}",
        before.elapsed()
    );
    fleet.finish().await
}

async fn control_plane(suite: Arc<Suite>) -> Result<()> {
    let one = Fleet::new(&suite, "control-one", 1).await?;
    let two = Fleet::new(&suite, "control-two", 2).await?;
    for (fleet, name, nodes) in [(&one, "control-one", 1), (&two, "control-two", 2)] {
        for n in 1..=nodes {
            let label = json!({ names::LABEL_CONTROL_PLANE: "" });
            fleet
                .patch_node(n, json!({ "metadata": { "labels": label } }))
                .await?;
        }
        fleet
            .create_pool(name, json!({ "maxUnavailable": 2 }))
            .await?;
        fleet.until_updated(api_tests::fleet::A).await?;
    }
    one.plan_all(|plan| plan.boot = Boot::Hold);
    one.want(B).await?;
    one.until_states(&["Rebooting"]).await?;
    two.want(B).await?;
    two.until_states(&["Staged", "Staged"]).await?;
    // Ready=False on one of the others would keep the rest up as well.
    one.plan_all(|plan| plan.boot = Boot::NotReady);
    one.until("it is up again, and not Ready", |view| {
        ensure!(
            view.states() == ["Idle"] && view.in_slot().len() == 1,
            "{view}"
        );
        Ok(())
    })
    .await?;
    two.used_slots(..=0)?;
    one.node_ready(1, true).await?;
    one.until_updated(B).await?;
    two.until_updated(B).await?;
    two.used_slots(1..=1)?;
    one.finish().await?;
    two.finish().await
}

/// Of a drain and of a reboot. The operator is away in between.
async fn timeouts(suite: Arc<Suite>) -> Result<()> {
    let late_drain = json!({ "drainTimeoutSeconds": 10 });
    let drains = Fleet::settled(&suite, "late-drain", 2, late_drain).await?;
    let late_reboot = json!({ "rebootTimeoutSeconds": 10 });
    let reboots = Fleet::settled(&suite, "late-reboot", 1, late_reboot).await?;
    guard(&drains, "late-drain", 1).await?;
    reboots.plan(1, |plan| plan.boot = Boot::Lost);
    drains.want_staged(B).await?;
    reboots.want(B).await?;
    drains
        .until("the first one is drained", |view| {
            ensure!(view.cordoned() == ["late-drain-1"], "{view}");
            Ok(())
        })
        .await?;
    reboots.until_states(&["Rebooting"]).await?;
    suite.operator.restart(&suite, async { Ok(()) }).await?;
    // The slot goes to the other node, and the first one is left alone until a person asks.
    drains
        .until("the drain is given up", |view| {
            let message = view.pool_is("Degraded=True/NodeDegraded")?.message;
            ensure!(message.contains("late-drain-1"), "{message}");
            ensure!(message.contains("drainTimeoutSeconds"), "{message}");
            ensure!(
                view.cordoned().is_empty() && view.in_slot().is_empty(),
                "{view}"
            );
            view.counts([2, 1, 0, 1])
        })
        .await?;
    reboots
        .until("the reboot is late", |view| {
            let message = view.pool_is("Degraded=True/NodeDegraded")?.message;
            ensure!(
                message.contains("late-reboot-1: not back 10 seconds"),
                "{message}"
            );
            ensure!(view.in_slot() == ["late-reboot-1"], "{view}");
            Ok(())
        })
        .await?;
    unguard(&drains, "late-drain").await?;
    drains.retry(&[1]).await?;
    drains.until_updated(B).await?;
    reboots.plan(1, |plan| plan.boot = Boot::Go);
    reboots.until_updated(B).await?;
    drains.finish().await?;
    reboots.finish().await
}
