//! What a person asks for: hold, go on, another image, and what that would do.

use std::sync::Arc;

use anyhow::{Result, ensure};
use api_tests::{
    Fleet, Suite,
    fleet::{A, B, reference},
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::{Api, api::PostParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::run::{As, Stage};

type Shared = Arc<Stage>;

pub(crate) fn trials(suite: &Arc<Suite>, stage: &Shared) -> Vec<Trial> {
    macro_rules! trial {
        ($name:ident) => {{
            let stage = Arc::clone(stage);
            suite.trial(concat!("changes::", stringify!($name)), move |suite| {
                $name(suite, stage)
            })
        }};
    }
    vec![
        trial!(an_image_is_set_held_and_let_go),
        trial!(a_dry_run_says_what_would_happen_and_does_nothing),
    ]
}

async fn an_image_is_set_held_and_let_go(suite: Arc<Suite>, stage: Shared) -> Result<()> {
    let fleet = Fleet::settled(&suite, "held", 2, json!({})).await?;
    stage
        .bootc(As::Editor, "pause held")
        .await?
        .is(0, &["bootcnodepool.node.bootc.dev/held paused"])?;
    let line = format!("set-image held {}", reference(B));
    stage
        .bootc(As::Editor, &line)
        .await?
        .is(0, &["image set to"])?;
    fleet.until_states(&["Staged", "Staged"]).await?;
    stage
        .until(
            "why held-2",
            2,
            &[
                "Paused: staged; pool held is paused",
                "kubectl bootc resume held",
            ],
        )
        .await?;
    stage
        .bootc(As::Editor, "resume held")
        .await?
        .is(0, &["held resumed"])?;
    fleet.until_updated(B).await?;
    let wrong = stage.bootc(As::Editor, "set-image held nginx").await?;
    ensure!(
        wrong.code == Some(1) && wrong.err.contains("no registry host"),
        "{wrong:?}"
    );
    fleet.finish().await
}

async fn a_dry_run_says_what_would_happen_and_does_nothing(
    suite: Arc<Suite>,
    stage: Shared,
) -> Result<()> {
    let rollout = json!({ "maxUnavailable": 2, "maxConcurrentStaging": 2 });
    let fleet = Fleet::settled(&suite, "foreseen", 3, rollout).await?;
    let guarded = json!({ "app": "foreseen" });
    fleet.workload(&fleet.node(2), guarded.clone()).await?;
    let budgets = Api::<PodDisruptionBudget>::namespaced(fleet.client(), "foreseen");
    let budget: PodDisruptionBudget = serde_json::from_value(json!({
        "metadata": { "name": "tight" },
        "spec": { "maxUnavailable": 0, "selector": { "matchLabels": guarded } },
    }))?;
    budgets.create(&PostParams::default(), &budget).await?;
    for how in ["client", "server"] {
        let line = format!("set-image foreseen {} --dry-run={how}", reference(B));
        let who = if how == "server" {
            As::Editor
        } else {
            As::Viewer
        };
        let ended = stage.bootc(who, &line).await?;
        ended.is(
            0,
            &[
                "3 of 3 nodes would stage it and reboot, in this order: foreseen-1, foreseen-2, foreseen-3",
                "2 of them stage at once, the others as there is room.",
                "foreseen-3 does not begin at once: waiting for room to stage: maxConcurrentStaging of pool foreseen is reached",
                "At most 2 at a time",
                "PodDisruptionBudget foreseen/tight allows 0 disruptions now and would hold up the drain of foreseen-2",
            ],
        )?;
    }
    let same = format!("set-image foreseen {} --dry-run", reference(A));
    stage
        .bootc(As::Viewer, &same)
        .await?
        .is(0, &["3 of 3 nodes run it already", "No node would move."])?;
    let tag = "set-image foreseen registry.test/os:next --dry-run=client";
    stage
        .bootc(As::Viewer, tag)
        .await?
        .is(0, &["is a tag", "3 of 3 nodes would stage it"])?;
    let view = fleet.view().await?;
    ensure!(
        view.is_wanted(&reference(A)),
        "a dry run changed something: {view}"
    );
    fleet.finish().await
}
