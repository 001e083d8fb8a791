//! `why` in each situation that keeps a node or a pool from going on.

use std::sync::Arc;

use anyhow::{Result, ensure};
use api_tests::{
    Fleet, Suite,
    fleet::{B, Boot, C, Stage as Staging},
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use libtest_mimic::Trial;
use serde_json::json;

use crate::run::{As, Stage};

type Shared = Arc<Stage>;

pub(crate) fn trials(suite: &Arc<Suite>, stage: &Shared) -> Vec<Trial> {
    macro_rules! trial {
        ($name:ident) => {{
            let stage = Arc::clone(stage);
            suite.trial(concat!("why::", stringify!($name)), move |suite| {
                $name(suite, stage)
            })
        }};
    }
    vec![
        trial!(a_drain_names_the_pod_and_its_budget_and_the_next_one_the_holder),
        trial!(a_halt_names_the_unhealthy_nodes),
        trial!(a_fall_back_is_told_and_tried_again_when_asked),
        trial!(staging_that_fails_is_told_in_bootcs_words),
        trial!(nodes_of_two_pools_name_both),
        trial!(a_tag_without_answer_is_told_in_the_registrys_words),
        trial!(an_agent_that_does_not_answer_is_told_with_its_pod),
        trial!(room_to_stage_names_who_has_it),
        trial!(a_node_that_is_not_ready_is_told_in_the_kubelets_words),
        trial!(a_missing_secret_is_told),
        trial!(a_lost_node_is_told),
    ]
}

async fn a_drain_names_the_pod_and_its_budget_and_the_next_one_the_holder(
    suite: Arc<Suite>,
    stage: Shared,
) -> Result<()> {
    let fleet = Fleet::settled(&suite, "why-drain", 2, json!({})).await?;
    let guarded = json!({ "app": "shop" });
    fleet.workload(&fleet.node(1), guarded.clone()).await?;
    let budgets = Api::<PodDisruptionBudget>::namespaced(fleet.client(), "why-drain");
    let budget: PodDisruptionBudget = serde_json::from_value(json!({
        "metadata": { "name": "shop" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": guarded } },
    }))?;
    budgets.create(&PostParams::default(), &budget).await?;
    fleet.want_staged(B).await?;
    let ended = stage
        .until(
            "why why-drain-1",
            2,
            &[
                "Drain: waiting for pod why-drain/web-",
                "PodDisruptionBudget why-drain/shop",
            ],
        )
        .await?;
    ended.is(
        2,
        &[
            "is still on the node",
            "0 disruptions allowed",
            "drainTimeoutSeconds",
        ],
    )?;
    stage
        .until(
            "why node/why-drain-2",
            2,
            &[
                "RebootSlot: waiting for a reboot slot of pool why-drain",
                "a slot is held by why-drain-1 (Draining",
            ],
        )
        .await?;
    let pool = stage.bootc(As::Viewer, "why why-drain -o json").await?;
    let pool = pool.json()?;
    ensure!(
        pool["object"] == "pool/why-drain" && pool["good"] == false,
        "{pool}"
    );
    let evidence = pool["evidence"].to_string();
    ensure!(
        evidence.contains("1 of 1 reboot slots are in use"),
        "{pool}"
    );
    ensure!(
        evidence.contains("1 node waits for Drain: why-drain-1"),
        "{pool}"
    );
    let status = stage.bootc(As::Viewer, "status why-drain").await?;
    status.is(2, &["Draining", "Drain ", "waiting for pod why-drain/web-"])?;
    budgets.delete("shop", &DeleteParams::default()).await?;
    fleet.until_updated(B).await?;
    stage
        .until("why why-drain-1", 0, &["runs what pool why-drain wants"])
        .await?;
    fleet.finish().await
}

async fn a_halt_names_the_unhealthy_nodes(suite: Arc<Suite>, stage: Shared) -> Result<()> {
    let rollout = json!({ "maxUnavailable": 2 });
    let fleet = Fleet::settled(&suite, "why-halt", 3, rollout).await?;
    fleet.plan_all(|plan| plan.boot = Boot::NotReady);
    // All wait for a slot before the first one is given, so that the first two take them.
    fleet.want_staged(B).await?;
    stage
        .until(
            "why why-halt",
            2,
            &[
                "RolloutHalted: 2 of 2 nodes",
                "bring the unhealthy nodes back",
            ],
        )
        .await?;
    stage
        .until(
            "why why-halt-3",
            2,
            &[
                "RolloutHalted: staged; pool why-halt is halted",
                "unhealthy (NotReady): why-halt-1",
            ],
        )
        .await?;
    stage
        .until(
            "why why-halt-1",
            2,
            &["NotReady: ", "the Node's Ready is Unknown"],
        )
        .await?;
    fleet.plan_all(|plan| plan.boot = Boot::Go);
    for n in [1, 2] {
        fleet.node_ready(n, true).await?;
    }
    fleet.until_updated(B).await?;
    fleet.finish().await
}

async fn a_fall_back_is_told_and_tried_again_when_asked(
    suite: Arc<Suite>,
    stage: Shared,
) -> Result<()> {
    let fleet = Fleet::settled(&suite, "why-fell", 1, json!({})).await?;
    fleet.plan_once(1, Boot::FallBack);
    fleet.want(B).await?;
    stage
        .until(
            "why why-fell-1",
            2,
            &["FellBack: ", "kubectl bootc retry why-fell-1"],
        )
        .await?;
    let refused = stage.bootc(As::Viewer, "retry why-fell-1").await?;
    ensure!(
        refused.code == Some(1) && refused.err.contains("forbidden"),
        "{refused:?}"
    );
    let asked = stage.bootc(As::Editor, "retry why-fell-1").await?;
    asked.is(0, &["node/why-fell-1 is tried again"])?;
    fleet.until_updated(B).await?;
    fleet.finish().await
}

async fn staging_that_fails_is_told_in_bootcs_words(
    suite: Arc<Suite>,
    stage: Shared,
) -> Result<()> {
    let fleet = Fleet::settled(&suite, "why-stage", 1, json!({})).await?;
    fleet.plan(1, |plan| plan.stage = Staging::Fail);
    fleet.want(B).await?;
    stage
        .until(
            "why why-stage-1",
            2,
            &[
                "Degraded: ",
                "the agent says Error: ",
                "as the test wants it",
            ],
        )
        .await?;
    stage
        .until(
            "why why-stage",
            2,
            &["NodeDegraded: ", "as the test wants it"],
        )
        .await?;
    fleet.plan(1, |plan| plan.stage = Staging::Go);
    fleet.until_updated(B).await?;
    fleet.finish().await
}

async fn nodes_of_two_pools_name_both(suite: Arc<Suite>, stage: Shared) -> Result<()> {
    let fleet = Fleet::settled(&suite, "why-two", 1, json!({})).await?;
    fleet.create_pool("why-two-more", json!({})).await?;
    stage
        .until(
            "why why-two-1",
            2,
            &["NodeConflict: ", "selected by why-two and why-two-more"],
        )
        .await?;
    stage
        .until(
            "why pool/why-two-more",
            2,
            &["NodeConflict: why-two-1: also selected by why-two"],
        )
        .await?;
    let pools = Api::<crd::BootcNodePool>::all(fleet.client());
    pools
        .delete("why-two-more", &DeleteParams::default())
        .await?;
    stage.until("why why-two-1", 0, &[]).await?;
    fleet.finish().await
}

async fn a_tag_without_answer_is_told_in_the_registrys_words(
    suite: Arc<Suite>,
    stage: Shared,
) -> Result<()> {
    let fleet = Fleet::new(&suite, "why-tag", 1).await?;
    fleet
        .create_pool("why-tag", json!({ "paused": false }))
        .await?;
    fleet
        .spec(json!({ "image": { "ref": "127.0.0.1:1/os:stable" } }))
        .await?;
    stage
        .until(
            "why why-tag",
            2,
            &[
                "TagResolutionError: 127.0.0.1:1/os:stable: ",
                "correct spec.image.ref",
            ],
        )
        .await?;
    fleet.want(C).await?;
    fleet.until_updated(C).await?;
    fleet.finish().await
}

async fn an_agent_that_does_not_answer_is_told_with_its_pod(
    suite: Arc<Suite>,
    stage: Shared,
) -> Result<()> {
    let fleet = Fleet::settled(&suite, "why-mute", 1, json!({})).await?;
    fleet.plan(1, |plan| plan.mute = true);
    fleet.want(B).await?;
    stage
        .until(
            "why why-mute-1",
            2,
            &["AgentReport: ", "is the agent's pod running on the node?"],
        )
        .await?;
    fleet.plan(1, |plan| plan.mute = false);
    fleet.until_updated(B).await?;
    fleet.finish().await
}

async fn room_to_stage_names_who_has_it(suite: Arc<Suite>, stage: Shared) -> Result<()> {
    let rollout = json!({ "maxConcurrentStaging": 1 });
    let fleet = Fleet::settled(&suite, "why-room", 2, rollout).await?;
    fleet.plan_all(|plan| plan.stage = Staging::Hold);
    fleet.want(B).await?;
    stage
        .until(
            "why why-room-2",
            2,
            &["StagingRoom: ", "room is taken by why-room-1 (Staging"],
        )
        .await?;
    stage
        .until(
            "why why-room-1",
            2,
            &["Staging: waiting for the host to pull"],
        )
        .await?;
    fleet.plan_all(|plan| plan.stage = Staging::Go);
    fleet.until_updated(B).await?;
    fleet.finish().await
}

async fn a_node_that_is_not_ready_is_told_in_the_kubelets_words(
    suite: Arc<Suite>,
    stage: Shared,
) -> Result<()> {
    let fleet = Fleet::settled(&suite, "why-down", 1, json!({})).await?;
    fleet.node_ready(1, false).await?;
    fleet.want(B).await?;
    stage
        .until(
            "why why-down-1",
            2,
            &[
                "NotReady: ",
                "the Node's Ready is False",
                "kubectl describe node why-down-1",
            ],
        )
        .await?;
    fleet.node_ready(1, true).await?;
    fleet.until_updated(B).await?;
    fleet.finish().await
}

async fn a_missing_secret_is_told(suite: Arc<Suite>, stage: Shared) -> Result<()> {
    let fleet = Fleet::settled(&suite, "why-secret", 1, json!({})).await?;
    fleet
        .spec(json!({ "pullSecretRef": { "name": "absent", "namespace": "bootc-operator" } }))
        .await?;
    stage
        .until(
            "why why-secret",
            2,
            &[
                "SecretError: pull secret bootc-operator/absent",
                "dockerconfigjson",
            ],
        )
        .await?;
    fleet.finish().await
}

async fn a_lost_node_is_told(suite: Arc<Suite>, stage: Shared) -> Result<()> {
    let rollout = json!({ "rebootTimeoutSeconds": 2 });
    let fleet = Fleet::settled(&suite, "why-lost", 1, rollout).await?;
    fleet.plan(1, |plan| plan.boot = Boot::Lost);
    fleet.want(B).await?;
    stage
        .until(
            "why why-lost-1",
            2,
            &[
                "RebootTimedOut: not back 2 seconds after",
                "look at the host's console",
            ],
        )
        .await?;
    fleet.delete_pool().await?;
    fleet.finish().await
}
