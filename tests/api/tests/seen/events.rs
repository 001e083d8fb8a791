//! Events as `kubectl describe` shows them.

use std::sync::Arc;

use anyhow::{Result, ensure};
use api_tests::{Fleet, Suite, fleet::B, wait};
use bed::run_dir::RunDir;
use k8s_openapi::api::events::v1::Event;
use kube::{Api, api::ListParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::process::Operator;

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial("events::each_object_tells_its_part_of_a_rollout", parts),
        suite.trial("events::what_is_said_again_is_counted", counted),
    ]
}

/// The Events about an object, by reason.
async fn about(suite: &Suite, kind: &str, name: &str) -> Result<Vec<Event>> {
    let all = Api::<Event>::namespaced(suite.admin.clone(), "default")
        .list(&ListParams::default())
        .await?;
    let ours = |event: &Event| {
        let object = event.regarding.clone().unwrap_or_default();
        let by = event.reporting_controller.as_deref();
        by == Some("bootc.dev/bootc-operator")
            && (object.kind.as_deref(), object.name.as_deref()) == (Some(kind), Some(name))
    };
    Ok(all.items.into_iter().filter(ours).collect())
}

fn reasons(events: &[Event]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|event| event.reason.as_deref())
        .collect()
}

async fn parts(suite: Arc<Suite>) -> Result<()> {
    let dir = RunDir::fresh("seen-events")?;
    let operator = Operator::start(&suite, dir.path(), &[], &[]).await?;
    let fleet = Fleet::settled(&suite, "told", 1, json!({})).await?;
    fleet.want(B).await?;
    fleet.until_updated(B).await?;
    for (kind, name, wanted) in [
        (
            "BootcNodePool",
            "told",
            &["RolloutStarted", "RolloutCompleted"][..],
        ),
        (
            "BootcNode",
            "told-1",
            &["Staging", "Staged", "Draining", "Rebooting", "Idle"],
        ),
        (
            "Node",
            "told-1",
            &["Cordoned", "Draining", "Rebooting", "Uncordoned"],
        ),
    ] {
        wait::until("every reason is told", || async {
            let events = about(&suite, kind, name).await?;
            let told = reasons(&events);
            for reason in wanted {
                ensure!(
                    told.contains(reason),
                    "{kind} {name}: no {reason} in {told:?}"
                );
            }
            for event in &events {
                let uid = event.regarding.as_ref().and_then(|it| it.uid.as_deref());
                ensure!(uid.is_some_and(|uid| !uid.is_empty()), "{event:?}");
            }
            anyhow::Ok(())
        })
        .await?;
    }
    let shown = suite.kubectl(&["describe", "node", "told-1"]).await?;
    ensure!(shown.contains("Uncordoned"), "{shown}");
    fleet.finish().await?;
    operator.stop().await
}

/// Somebody uncordons a node that is drained, again and again.
async fn counted(suite: Arc<Suite>) -> Result<()> {
    let dir = RunDir::fresh("seen-series")?;
    let operator = Operator::start(&suite, dir.path(), &[], &[]).await?;
    let fleet = Fleet::settled(&suite, "again", 1, json!({})).await?;
    let held = crate::traces::held_pod(&suite, &fleet, 1).await?;
    fleet.want(B).await?;
    wait::until("it is told once and counted", || async {
        if !fleet.view().await?.cordoned().is_empty() {
            fleet.cordon(1, false).await?;
        }
        let events = about(&suite, "BootcNode", "again-1").await?;
        let lost: Vec<_> = events
            .iter()
            .filter(|event| event.reason.as_deref() == Some("CordonLost"))
            .collect();
        ensure!(lost.len() == 1, "{} Events: {lost:#?}", lost.len());
        let count = lost[0].series.as_ref().map_or(1, |series| series.count);
        ensure!(count >= 2, "counted {count}");
        anyhow::Ok(())
    })
    .await?;
    crate::traces::let_go(&suite, &fleet, &held).await?;
    fleet.until_updated(B).await?;
    fleet.finish().await?;
    operator.stop().await
}
