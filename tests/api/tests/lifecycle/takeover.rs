//! Moving from the Go operator: its objects are taken over as it left them, in the middle of its
//! rollout too, first with its daemons and then with our agents.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use api_tests::{
    Fleet, Suite,
    fleet::{A, B, Boot, View, reference},
    wait,
};
use crd::{BootcNode, BootcNodePool, names};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Resource as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::start;

/// What the Go operator's later versions note on a `BootcNode`; nothing of ours reads it.
const ITS_MARKER: &str = "bootc.dev/last-observed-state";

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial("takeover::a_settled_pool_is_left_as_it_is", settled),
        suite.trial("takeover::a_rollout_goes_on_where_it_stood", midway),
        suite.trial(
            "takeover::daemons_that_are_replaced_midway_lose_nothing",
            daemons_replaced,
        ),
        suite.trial(
            "takeover::its_pools_need_no_finalizer_to_be_deleted",
            without_finalizer,
        ),
    ]
}

/// What the Go operator has written about one node.
struct Left {
    image: char,
    state: &'static str,
    /// It holds a slot: was it cordoned before?
    was_cordoned: Option<bool>,
    /// The Node is cordoned.
    cordoned: bool,
}

impl Left {
    const fn told(image: char) -> Self {
        Self {
            image,
            state: "Staged",
            was_cordoned: None,
            cordoned: false,
        }
    }

    /// In a slot, with its cordon.
    const fn in_slot(image: char, state: &'static str, was_cordoned: bool) -> Self {
        Self {
            image,
            state,
            was_cordoned: Some(was_cordoned),
            cordoned: true,
        }
    }
}

/// Everything as the Go operator leaves it: a pool, labelled Nodes, and a `BootcNode` for each.
async fn left_by_go(
    suite: &Arc<Suite>,
    name: &str,
    wanted: char,
    rollout: Value,
    nodes: &[Left],
) -> Result<Fleet> {
    let fleet = Fleet::new(suite, name, nodes.len()).await?;
    fleet.plan_all(|plan| plan.go_daemon = true);
    fleet.create_pool_of(name, wanted, rollout).await?;
    let pools = Api::<BootcNodePool>::all(fleet.client());
    let finalizer = json!({ "metadata": { "finalizers": [names::FINALIZER_POOL_CLEANUP] } });
    let pool = pools
        .patch(name, &PatchParams::default(), &Patch::Merge(finalizer))
        .await?;
    // The admission policies let nobody else write what the Go operator wrote.
    let api = Api::<BootcNode>::all(suite.breaker.clone());
    for (n, left) in (1..).zip(nodes) {
        let node = fleet.node(n);
        if left.state == "Booted" {
            // It is on its way down while the operators change.
            fleet.plan(n, |plan| plan.boot = Boot::Hold);
        }
        let mut notes = json!({ ITS_MARKER: "False:Staged:whatever" });
        if let Some(was_cordoned) = left.was_cordoned {
            notes[names::ANNOTATION_IN_REBOOT_SLOT] = json!("");
            notes[names::ANNOTATION_WAS_CORDONED] = json!(was_cordoned.to_string());
            empty(&fleet, name, &node).await?;
        }
        let object: BootcNode = serde_json::from_value(json!({
            "apiVersion": "node.bootc.dev/v1alpha1", "kind": "BootcNode",
            "metadata": {
                "name": node, "annotations": notes,
                "ownerReferences": [pool.controller_owner_ref(&()).context("no uid")?],
            },
            "spec": { "desiredImage": reference(left.image), "desiredImageState": left.state },
        }))?;
        // In its order: nothing is approved before it is cordoned.
        let marks = json!({
            "metadata": { "labels": { names::LABEL_MANAGED: "" } },
            "spec": { "unschedulable": left.cordoned.then_some(true) },
        });
        fleet.patch_node(n, marks).await?;
        api.create(&PostParams::default(), &object).await?;
    }
    Ok(fleet)
}

/// A node that the Go operator has drained.
async fn empty(fleet: &Fleet, namespace: &str, node: &str) -> Result<()> {
    let pods = Api::<Pod>::namespaced(fleet.client(), namespace);
    let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let at_once = DeleteParams::default().grace_period(0);
    pods.delete_collection(&at_once, &on_node).await?;
    wait::until("the node is empty", || async {
        match pods.list(&on_node).await {
            Ok(left) if left.items.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// Nothing is told twice, and no host goes down.
async fn settled(suite: Arc<Suite>) -> Result<()> {
    let name = "takeover-settled";
    let nodes = [Left::told(A), Left::told(A)];
    let fleet = left_by_go(&suite, name, A, json!({}), &nodes).await?;
    // An admin's own cordon, which the Go operator has nothing to do with.
    fleet.cordon(2, true).await?;
    let before = fleet.view().await?;
    start(&suite).await?;
    let view = fleet
        .until("the pool is up to date", |view| {
            view.pool_is("UpToDate=True/AllUpdated")?;
            view.pool_is("Degraded=False/OK")?;
            view.counts([2, 2, 0, 0])
        })
        .await?;
    let uids = |view: &View| {
        let all = view.bootc.values().map(|node| node.metadata.uid.clone());
        all.collect::<BTreeSet<_>>()
    };
    ensure!(uids(&view) == uids(&before), "another object: {view}");
    for (name, node) in &view.bootc {
        let before = before.bootc.get(name).map(|node| &node.spec);
        ensure!(
            before == Some(&node.spec),
            "{name} was told something: {view}"
        );
    }
    ensure!(view.cordoned() == [fleet.node(2)], "{view}");
    fleet.rebooted(&[0, 0])?;
    fleet.cordon(2, false).await?;
    // And it is ours from here on.
    fleet.want(B).await?;
    fleet.until_updated(B).await?;
    fleet.rebooted(&[1, 1])?;
    fleet.finish().await?;
    suite.operator.stop().await
}

/// One node in each place of a rollout from A to B: done, on its way down, drained but not approved,
/// cordoned by an admin before, staged, and not told yet.
fn in_every_place() -> [Left; 6] {
    [
        Left::told(B),
        Left::in_slot(B, "Booted", false),
        Left::in_slot(B, "Staged", false),
        Left::in_slot(B, "Staged", true),
        Left::told(B),
        Left::told(A),
    ]
}

async fn midway_fleet(suite: &Arc<Suite>, name: &str) -> Result<Fleet> {
    let rollout = json!({ "maxUnavailable": 3 });
    let fleet = left_by_go(suite, name, B, rollout, &in_every_place()).await?;
    fleet.boot_into(1, B).await?;
    fleet
        .until_states(&["Idle", "Rebooting", "Staged", "Staged", "Staged", "Idle"])
        .await?;
    Ok(fleet)
}

/// Every host ends on B, booted once by the rollout; cordons are as they were before it.
async fn ends_well(fleet: &Fleet, admins: &str) -> Result<()> {
    let view = fleet
        .until("every node is updated", |view| {
            view.pool_is("UpToDate=True/AllUpdated")?;
            view.pool_is("Degraded=False/OK")?;
            view.counts([6, 6, 0, 0])?;
            ensure!(view.in_slot().is_empty(), "{view}");
            ensure!(view.cordoned() == [admins], "{view}");
            Ok(())
        })
        .await?;
    // The first one was booted into B by the Go operator.
    fleet.rebooted(&[1, 1, 1, 1, 1, 1])?;
    fleet.used_slots(..=3)?;
    let noted = view
        .nodes
        .values()
        .filter_map(|node| node.metadata.annotations.as_ref());
    let noted = noted.filter(|notes| notes.contains_key(names::ANNOTATION_CORDONED_BY));
    ensure!(noted.count() == 0, "a note of our cordon is there: {view}");
    Ok(())
}

async fn midway(suite: Arc<Suite>) -> Result<()> {
    let fleet = midway_fleet(&suite, "takeover-midway").await?;
    start(&suite).await?;
    fleet
        .until("the approved one is still in its slot", |view| {
            let told = view.bootc.get("takeover-midway-6");
            let told = told.and_then(|node| node.spec.desired_image.clone());
            ensure!(told == Some(reference(B)), "{view}");
            ensure!(view.in_slot().contains(&"takeover-midway-2"), "{view}");
            Ok(())
        })
        .await?;
    fleet.plan(2, |plan| plan.boot = Boot::Go);
    ends_well(&fleet, &fleet.node(4)).await?;
    fleet.cordon(4, false).await?;
    fleet.finish().await?;
    suite.operator.stop().await
}

/// The daemons give way to our agents while nodes are in their slots: reports that say more than
/// those before.
async fn daemons_replaced(suite: Arc<Suite>) -> Result<()> {
    let fleet = midway_fleet(&suite, "takeover-agents").await?;
    start(&suite).await?;
    fleet
        .until("the approved one is still in its slot", |view| {
            ensure!(view.in_slot().contains(&"takeover-agents-2"), "{view}");
            view.pool_is("UpToDate=False/RolloutInProgress").map(drop)
        })
        .await?;
    fleet.plan_all(|plan| plan.go_daemon = false);
    fleet.plan(2, |plan| plan.boot = Boot::Go);
    ends_well(&fleet, &fleet.node(4)).await?;
    fleet.cordon(4, false).await?;
    fleet.finish().await?;
    suite.operator.stop().await
}

/// Older versions of it put no finalizer on their pools: ours is added.
async fn without_finalizer(suite: Arc<Suite>) -> Result<()> {
    let name = "takeover-bare";
    let fleet = left_by_go(&suite, name, A, json!({}), &[Left::told(A)]).await?;
    let pools = Api::<BootcNodePool>::all(fleet.client());
    let bare = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    pools.patch(name, &PatchParams::default(), &bare).await?;
    start(&suite).await?;
    fleet
        .until("the finalizer is there", |view| {
            let pool = view.pool.as_ref().context("no pool")?;
            let all = pool.metadata.finalizers.clone().unwrap_or_default();
            ensure!(all == [names::FINALIZER_POOL_CLEANUP], "{all:?}");
            Ok(())
        })
        .await?;
    pools.delete(name, &DeleteParams::default()).await?;
    fleet
        .until("nothing is left", |view| {
            ensure!(view.pool.is_none() && view.bootc.is_empty(), "{view}");
            ensure!(view.labelled(names::LABEL_MANAGED).is_empty(), "{view}");
            Ok(())
        })
        .await?;
    fleet.finish().await?;
    suite.operator.stop().await
}
