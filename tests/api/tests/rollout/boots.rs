//! Approvals hold for one boot; what a boot brought decides whether the image is tried again.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use api_tests::{
    Fleet, Suite,
    fleet::{A, B, Boot, Stage},
};
use crd::{BootcNode, DesiredImageState, names};
use libtest_mimic::Trial;
use serde_json::json;

use crate::phases::{Phase, held_in, unguard};

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial(
            "boots::after_an_admins_rollback_nobody_reboots_without_a_slot",
            rolled_back,
        ),
        suite.trial(
            "boots::a_power_cut_before_finalization_is_tried_again",
            power_cut,
        ),
        suite.trial(
            "boots::three_lost_updates_are_enough_until_a_person_asks",
            lost_updates,
        ),
        suite.trial(
            "boots::a_fall_back_is_tried_again_when_a_person_asks",
            asked,
        ),
        suite.trial("boots::somebody_reboots_into_the_staged_image", by_hand),
        suite.trial("boots::a_third_image_keeps_the_slot", third_image),
        suite.trial(
            "boots::somebody_reboots_a_node_that_is_cordoned",
            async |suite| in_slot_by_hand(suite, Phase::Cordoned).await,
        ),
        suite.trial(
            "boots::somebody_reboots_a_node_in_mid_drain",
            async |suite| in_slot_by_hand(suite, Phase::Draining).await,
        ),
        suite.trial(
            "boots::an_image_dropped_in_mid_drain_is_staged_again_before_the_reboot",
            dropped,
        ),
        suite.trial(
            "boots::an_image_dropped_before_its_turn_is_staged_again",
            dropped_early,
        ),
        suite.trial(
            "boots::a_digest_of_the_platform_is_the_images_own",
            multi_arch,
        ),
    ]
}

fn is_approved(node: &BootcNode) -> bool {
    node.spec.desired_image_state == DesiredImageState::Booted
}

/// The approval of the update is still in the spec, and void: its boot is over.
async fn rolled_back(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "rolled-back", 1, json!({})).await?;
    fleet.want(B).await?;
    let view = fleet.until_updated(B).await?;
    let node = view.bootc.get("rolled-back-1").context("no BootcNode")?;
    ensure!(is_approved(node) && node.spec.approved_boot.as_deref() == Some("boot-1"));
    fleet.pause(true).await?;
    let seen = fleet.history(1).len();
    fleet.boot_into(1, A).await?;
    fleet
        .until("B is staged again, and that is all", |view| {
            ensure!(view.states() == ["Staged"], "{view}");
            view.counts([1, 0, 1, 0])?;
            view.pool_is("UpToDate=False/Paused").map(drop)
        })
        .await?;
    let since: Vec<_> = fleet.history(1).into_iter().skip(seen).collect();
    let approvals = since
        .iter()
        .filter(|node| is_approved(node) && node.spec.approved_boot.as_deref() != Some("boot-1"));
    ensure!(
        approvals.count() == 0,
        "approved while the pool is paused: {since:?}"
    );
    fleet.rebooted(&[2])?;
    fleet.pause(false).await?;
    fleet.until_updated(B).await?;
    fleet.rebooted(&[3])?;
    fleet.finish().await
}

/// The slot is kept, and the node is drained anew: the witness looks.
async fn power_cut(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "power-cut", 2, json!({})).await?;
    fleet.plan(1, |plan| plan.boot = Boot::Hold);
    fleet.want_staged(B).await?;
    fleet.until_states(&["Rebooting", "Staged"]).await?;
    let before = fleet.history(1).len();
    fleet.plan_once(1, Boot::PowerCut);
    let view = fleet.until_updated(B).await?;
    view.pool_is("Degraded=False/OK")?;
    fleet.rebooted(&[2, 1])?;
    let approvals: Vec<_> = fleet.history(1).into_iter().skip(before).collect();
    let boots: std::collections::BTreeSet<_> = approvals
        .iter()
        .filter(|node| is_approved(node))
        .filter_map(|node| node.spec.approved_boot.clone())
        .collect();
    ensure!(
        boots.contains("boot-2"),
        "no approval for the second boot: {boots:?}"
    );
    fleet.used_slots(1..=1)?;
    fleet.finish().await
}

async fn lost_updates(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "lost-updates", 1, json!({})).await?;
    fleet.plan(1, |plan| plan.boot = Boot::PowerCut);
    fleet.want(B).await?;
    fleet
        .until("it is given up and told", |view| {
            let message = view.pool_is("Degraded=True/NodeDegraded")?.message;
            ensure!(message.contains("lost-updates-1"), "{message}");
            ensure!(message.contains(names::ANNOTATION_RETRY), "{message}");
            view.counts([1, 0, 0, 1])
        })
        .await?;
    fleet.rebooted(&[3])?;
    fleet.plan(1, |plan| plan.boot = Boot::Go);
    fleet.retry(&[1]).await?;
    fleet.until_updated(B).await?;
    fleet.rebooted(&[4])?;
    fleet.finish().await
}

async fn asked(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "asked", 2, json!({})).await?;
    fleet.plan(1, |plan| plan.boot = Boot::FallBack);
    fleet.want_staged(B).await?;
    fleet
        .until("the fall-back is told", |view| {
            let message = view.pool_is("Degraded=True/NodeDegraded")?.message;
            ensure!(message.contains("asked-1"), "{message}");
            ensure!(view.in_slot() == ["asked-1"], "{view}");
            Ok(())
        })
        .await?;
    fleet.rebooted(&[1, 0])?;
    // Asking for another node is no request for this one.
    fleet.retry(&[2]).await?;
    fleet.plan(1, |plan| plan.boot = Boot::Go);
    fleet
        .until("the request is noted on the other one", |view| {
            let noted = |node: &BootcNode| {
                kube::ResourceExt::annotations(node).contains_key(names::ANNOTATION_RETRY)
            };
            let all: Vec<_> = view.bootc.values().map(noted).collect();
            ensure!(all == [false, true], "{all:?}");
            Ok(())
        })
        .await?;
    fleet.rebooted(&[1, 0])?;
    fleet.retry(&[1, 2]).await?;
    fleet.until_updated(B).await?;
    fleet.rebooted(&[2, 1])?;
    fleet.finish().await
}

async fn by_hand(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "by-hand", 2, json!({ "paused": true })).await?;
    fleet.want(B).await?;
    fleet.until_states(&["Staged", "Staged"]).await?;
    fleet.boot_into(2, B).await?;
    fleet
        .until("the second one counts as updated", |view| {
            view.counts([2, 1, 1, 0])
        })
        .await?;
    fleet.used_slots(..=0)?;
    fleet.pause(false).await?;
    fleet.until_updated(B).await?;
    fleet.rebooted(&[1, 1])?;
    fleet.finish().await
}

async fn third_image(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "third-image", 2, json!({})).await?;
    fleet.plan(1, |plan| plan.boot = Boot::Hold);
    fleet.want_staged(B).await?;
    fleet.until_states(&["Rebooting", "Staged"]).await?;
    fleet.boot_into(1, api_tests::fleet::C).await?;
    fleet.plan_all(|plan| plan.boot = Boot::Go);
    fleet.until_updated(B).await?;
    fleet.rebooted(&[2, 1])?;
    fleet.used_slots(1..=1)?;
    fleet.finish().await
}

/// What holds the node up is not waited for any more, and nobody is evicted for nothing.
async fn in_slot_by_hand(suite: Arc<Suite>, phase: Phase) -> Result<()> {
    let name = format!("by-hand-{}", phase.name());
    let fleet = held_in(&suite, &name, phase).await?;
    fleet.boot_into(1, B).await?;
    fleet.until_updated(B).await?;
    fleet.rebooted(&[1, 1])?;
    fleet.used_slots(1..=1)?;
    let approved = fleet
        .history(1)
        .iter()
        .filter(|node| is_approved(node))
        .count();
    ensure!(approved == 0, "a reboot was approved after it");
    unguard(&fleet, &name).await?;
    fleet.finish().await
}

/// It is drained meanwhile, and keeps its slot.
async fn dropped(suite: Arc<Suite>) -> Result<()> {
    let fleet = held_in(&suite, "dropped", Phase::Draining).await?;
    fleet.plan(1, |plan| plan.stage = Stage::Hold);
    fleet.unstage(1);
    fleet.until_states(&["Staging", "Staged"]).await?;
    unguard(&fleet, "dropped").await?;
    fleet
        .until("it is drained", |view| {
            let waiting = view.node_condition("dropped-1", "Waiting")?;
            ensure!(!waiting.message.contains("PodDisruptionBudget"), "{view}");
            Ok(())
        })
        .await?;
    let view = fleet.view().await?;
    ensure!(
        view.in_slot() == ["dropped-1"] && view.cordoned() == ["dropped-1"],
        "{view}"
    );
    let approved = fleet
        .history(1)
        .iter()
        .filter(|node| is_approved(node))
        .count();
    ensure!(approved == 0, "approved, and not staged: {view}");
    fleet.plan(1, |plan| plan.stage = Stage::Go);
    fleet.until_updated(B).await?;
    fleet.rebooted(&[1, 1])?;
    fleet.used_slots(1..=1)?;
    fleet.finish().await
}

async fn dropped_early(suite: Arc<Suite>) -> Result<()> {
    let fleet = held_in(&suite, "dropped-early", Phase::Staged).await?;
    fleet.plan(1, |plan| plan.stage = Stage::Hold);
    fleet.unstage(1);
    fleet.until_states(&["Staging", "Staged"]).await?;
    fleet.pause(false).await?;
    fleet
        .until("the other one is updated first", |view| {
            view.counts([2, 1, 1, 0])
        })
        .await?;
    fleet.rebooted(&[0, 1])?;
    fleet.plan(1, |plan| plan.stage = Stage::Go);
    fleet.until_updated(B).await?;
    fleet.rebooted(&[1, 1])?;
    fleet.finish().await
}

/// The pool names the index; the host names what it pulled, and the index in its reference.
async fn multi_arch(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::new(&suite, "multi-arch", 2).await?;
    fleet.plan_all(|plan| plan.multi_arch = true);
    fleet.create_pool("multi-arch", json!({})).await?;
    fleet.until_updated(A).await?;
    fleet.rebooted(&[0, 0])?;
    fleet.want(B).await?;
    let view = fleet.until_updated(B).await?;
    view.pool_is("Degraded=False/OK")?;
    fleet.rebooted(&[1, 1])?;
    fleet.finish().await
}
