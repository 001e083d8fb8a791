//! A new image reaches every node, a few at a time, each drained before and healthy after.

use std::sync::Arc;

use anyhow::{Result, ensure};
use api_tests::{
    Fleet, Suite,
    fleet::{B, Boot, C, Stage, digest},
};
use crd::names;
use kube::ResourceExt as _;
use libtest_mimic::Trial;
use serde_json::json;

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial("rollout::one_node_at_a_time", one_at_a_time),
        suite.trial(
            "rollout::never_more_slots_than_max_unavailable",
            slots_in_use,
        ),
        suite.trial("rollout::a_percentage_is_rounded_up", percentage),
        suite.trial("rollout::max_unavailable_zero_is_a_pause", zero),
        suite.trial("rollout::paused_stages_and_reboots_nothing", paused),
        suite.trial("rollout::a_pause_lets_slot_holders_finish", paused_midway),
        suite.trial("rollout::a_new_image_resets_what_was_staged", another_image),
        suite.trial("rollout::the_message_breaks_the_pool_down", breakdown),
        suite.trial("rollout::a_restarted_operator_goes_on", restarted),
        suite.trial("rollout::a_killed_operator_loses_nothing", killed),
    ]
}

async fn one_at_a_time(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "one-at-a-time", 3, json!({})).await?;
    fleet.view().await?.counts([3, 3, 0, 0])?;
    fleet.want(B).await?;
    let view = fleet.until_updated(B).await?;
    view.counts([3, 3, 0, 0])?;
    view.pool_is("Degraded=False/OK")?;
    ensure!(!view.status().update_available);
    ensure!(view.status().target_digest == Some(digest(B)));
    let generation = view.pool.as_ref().and_then(|pool| pool.metadata.generation);
    ensure!(view.status().observed_generation == generation);
    ensure!(view.in_slot().is_empty(), "slots are held: {view}");
    // What is left on the Nodes: nothing of the rollout.
    for (name, node) in &view.nodes {
        let note = node.annotations().get(names::ANNOTATION_CORDONED_BY);
        ensure!(note.is_none(), "{name} is said to be cordoned by {note:?}");
    }
    fleet.rebooted(&[1, 1, 1])?;
    fleet.used_slots(1..=1)?;
    fleet.finish().await
}

async fn slots_in_use(suite: Arc<Suite>) -> Result<()> {
    let rollout = json!({ "maxUnavailable": 2 });
    let fleet = Fleet::settled(&suite, "slots-in-use", 4, rollout).await?;
    fleet.plan_all(|plan| plan.boot = Boot::Hold);
    fleet.want_staged(B).await?;
    let both = ["slots-in-use-1", "slots-in-use-2"];
    fleet
        .until("two nodes reboot, in name order", |view| {
            ensure!(
                view.states() == ["Rebooting", "Rebooting", "Staged", "Staged"],
                "{view}"
            );
            ensure!(view.in_slot() == both && view.cordoned() == both, "{view}");
            view.counts([4, 0, 4, 0])
        })
        .await?;
    // Lowering the limit throws nobody out, and lets nobody in before there is room.
    fleet
        .spec(json!({ "rollout": { "maxUnavailable": 1 } }))
        .await?;
    fleet.plan(1, |plan| plan.boot = Boot::Go);
    fleet
        .until("one node is done", |view| {
            ensure!(view.in_slot() == ["slots-in-use-2"], "{view}");
            view.counts([4, 1, 3, 0])
        })
        .await?;
    fleet.plan_all(|plan| plan.boot = Boot::Go);
    fleet.until_updated(B).await?;
    fleet.used_slots(2..=2)?;
    fleet.finish().await
}

async fn percentage(suite: Arc<Suite>) -> Result<()> {
    let rollout = json!({ "maxUnavailable": "34%" });
    let fleet = Fleet::settled(&suite, "percentage", 3, rollout).await?;
    fleet.plan_all(|plan| plan.boot = Boot::Hold);
    fleet.want_staged(B).await?;
    fleet
        .until_states(&["Rebooting", "Rebooting", "Staged"])
        .await?;
    fleet.plan_all(|plan| plan.boot = Boot::Go);
    fleet.until_updated(B).await?;
    fleet.used_slots(2..=2)?;
    fleet.finish().await
}

async fn zero(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "zero", 2, json!({ "maxUnavailable": 0 })).await?;
    fleet.want(B).await?;
    fleet
        .until("it stages and says that it is paused", |view| {
            ensure!(view.states() == ["Staged", "Staged"], "{view}");
            view.pool_is("UpToDate=False/Paused").map(drop)
        })
        .await?;
    fleet.used_slots(..=0)?;
    fleet
        .spec(json!({ "rollout": { "maxUnavailable": 1 } }))
        .await?;
    fleet.until_updated(B).await?;
    fleet.finish().await
}

async fn paused(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "paused", 2, json!({})).await?;
    fleet.pause(true).await?;
    fleet.want(B).await?;
    let view = fleet
        .until("both nodes are staged", |view| {
            ensure!(view.states() == ["Staged", "Staged"], "{view}");
            view.pool_is("UpToDate=False/Paused").map(drop)
        })
        .await?;
    ensure!(view.cordoned().is_empty(), "{view}");
    ensure!(fleet.reboots() == [0, 0] && fleet.most_slots() == 0);
    fleet.pause(false).await?;
    fleet.until_updated(B).await?;
    fleet.finish().await
}

async fn paused_midway(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "paused-midway", 2, json!({})).await?;
    fleet.plan(1, |plan| plan.boot = Boot::Hold);
    fleet.want_staged(B).await?;
    fleet.until_states(&["Rebooting", "Staged"]).await?;
    fleet.pause(true).await?;
    fleet.plan(1, |plan| plan.boot = Boot::Go);
    let view = fleet
        .until("the first node is done", |view| {
            view.pool_is("UpToDate=False/Paused")?;
            ensure!(
                view.cordoned().is_empty() && view.in_slot().is_empty(),
                "{view}"
            );
            view.counts([2, 1, 1, 0])
        })
        .await?;
    ensure!(view.states() == ["Idle", "Staged"], "{view}");
    fleet.rebooted(&[1, 0])?;
    fleet.pause(false).await?;
    fleet.until_updated(B).await?;
    fleet.finish().await
}

/// The witness sees to it that no write has another image without the reset of its state.
async fn another_image(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "another-image", 3, json!({})).await?;
    fleet.plan_all(|plan| plan.boot = Boot::Hold);
    fleet.want_staged(B).await?;
    fleet
        .until_states(&["Rebooting", "Staged", "Staged"])
        .await?;
    fleet.want(C).await?;
    fleet.until_told(C).await?;
    fleet.plan_all(|plan| plan.boot = Boot::Go);
    fleet.until_updated(C).await?;
    // The approval of B was revoked before the host acted on it: nobody booted B in vain.
    fleet.rebooted(&[1, 1, 1])?;
    fleet.used_slots(1..=1)?;
    fleet.finish().await
}

async fn breakdown(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "breakdown", 4, json!({})).await?;
    fleet.plan(2, |plan| plan.boot = Boot::Hold);
    fleet.plan(4, |plan| plan.stage = Stage::Hold);
    fleet.pause(true).await?;
    fleet.want(B).await?;
    fleet
        .until_states(&["Staged", "Staged", "Staged", "Staging"])
        .await?;
    fleet.pause(false).await?;
    fleet
        .until("each node is counted where it stands", |view| {
            let message = view.pool_is("UpToDate=False/RolloutInProgress")?.message;
            let wanted = "1/4 updated; 1 staging, 1 staged, 1 rebooting";
            ensure!(message == wanted, "{view}");
            view.counts([4, 1, 3, 0])
        })
        .await?;
    fleet.plan_all(|plan| (plan.boot, plan.stage) = (Boot::Go, Stage::Go));
    let view = fleet.until_updated(B).await?;
    ensure!(
        view.pool_is("UpToDate=True/AllUpdated")?.message.is_empty(),
        "{view}"
    );
    fleet.finish().await
}

async fn restarted(suite: Arc<Suite>) -> Result<()> {
    let fleet = halfway(&suite, "restarted").await?;
    suite.operator.restart(&suite, async { Ok(()) }).await?;
    go_on(fleet).await
}

/// Aborted in the middle of its work, the next one waits for the Lease to run out.
async fn killed(suite: Arc<Suite>) -> Result<()> {
    let fleet = halfway(&suite, "killed").await?;
    let turn = suite.operator.turn().await;
    suite.operator.kill().await?;
    // The host comes back while nobody looks.
    fleet.plan(1, |plan| plan.boot = Boot::Go);
    suite.operator.start(&suite).await?;
    drop(turn);
    go_on(fleet).await
}

async fn halfway(suite: &Arc<Suite>, name: &str) -> Result<Fleet> {
    let fleet = Fleet::settled(suite, name, 3, json!({})).await?;
    fleet.plan(1, |plan| plan.boot = Boot::Hold);
    fleet.want_staged(B).await?;
    fleet
        .until_states(&["Rebooting", "Staged", "Staged"])
        .await?;
    Ok(fleet)
}

async fn go_on(fleet: Fleet) -> Result<()> {
    fleet.plan_all(|plan| plan.boot = Boot::Go);
    fleet.until_updated(B).await?;
    fleet.rebooted(&[1, 1, 1])?;
    fleet.used_slots(1..=1)?;
    fleet.finish().await
}
