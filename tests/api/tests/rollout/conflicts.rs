//! Several pools that claim one node: all say so, none goes on there, and whoever gives in heals it.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use api_tests::{
    Fleet, Suite,
    fleet::{B, Boot},
    wait,
};
use crd::BootcNodePool;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use libtest_mimic::Trial;
use serde_json::json;

use crate::phases::{Phase, held_in, unguard};

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial("conflicts::all_of_three_pools_name_the_others", three),
        suite.trial("conflicts::what_was_approved_finishes", approved),
        suite.trial(
            "conflicts::what_was_not_approved_gives_its_slot_back",
            not_approved,
        ),
        suite.trial("conflicts::a_selector_or_a_label_heals_it", healed),
    ]
}

fn pools(fleet: &Fleet) -> Api<BootcNodePool> {
    Api::all(fleet.client())
}

async fn message(fleet: &Fleet, pool: &str) -> Result<String> {
    let status = pools(fleet).get(pool).await?.status.context("no status")?;
    let conflict = status
        .conditions
        .into_iter()
        .find(|it| it.reason == "NodeConflict");
    Ok(conflict
        .with_context(|| format!("{pool} has no conflict"))?
        .message)
}

async fn delete(fleet: &Fleet, pool: &str) -> Result<()> {
    pools(fleet).delete(pool, &DeleteParams::default()).await?;
    Ok(())
}

async fn three(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "three", 1, json!({})).await?;
    let all = ["three", "three-b", "three-c"];
    for pool in &all[1..] {
        fleet.create_pool(pool, json!({})).await?;
    }
    for pool in all {
        wait::until("it names the others", || async {
            let message = message(&fleet, pool).await?;
            let others = all.iter().filter(|other| **other != pool);
            let named = others.clone().all(|other| message.contains(other));
            ensure!(named && message.contains("three-1"), "{pool}: {message}");
            Ok(())
        })
        .await?;
    }
    for pool in &all[1..] {
        delete(&fleet, pool).await?;
    }
    fleet
        .until("it is over", |view| {
            view.pool_is("Degraded=False/OK").map(drop)
        })
        .await?;
    fleet.finish().await
}

async fn approved(suite: Arc<Suite>) -> Result<()> {
    let fleet = held_in(&suite, "approved", Phase::Rebooting).await?;
    fleet.create_pool("approved-rival", json!({})).await?;
    fleet
        .until("the conflict is told", |view| {
            view.pool_is("Degraded=True/NodeConflict").map(drop)
        })
        .await?;
    fleet.plan_all(|plan| plan.boot = Boot::Go);
    fleet
        .until(
            "the approved node is done, and nothing else happens",
            |view| {
                ensure!(view.states() == ["Idle", "Staged"], "{view}");
                ensure!(
                    view.in_slot().is_empty() && view.cordoned().is_empty(),
                    "{view}"
                );
                Ok(())
            },
        )
        .await?;
    fleet.rebooted(&[1, 0])?;
    delete(&fleet, "approved-rival").await?;
    fleet.until_updated(B).await?;
    fleet.rebooted(&[1, 1])?;
    fleet.finish().await
}

async fn not_approved(suite: Arc<Suite>) -> Result<()> {
    let fleet = held_in(&suite, "not-approved", Phase::Draining).await?;
    fleet.create_pool("not-approved-rival", json!({})).await?;
    fleet
        .until("slot and cordon are given back", |view| {
            view.pool_is("Degraded=True/NodeConflict")?;
            ensure!(
                view.in_slot().is_empty() && view.cordoned().is_empty(),
                "{view}"
            );
            Ok(())
        })
        .await?;
    unguard(&fleet, "not-approved").await?;
    fleet.rebooted(&[0, 0])?;
    delete(&fleet, "not-approved-rival").await?;
    fleet.until_updated(B).await?;
    fleet.rebooted(&[1, 1])?;
    fleet.finish().await
}

async fn healed(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "quarrel", 2, json!({})).await?;
    fleet.create_pool("quarrel-rival", json!({})).await?;
    let conflict =
        |view: &api_tests::fleet::View| view.pool_is("Degraded=True/NodeConflict").map(drop);
    let over = |view: &api_tests::fleet::View| {
        view.pool_is("Degraded=False/OK")?;
        view.counts([2, 2, 0, 0])
    };
    fleet.until("the conflict is told", conflict).await?;
    // The rival selects others: by its own selector, then again by what the nodes say.
    let apart =
        json!({ "spec": { "nodeSelector": { "matchLabels": { "test.bootc.dev/side": "left" } } } });
    pools(&fleet)
        .patch(
            "quarrel-rival",
            &PatchParams::default(),
            &Patch::Merge(apart),
        )
        .await?;
    fleet.until("the selector heals it", over).await?;
    let side = |side: &str| json!({ "metadata": { "labels": { "test.bootc.dev/side": side } } });
    fleet.patch_node(2, side("left")).await?;
    fleet
        .until("the label makes a conflict", |view| {
            conflict(view)?;
            let message = view.condition("Degraded")?.message;
            ensure!(
                message.contains("quarrel-2") && !message.contains("quarrel-1"),
                "{message}"
            );
            Ok(())
        })
        .await?;
    fleet.patch_node(2, side("right")).await?;
    fleet.until("the label heals it", over).await?;
    delete(&fleet, "quarrel-rival").await?;
    fleet.finish().await
}
