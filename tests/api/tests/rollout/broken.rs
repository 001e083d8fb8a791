//! Objects as nobody should write them: each shows on its pool or is put right, and no other node
//! notices.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use api_tests::{
    Fleet, Suite,
    fleet::{A, B, Stage, View, reference},
    suite::unowned_node,
};
use crd::{BootcNode, BootcNodePool, names};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::phases::{Phase, held_in, let_go};

/// All annotations of an object together may have 256 KiB; ours need some of it.
const ALMOST_ALL: usize = 250 * 1024;

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    let mut trials = vec![
        suite.trial("broken::a_bootc_node_without_owner_is_put_right", unowned),
        suite.trial(
            "broken::a_strangers_bootc_node_is_none_of_a_pools_business",
            stranger,
        ),
        suite.trial(
            "broken::a_report_that_makes_no_sense_degrades_its_node",
            nonsense,
        ),
        suite.trial("broken::objects_as_large_as_the_api_server_takes", large),
        suite.trial("broken::a_pool_with_every_field_at_its_limit", at_the_limit),
        suite.trial("broken::a_node_that_says_nothing_of_itself", silent_node),
        suite.trial(
            "broken::a_retry_that_cannot_be_read_changes_nothing",
            bad_retry,
        ),
    ];
    for phase in Phase::ALL {
        trials.push(suite.trial(
            format!("broken::a_record_that_is_no_json_while_{}", phase.name()),
            move |suite| no_json(suite, phase),
        ));
    }
    trials
}

async fn break_glass(suite: &Suite, name: &str, metadata: Value) -> Result<()> {
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    Api::<BootcNode>::all(suite.breaker.clone())
        .patch(name, &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

/// What is kept is rebuilt from the spec and the other annotations: slot and cordon stay.
async fn no_json(suite: Arc<Suite>, phase: Phase) -> Result<()> {
    let name = format!("no-json-{}", phase.name());
    let fleet = held_in(&suite, &name, phase).await?;
    let before = fleet.view().await?;
    let broken = json!({ "annotations": { names::ANNOTATION_ROLLOUT: "{ not json" } });
    break_glass(&suite, &fleet.node(1), broken).await?;
    fleet
        .until("the record is written again", |view| {
            let node = view.bootc.get(&format!("{name}-1")).context("gone")?;
            let text = node
                .annotations()
                .get(names::ANNOTATION_ROLLOUT)
                .context("no record")?;
            let record: Value = serde_json::from_str(text)?;
            ensure!(record["state"].is_string(), "{record}");
            ensure!(view.in_slot() == before.in_slot(), "{view}");
            ensure!(view.cordoned() == before.cordoned(), "{view}");
            Ok(())
        })
        .await?;
    let_go(&fleet, &name).await?;
    fleet.until_updated(B).await?;
    fleet.rebooted(&[1, 1])?;
    fleet.used_slots(..=1)?;
    fleet.finish().await
}

/// The other node's rollout goes on meanwhile.
async fn unowned(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "unowned", 2, json!({})).await?;
    break_glass(&suite, "unowned-1", json!({ "ownerReferences": null })).await?;
    fleet.want(B).await?;
    let view = fleet.until_updated(B).await?;
    view.counts([2, 2, 0, 0])?;
    ensure!(
        view.bootc
            .values()
            .all(|node| node.owner_references().len() == 1),
        "{view}"
    );
    fleet.finish().await
}

/// It has no pool and no Node, so nobody needs it.
async fn stranger(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "stranger", 1, json!({})).await?;
    let breaker = Api::<BootcNode>::all(suite.breaker.clone());
    breaker
        .create(&PostParams::default(), &unowned_node("nobodys"))
        .await?;
    fleet.want(B).await?;
    let view = fleet.until_updated(B).await?;
    view.pool_is("Degraded=False/OK")?;
    view.counts([1, 1, 0, 0])?;
    api_tests::wait::until("it is cleared away", || async {
        match breaker.get_opt("nobodys").await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    fleet.finish().await
}

/// What the schema lets through, and no agent says.
async fn nonsense(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "nonsense", 2, json!({})).await?;
    fleet.plan(1, |plan| plan.stage = Stage::Hold);
    fleet.want(B).await?;
    let odd = |kind: &str, status: &str| {
        json!({
            "type": kind, "status": status, "reason": "Dancing", "message": "la la",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let status = json!({
        "observedGeneration": -5, "boot": "", "booted": { "image": "???", "imageDigest": "md5:0" },
        "conditions": [odd("Idle", "Unknown"), odd("Degraded", "True"), odd("Mood", "True")],
    });
    let report = json!({
        "apiVersion": "node.bootc.dev/v1alpha1", "kind": "BootcNode", "status": status,
    });
    fleet
        .until("it stages", |view| {
            ensure!(
                view.states().first().map(String::as_str) == Some("Staging"),
                "{view}"
            );
            Ok(())
        })
        .await?;
    fleet.plan(1, |plan| plan.mute = true);
    let params = PatchParams::apply(names::FIELD_MANAGER_AGENT).force();
    Api::<BootcNode>::all(fleet.client())
        .patch_status("nonsense-1", &params, &Patch::Apply(report))
        .await?;
    fleet
        .until("it is told, and the other node is updated", |view| {
            let message = view.pool_is("Degraded=True/NodeDegraded")?.message;
            ensure!(message.contains("nonsense-1: la la"), "{message}");
            view.counts([2, 1, 0, 1])
        })
        .await?;
    fleet.plan(1, |plan| (plan.stage, plan.mute) = (Stage::Go, false));
    fleet.until_updated(B).await?;
    fleet.finish().await
}

async fn large(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "large", 2, json!({})).await?;
    let too_much = json!({ "metadata": { "annotations": { "test/large": "x".repeat(1 << 20) } } });
    let refused = fleet.patch_node(1, too_much).await;
    ensure!(refused.is_err(), "the API server took a MiB of annotations");
    let note = json!({ "annotations": { "test/large": "x".repeat(ALMOST_ALL) } });
    let patch = json!({ "metadata": note });
    fleet.patch_node(1, patch.clone()).await?;
    break_glass(&suite, "large-1", note).await?;
    Api::<BootcNodePool>::all(fleet.client())
        .patch("large", &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    fleet.want(B).await?;
    let view = fleet.until_updated(B).await?;
    view.pool_is("Degraded=False/OK")?;
    let keeps = |node: &Node| node.annotations().contains_key("test/large");
    ensure!(
        view.nodes.get("large-1").is_some_and(keeps),
        "the annotation is lost"
    );
    fleet.finish().await
}

async fn at_the_limit(suite: Arc<Suite>) -> Result<()> {
    let name = format!("limit-{}", "x".repeat(247));
    let fleet = Fleet::new(&suite, "limit", 2).await?;
    let most = i32::MAX;
    let expressions: Vec<_> = (0..32)
        .map(|n| {
            let key = format!("{}.test/{}-{n:02}", "p".repeat(240), "k".repeat(60));
            json!({ "key": key, "operator": "DoesNotExist" })
        })
        .collect();
    let pool = |name: &str, repository: &str| -> Result<BootcNodePool> {
        Ok(serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": {
                "image": { "ref": format!("registry.test/{repository}@{}", api_tests::fleet::digest(A)) },
                "nodeSelector": {
                    "matchLabels": { "test.bootc.dev/fleet": "limit" },
                    "matchExpressions": expressions,
                },
                "rollout": {
                    "maxUnavailable": "100%", "maxConcurrentStaging": most, "paused": false,
                    "drainTimeoutSeconds": most, "rebootTimeoutSeconds": most, "minReadySeconds": 0,
                },
                "disruption": { "rebootPolicy": "AllowSoftReboot" },
            },
        }))?)
    };
    let long = vec!["r".repeat(60); 4].join("/");
    let pools = Api::<BootcNodePool>::all(fleet.client());
    let up_to_date = |pool: BootcNodePool| -> Result<()> {
        let status = pool.status.context("no status")?;
        let is = |kind: &str, reason: &str| {
            status
                .conditions
                .iter()
                .any(|it| it.type_ == kind && it.reason == reason)
        };
        ensure!(
            is("UpToDate", "AllUpdated") && is("Degraded", "OK"),
            "{status:?}"
        );
        ensure!(status.node_count == 2, "{status:?}");
        Ok(())
    };
    pools
        .create(&PostParams::default(), &pool(&name, &long)?)
        .await?;
    api_tests::wait::until("the pool is up to date", || async {
        up_to_date(pools.get(&name).await?)
    })
    .await?;
    // Through a slot: its name stands in the cordon's annotation.
    let image = json!({ "spec": { "image": { "ref": reference(B) } } });
    pools
        .patch(&name, &PatchParams::default(), &Patch::Merge(image))
        .await?;
    api_tests::wait::until("the pool is updated", || async {
        let pool = pools.get(&name).await?;
        let deployed = pool
            .status
            .as_ref()
            .and_then(|it| it.deployed_digest.clone());
        ensure!(
            deployed == Some(api_tests::fleet::digest(B)),
            "{deployed:?}"
        );
        up_to_date(pool)
    })
    .await?;
    fleet.rebooted(&[1, 1])?;
    pools
        .delete(&name, &kube::api::DeleteParams::default())
        .await?;
    fleet
        .until("nothing is left of it", |view: &View| {
            ensure!(
                view.bootc.is_empty() && view.cordoned().is_empty(),
                "{view}"
            );
            Ok(())
        })
        .await?;
    fleet.finish().await
}

/// No condition, no boot, no status at all: it counts as its agent says.
async fn silent_node(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "silent-node", 2, json!({})).await?;
    let nothing = Patch::Merge(json!({ "status": { "conditions": null, "nodeInfo": null } }));
    Api::<Node>::all(fleet.client())
        .patch_status("silent-node-1", &PatchParams::default(), &nothing)
        .await?;
    let view = fleet.view().await?;
    let status = view
        .nodes
        .get("silent-node-1")
        .and_then(|node| node.status.clone());
    ensure!(status.is_some_and(|it| it.conditions.is_none_or(|all| all.is_empty())));
    fleet.want(B).await?;
    fleet.until_updated(B).await?;
    fleet.finish().await
}

async fn bad_retry(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "bad-retry", 1, json!({})).await?;
    let pools = Api::<BootcNodePool>::all(fleet.client());
    for text in [
        "@",
        "bad-retry-1",
        "bad-retry-1@yesterday",
        "@2026-01-01T00:00:00Z",
    ] {
        let note = json!({ "metadata": { "annotations": { names::ANNOTATION_RETRY: text } } });
        pools
            .patch("bad-retry", &PatchParams::default(), &Patch::Merge(note))
            .await?;
    }
    fleet.want(B).await?;
    let view = fleet.until_updated(B).await?;
    view.pool_is("Degraded=False/OK")?;
    fleet.finish().await
}
