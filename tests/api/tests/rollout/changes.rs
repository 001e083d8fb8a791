//! Whatever people change their minds about, in whichever phase: the fleet ends where they want it.

use std::sync::Arc;

use anyhow::{Result, ensure};
use api_tests::{
    Fleet, Suite,
    fleet::{A, B, C},
};
use libtest_mimic::Trial;
use serde_json::json;

use crate::phases::{Phase, held_in, let_go};

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    let mut trials = vec![
        suite.trial("changes::two_new_images_in_a_row", twice_in_a_row),
        suite.trial("changes::a_b_and_a_again_at_once", there_and_back),
    ];
    for phase in Phase::ALL {
        let name = phase.name();
        trials.extend([
            suite.trial(
                format!("changes::another_image_while_{name}"),
                move |suite| another(suite, phase),
            ),
            suite.trial(
                format!("changes::back_to_the_old_image_while_{name}"),
                move |suite| back(suite, phase),
            ),
            suite.trial(format!("changes::paused_while_{name}"), move |suite| {
                paused(suite, phase)
            }),
        ]);
    }
    trials
}

/// A host may have gone down for B already; nobody reboots more often than that.
async fn another(suite: Arc<Suite>, phase: Phase) -> Result<()> {
    let name = format!("another-{}", phase.name());
    let fleet = held_in(&suite, &name, phase).await?;
    fleet.want(C).await?;
    fleet.until_told(C).await?;
    let_go(&fleet, &name).await?;
    let view = fleet.until_updated(C).await?;
    view.pool_is("Degraded=False/OK")?;
    let booted_b = u32::from(phase == Phase::Verifying);
    fleet.rebooted(&[1 + booted_b, 1])?;
    fleet.used_slots(..=1)?;
    fleet.finish().await
}

async fn back(suite: Arc<Suite>, phase: Phase) -> Result<()> {
    let name = format!("back-{}", phase.name());
    let fleet = held_in(&suite, &name, phase).await?;
    fleet.want(A).await?;
    fleet.until_told(A).await?;
    let_go(&fleet, &name).await?;
    fleet.until_updated(A).await?;
    fleet
        .until("nothing is staged any more", |view| {
            let staged =
                |node: &crd::BootcNode| node.status.as_ref().is_some_and(|s| s.staged.is_some());
            ensure!(!view.bootc.values().any(staged), "{view}");
            Ok(())
        })
        .await?;
    // Only a host that runs B already has to reboot for it.
    let reboots = if phase == Phase::Verifying { 2 } else { 0 };
    fleet.rebooted(&[reboots, 0])?;
    fleet.finish().await
}

/// Slot holders finish, nobody else begins, and it goes on where it stood.
async fn paused(suite: Arc<Suite>, phase: Phase) -> Result<()> {
    let name = format!("paused-{}", phase.name());
    let fleet = held_in(&suite, &name, phase).await?;
    fleet.pause(true).await?;
    fleet
        .until("it says so", |view| {
            view.pool_is("UpToDate=False/Paused").map(drop)
        })
        .await?;
    let began = !matches!(phase, Phase::Staging | Phase::Staged);
    fleet.plan_all(|plan| *plan = api_tests::fleet::Plan::default());
    fleet.node_ready(1, true).await?;
    crate::phases::unguard(&fleet, &name).await?;
    let view = fleet
        .until("the slot holder is done", |view| {
            let states = if began {
                ["Idle", "Staged"]
            } else {
                ["Staged", "Staged"]
            };
            ensure!(view.states() == states, "{view}");
            ensure!(
                view.in_slot().is_empty() && view.cordoned().is_empty(),
                "{view}"
            );
            view.counts([2, i64::from(began), 2 - i64::from(began), 0])
        })
        .await?;
    view.pool_is("UpToDate=False/Paused")?;
    fleet.rebooted(&[u32::from(began), 0])?;
    fleet.pause(false).await?;
    fleet.until_updated(B).await?;
    fleet.rebooted(&[1, 1])?;
    fleet.finish().await
}

async fn twice_in_a_row(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "twice", 2, json!({})).await?;
    fleet.want(B).await?;
    fleet.want(C).await?;
    fleet.until_updated(C).await?;
    ensure!(
        fleet.reboots().iter().all(|n| *n <= 2),
        "{:?}",
        fleet.reboots()
    );
    fleet.finish().await
}

async fn there_and_back(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "there-and-back", 2, json!({})).await?;
    fleet.want(B).await?;
    fleet.want(A).await?;
    fleet.until_updated(A).await?;
    let view = fleet.view().await?;
    view.pool_is("Degraded=False/OK")?;
    ensure!(!view.status().update_available);
    fleet.finish().await
}
