//! A pool that goes leaves nothing: no label, no cordon, no `BootcNode`, no drain. So does a node.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use api_tests::{
    Fleet, Suite,
    fleet::{A, B, Boot, View},
    hosts,
};
use crd::{BootcNodePool, names};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, PropagationPolicy},
};
use libtest_mimic::Trial;
use serde_json::json;
use tokio::time::sleep;

use crate::phases::{Phase, held_in, let_go, unguard};

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    let mut trials = vec![
        suite.trial(
            "deletion::the_finalizer_waits_for_no_node_that_is_gone",
            nodes_gone,
        ),
        suite.trial("deletion::a_node_made_anew_is_another_one", made_anew),
        suite.trial(
            "deletion::a_pool_made_anew_takes_its_nodes_back",
            pool_made_anew,
        ),
        suite.trial(
            "deletion::a_deleted_bootc_node_in_a_slot_keeps_the_slot",
            object_in_slot,
        ),
        suite.trial(
            "deletion::another_selector_moves_only_whom_it_concerns",
            selector,
        ),
    ];
    let policies = [
        ("background", PropagationPolicy::Background),
        ("foreground", PropagationPolicy::Foreground),
        ("orphan", PropagationPolicy::Orphan),
    ];
    for phase in Phase::ALL {
        for (how, policy) in policies.clone() {
            let name = format!("{how}-{}", phase.name());
            trials.push(suite.trial(
                format!("deletion::{how}_while_{}", phase.name()),
                move |suite| gone(suite, name, phase, policy),
            ));
        }
    }
    trials
}

fn nothing_left(view: &View) -> Result<()> {
    ensure!(view.pool.is_none(), "the pool is there: {view}");
    ensure!(view.bootc.is_empty(), "BootcNodes are there: {view}");
    ensure!(
        view.labelled(names::LABEL_MANAGED).is_empty(),
        "labels are there: {view}"
    );
    ensure!(view.cordoned().is_empty(), "{view}");
    let noted = |node: &Node| {
        node.annotations()
            .contains_key(names::ANNOTATION_CORDONED_BY)
    };
    ensure!(
        !view.nodes.values().any(noted),
        "a note of our cordon is there: {view}"
    );
    Ok(())
}

async fn gone(
    suite: Arc<Suite>,
    name: String,
    phase: Phase,
    policy: PropagationPolicy,
) -> Result<()> {
    let fleet = held_in(&suite, &name, phase).await?;
    let params = DeleteParams {
        propagation_policy: Some(policy),
        ..DeleteParams::default()
    };
    let pools = Api::<BootcNodePool>::all(fleet.client());
    pools.delete(&name, &params).await?;
    fleet
        .until("nothing is left of the pool", nothing_left)
        .await?;
    if phase == Phase::Cordoned {
        // A cordon that would be allowed now must not come any more.
        unguard(&fleet, &name).await?;
        sleep(Duration::from_secs(4)).await;
    }
    if phase == Phase::Draining {
        // What nobody drains any more must stay, whoever allows its eviction now.
        unguard(&fleet, &name).await?;
        sleep(Duration::from_secs(4)).await;
        let guarded = ListParams::default().labels("app=guarded");
        let pods = Api::<Pod>::namespaced(fleet.client(), &name)
            .list(&guarded)
            .await?;
        let stays = |pod: &Pod| pod.metadata.deletion_timestamp.is_none();
        ensure!(
            pods.items.len() == 1 && pods.iter().all(stays),
            "the drain goes on"
        );
    }
    nothing_left(&fleet.view().await?)?;
    fleet.rebooted(&[u32::from(phase == Phase::Verifying), 0])?;
    fleet.finish().await
}

async fn nodes_gone(suite: Arc<Suite>) -> Result<()> {
    let fleet = held_in(&suite, "nodes-gone", Phase::Rebooting).await?;
    let pools = Api::<BootcNodePool>::all(fleet.client());
    for n in [1, 2] {
        hosts::delete_node(&suite.admin, &fleet.node(n)).await?;
    }
    pools.delete("nodes-gone", &DeleteParams::default()).await?;
    fleet
        .until("nothing is left of the pool", nothing_left)
        .await?;
    fleet.finish().await
}

/// The Node comes back under its name, on a host that runs the old image.
async fn made_anew(suite: Arc<Suite>) -> Result<()> {
    let fleet = held_in(&suite, "made-anew", Phase::Rebooting).await?;
    let before = fleet.view().await?;
    let uid = |view: &View| {
        view.bootc
            .get("made-anew-1")
            .and_then(kube::ResourceExt::uid)
    };
    hosts::delete_node(&suite.admin, "made-anew-1").await?;
    fleet.add_node(1).await?;
    let view = fleet
        .until("its object is another one", |view| {
            ensure!(uid(view).is_some() && uid(view) != uid(&before), "{view}");
            ensure!(view.labelled(names::LABEL_MANAGED).len() == 2, "{view}");
            Ok(())
        })
        .await?;
    let node_uid = view
        .nodes
        .get("made-anew-1")
        .and_then(kube::ResourceExt::uid);
    let note = view
        .bootc
        .get("made-anew-1")
        .and_then(|node| node.annotations().get(names::ANNOTATION_ROLLOUT).cloned());
    let record: serde_json::Value = serde_json::from_str(&note.context("no record")?)?;
    ensure!(
        record["nodeUid"].as_str() == node_uid.as_deref(),
        "{record}"
    );
    fleet.plan_all(|plan| plan.boot = Boot::Go);
    fleet.until_updated(B).await?;
    fleet.finish().await
}

/// The same name, and another pool: nothing of the old one's is taken for the new one's.
async fn pool_made_anew(suite: Arc<Suite>) -> Result<()> {
    let fleet = held_in(&suite, "pool-made-anew", Phase::Draining).await?;
    let pools = Api::<BootcNodePool>::all(fleet.client());
    pools
        .delete("pool-made-anew", &DeleteParams::default())
        .await?;
    api_tests::wait::until("the name is free", || async {
        match pools.get_opt("pool-made-anew").await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    fleet.create_pool("pool-made-anew", json!({})).await?;
    let_go(&fleet, "pool-made-anew").await?;
    let view = fleet.until_updated(A).await?;
    view.counts([2, 2, 0, 0])?;
    view.pool_is("Degraded=False/OK")?;
    fleet.rebooted(&[0, 0])?;
    fleet.finish().await
}

/// It may be going down already: it comes back with its slot and its cordon.
async fn object_in_slot(suite: Arc<Suite>) -> Result<()> {
    let fleet = held_in(&suite, "object-in-slot", Phase::Rebooting).await?;
    let before = fleet.view().await?;
    let uid = |view: &View| {
        view.bootc
            .get("object-in-slot-1")
            .and_then(kube::ResourceExt::uid)
    };
    let nodes = Api::<crd::BootcNode>::all(fleet.client());
    nodes
        .delete("object-in-slot-1", &DeleteParams::default())
        .await?;
    fleet
        .until("it is back, in its slot", |view| {
            ensure!(uid(view).is_some() && uid(view) != uid(&before), "{view}");
            ensure!(view.in_slot() == ["object-in-slot-1"], "{view}");
            ensure!(view.cordoned() == ["object-in-slot-1"], "{view}");
            Ok(())
        })
        .await?;
    fleet.plan_all(|plan| plan.boot = Boot::Go);
    fleet.until_updated(B).await?;
    fleet.rebooted(&[1, 1])?;
    fleet.used_slots(1..=1)?;
    fleet.finish().await
}

/// By an expression; the objects of the nodes that stay are the same ones as before.
async fn selector(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "selector", 3, json!({})).await?;
    let before = fleet.view().await?;
    fleet
        .patch_node(
            3,
            json!({ "metadata": { "labels": { "test.bootc.dev/apart": "yes" } } }),
        )
        .await?;
    fleet
        .spec(json!({ "nodeSelector": { "matchExpressions": [
            { "key": "test.bootc.dev/apart", "operator": "NotIn", "values": ["yes", "maybe"] },
        ] } }))
        .await?;
    let view = fleet
        .until("the third node is let go", |view| {
            ensure!(
                view.labelled(names::LABEL_MANAGED) == ["selector-1", "selector-2"],
                "{view}"
            );
            view.counts([2, 2, 0, 0])
        })
        .await?;
    for name in ["selector-1", "selector-2"] {
        let version = |view: &View| {
            view.bootc
                .get(name)
                .and_then(kube::ResourceExt::resource_version)
        };
        ensure!(
            version(&view) == version(&before),
            "{name} was touched: {view}"
        );
        let version = |view: &View| {
            view.nodes
                .get(name)
                .and_then(kube::ResourceExt::resource_version)
        };
        ensure!(
            version(&view) == version(&before),
            "the Node {name} was touched: {view}"
        );
    }
    fleet
        .patch_node(
            3,
            json!({ "metadata": { "labels": { "test.bootc.dev/apart": "no" } } }),
        )
        .await?;
    fleet
        .until("it is back", |view| view.counts([3, 3, 0, 0]))
        .await?;
    fleet.finish().await
}
