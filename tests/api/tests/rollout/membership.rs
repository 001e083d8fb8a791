//! Which nodes belong to a pool, and what is left of it on those that do not any more.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use api_tests::{
    Fleet, Suite,
    fleet::{A, B, Boot, reference},
    hosts,
};
use crd::{BootcNode, BootcNodePool, names};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use libtest_mimic::Trial;
use serde_json::json;

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial("membership::nodes_are_labelled_and_owned", joined),
        suite.trial("membership::label_and_object_come_back", repaired),
        suite.trial("membership::a_node_that_leaves_is_let_go", left),
        suite.trial(
            "membership::a_node_that_leaves_its_slot_is_uncordoned",
            left_in_slot,
        ),
        suite.trial(
            "membership::a_deleted_node_takes_its_object_along",
            deleted_node,
        ),
        suite.trial(
            "membership::a_pool_deleted_midway_leaves_nothing",
            deleted_pool,
        ),
        suite.trial("membership::an_empty_pool_is_up_to_date", empty),
        suite.trial("membership::two_pools_that_claim_a_node_conflict", conflict),
        suite.trial(
            "membership::a_node_cordoned_before_stays_cordoned",
            cordoned_before,
        ),
    ]
}

async fn joined(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "joined", 2, json!({})).await?;
    let view = fleet.view().await?;
    ensure!(view.labelled(names::LABEL_MANAGED) == ["joined-1", "joined-2"]);
    let pool = view.pool.context("no pool")?;
    ensure!(pool.finalizers() == [names::FINALIZER_POOL_CLEANUP]);
    ensure!(view.bootc.len() == 2);
    for (name, node) in &view.bootc {
        ensure!(
            node.spec.desired_image == Some(reference(A)),
            "{name}: {:?}",
            node.spec
        );
        let [owner] = node.owner_references() else {
            anyhow::bail!("{name} has the owners {:?}", node.owner_references())
        };
        ensure!(owner.controller == Some(true) && owner.kind == "BootcNodePool");
        ensure!(Some(&owner.uid) == pool.metadata.uid.as_ref());
    }
    fleet.finish().await
}

async fn repaired(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "repaired", 1, json!({})).await?;
    let before = fleet.view().await?;
    fleet
        .patch_node(
            1,
            json!({ "metadata": { "labels": { names::LABEL_MANAGED: null } } }),
        )
        .await?;
    let nodes = Api::<BootcNode>::all(fleet.client());
    nodes.delete("repaired-1", &DeleteParams::default()).await?;
    let uid =
        |view: &api_tests::fleet::View| view.bootc.get("repaired-1").and_then(ResourceExt::uid);
    fleet
        .until("label and object are back", |view| {
            ensure!(
                view.labelled(names::LABEL_MANAGED) == ["repaired-1"],
                "{view}"
            );
            ensure!(uid(view).is_some() && uid(view) != uid(&before), "{view}");
            view.counts([1, 1, 0, 0])
        })
        .await?;
    fleet.finish().await
}

async fn left(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "left", 2, json!({})).await?;
    fleet.take_out(2).await?;
    fleet
        .until("the node is let go", |view| {
            ensure!(view.labelled(names::LABEL_MANAGED) == ["left-1"], "{view}");
            ensure!(!view.bootc.contains_key("left-2"), "{view}");
            view.counts([1, 1, 0, 0])
        })
        .await?;
    fleet.finish().await
}

async fn left_in_slot(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "left-in-slot", 2, json!({})).await?;
    fleet.plan(1, |plan| plan.boot = Boot::Hold);
    fleet.want_staged(B).await?;
    fleet.until_states(&["Rebooting", "Staged"]).await?;
    fleet.take_out(1).await?;
    // Its slot is free: the other one goes on by itself.
    fleet
        .until("the other node is updated", |view| {
            ensure!(
                view.labelled(names::LABEL_MANAGED) == ["left-in-slot-2"],
                "{view}"
            );
            ensure!(
                view.bootc.len() == 1 && view.cordoned().is_empty(),
                "{view}"
            );
            view.counts([1, 1, 0, 0])
        })
        .await?;
    fleet.finish().await
}

async fn deleted_node(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "deleted-node", 2, json!({})).await?;
    fleet.plan(1, |plan| plan.boot = Boot::Hold);
    fleet.want_staged(B).await?;
    fleet.until_states(&["Rebooting", "Staged"]).await?;
    hosts::delete_node(&suite.admin, "deleted-node-1").await?;
    fleet
        .until("its object is gone and the other one is updated", |view| {
            ensure!(view.bootc.len() == 1, "{view}");
            view.counts([1, 1, 0, 0])
        })
        .await?;
    fleet.finish().await
}

async fn deleted_pool(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "deleted-pool", 2, json!({})).await?;
    fleet.plan(1, |plan| plan.boot = Boot::Hold);
    fleet.want_staged(B).await?;
    fleet
        .until("the first node is in a slot", |view| {
            ensure!(view.cordoned() == ["deleted-pool-1"], "{view}");
            ensure!(view.states() == ["Rebooting", "Staged"], "{view}");
            Ok(())
        })
        .await?;
    let view = fleet.delete_pool().await?;
    ensure!(view.cordoned().is_empty(), "{view}");
    let noted = |node: &k8s_openapi::api::core::v1::Node| {
        node.annotations()
            .contains_key(names::ANNOTATION_CORDONED_BY)
    };
    ensure!(!view.nodes.values().any(noted), "{view}");
    fleet.finish().await
}

async fn empty(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::new(&suite, "empty", 0).await?;
    fleet.create_pool("empty", json!({})).await?;
    let view = fleet.until_updated(A).await?;
    view.counts([0, 0, 0, 0])?;
    fleet.finish().await
}

async fn conflict(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "conflict", 2, json!({})).await?;
    let pools = Api::<BootcNodePool>::all(fleet.client());
    fleet.create_pool("conflict-rival", json!({})).await?;
    // The rival takes one node only; on the other one its pool goes on.
    let one = json!({ "spec": { "nodeSelector": { "matchLabels": { "kubernetes.io/hostname": "conflict-2" } } } });
    fleet
        .patch_node(
            2,
            json!({ "metadata": { "labels": { "kubernetes.io/hostname": "conflict-2" } } }),
        )
        .await?;
    pools
        .patch(
            "conflict-rival",
            &PatchParams::default(),
            &Patch::Merge(one),
        )
        .await?;
    fleet
        .until("both pools say so", |view| {
            let message = view.pool_is("Degraded=True/NodeConflict")?.message;
            ensure!(
                message.contains("conflict-rival") && message.contains("conflict-2"),
                "{message}"
            );
            ensure!(!message.contains("conflict-1"), "{message}");
            Ok(())
        })
        .await?;
    api_tests::wait::until("the rival says so", || async {
        let rival = pools.get("conflict-rival").await?;
        let status = rival.status.unwrap_or_default();
        let named = |c: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
            c.reason == "NodeConflict"
                && c.message.contains("conflict-2")
                && c.message.contains("conflict")
        };
        status
            .conditions
            .iter()
            .find(named)
            .context("it does not")
            .map(drop)
    })
    .await?;
    fleet.want(B).await?;
    fleet
        .until(
            "the uncontested node is updated, the other one untouched",
            |view| {
                ensure!(
                    view.in_slot().is_empty() && view.cordoned().is_empty(),
                    "{view}"
                );
                view.counts([2, 1, 0, 0])
                    .or_else(|_| view.counts([2, 1, 1, 0]))
            },
        )
        .await?;
    fleet.rebooted(&[1, 0])?;
    pools
        .delete("conflict-rival", &DeleteParams::default())
        .await?;
    let view = fleet.until_updated(B).await?;
    view.pool_is("Degraded=False/OK")?;
    fleet.finish().await
}

async fn cordoned_before(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "cordoned-before", 2, json!({})).await?;
    fleet.cordon(1, true).await?;
    fleet.want(B).await?;
    let view = fleet
        .until(
            "both are updated, and the first is cordoned as before",
            |view| {
                view.pool_is("UpToDate=True/AllUpdated")?;
                ensure!(view.cordoned() == ["cordoned-before-1"], "{view}");
                view.counts([2, 2, 0, 0])
            },
        )
        .await?;
    ensure!(view.in_slot().is_empty());
    // The pool goes, the admin's cordon stays.
    let view = fleet.delete_pool().await?;
    ensure!(view.cordoned() == ["cordoned-before-1"], "{view}");
    fleet.finish().await
}
