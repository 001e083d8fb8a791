//! Times that begin with what is kept, not with the operator: moments in the stored record are moved
//! into the past while the operator is away, so that long times are over without anybody waiting.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use api_tests::{
    Fleet, Suite,
    fleet::{A, B, Boot, View},
    hosts,
};
use crd::{BootcNode, names};
use k8s_openapi::{api::core::v1::Node, jiff::Timestamp};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::phases::{Phase, held_in, let_go, unguard};

/// Fields of the record that hold a moment.
const MOMENTS: [&str; 5] = ["since", "clock", "written", "at", "until"];

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial(
            "clocks::a_restart_does_not_start_a_drain_timeout_anew",
            drain,
        ),
        suite.trial(
            "clocks::a_restart_does_not_start_a_reboot_timeout_anew",
            reboot,
        ),
        suite.trial(
            "clocks::reboots_without_a_timeout_count_as_unhealthy_after_ten_minutes",
            no_timeout,
        ),
        suite.trial(
            "clocks::an_agent_that_is_silent_for_ten_minutes_is_told",
            silent,
        ),
        suite.trial(
            "clocks::a_node_dead_for_five_minutes_gives_its_slot_back",
            dead,
        ),
    ]
}

fn move_back(value: &mut Value, by: Duration) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let millis = value.as_i64().filter(|_| MOMENTS.contains(&name.as_str()));
                match millis {
                    Some(millis) if millis > 0 => {
                        let by = i64::try_from(by.as_millis()).unwrap_or_default();
                        *value = json!(millis - by);
                    }
                    _ => move_back(value, by),
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|value| move_back(value, by)),
        _ => {}
    }
}

/// So much time passes for these nodes while the operator is away.
async fn pass(suite: &Suite, fleet: &Fleet, nodes: &[usize], by: Duration) -> Result<()> {
    let api = Api::<BootcNode>::all(suite.breaker.clone());
    let meanwhile = async {
        for n in nodes {
            let node = api.get(&fleet.node(*n)).await?;
            let text = node.annotations().get(names::ANNOTATION_ROLLOUT);
            let mut record: Value = serde_json::from_str(text.context("no record")?)?;
            let before = record.clone();
            move_back(&mut record, by);
            ensure!(record != before, "no moment in {record}");
            let kept = json!({ names::ANNOTATION_ROLLOUT: record.to_string() });
            let patch = Patch::Merge(json!({ "metadata": { "annotations": kept } }));
            api.patch(&fleet.node(*n), &PatchParams::default(), &patch)
                .await?;
        }
        Ok(())
    };
    suite.operator.restart(suite, meanwhile).await
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

fn degraded(view: &View, node: &str, words: &str) -> Result<()> {
    let message = view.pool_is("Degraded=True/NodeDegraded")?.message;
    ensure!(
        message.contains(node) && message.contains(words),
        "{message}"
    );
    Ok(())
}

/// Once it is given up, the node is tried again by itself after the back-off.
async fn drain(suite: Arc<Suite>) -> Result<()> {
    let fleet = held_in(&suite, "drain-clock", Phase::Draining).await?;
    fleet
        .spec(json!({ "rollout": { "drainTimeoutSeconds": 1800 } }))
        .await?;
    pass(&suite, &fleet, &[1], minutes(10)).await?;
    fleet
        .until("ten minutes are not too long", |view| {
            let waiting = view.node_condition("drain-clock-1", "Waiting")?;
            ensure!(waiting.message.contains("PodDisruptionBudget"), "{view}");
            ensure!(view.in_slot() == ["drain-clock-1"], "{view}");
            view.pool_is("Degraded=False/OK")?;
            view.is_current()
        })
        .await?;
    pass(&suite, &fleet, &[1], minutes(25)).await?;
    fleet
        .until("it is given up, and the other node goes on", |view| {
            degraded(view, "drain-clock-1", "drainTimeoutSeconds")?;
            ensure!(
                view.in_slot().is_empty() && view.cordoned().is_empty(),
                "{view}"
            );
            view.counts([2, 1, 0, 1])
        })
        .await?;
    unguard(&fleet, "drain-clock").await?;
    pass(&suite, &fleet, &[1], minutes(60)).await?;
    fleet.until_updated(B).await?;
    fleet.rebooted(&[1, 1])?;
    fleet.finish().await
}

async fn reboot(suite: Arc<Suite>) -> Result<()> {
    let fleet = held_in(&suite, "reboot-clock", Phase::Rebooting).await?;
    fleet
        .spec(json!({ "rollout": { "rebootTimeoutSeconds": 1800 } }))
        .await?;
    pass(&suite, &fleet, &[1], minutes(10)).await?;
    fleet
        .until("ten minutes are not too long", |view| {
            view.pool_is("Degraded=False/OK")?;
            view.is_current()
        })
        .await?;
    pass(&suite, &fleet, &[1], minutes(25)).await?;
    fleet
        .until("it is late", |view| {
            degraded(view, "reboot-clock-1", "not back 1800 seconds")?;
            ensure!(view.in_slot() == ["reboot-clock-1"], "{view}");
            Ok(())
        })
        .await?;
    let_go(&fleet, "reboot-clock").await?;
    let view = fleet.until_updated(B).await?;
    view.pool_is("Degraded=False/OK")?;
    fleet.rebooted(&[1, 1])?;
    fleet.finish().await
}

async fn no_timeout(suite: Arc<Suite>) -> Result<()> {
    let rollout = json!({ "maxUnavailable": 2 });
    let fleet = Fleet::settled(&suite, "no-timeout", 3, rollout).await?;
    fleet.plan_all(|plan| plan.boot = Boot::Hold);
    fleet.want_staged(B).await?;
    let states = ["Rebooting", "Rebooting", "Staged"];
    fleet.until_states(&states).await?;
    pass(&suite, &fleet, &[1, 2], minutes(11)).await?;
    fleet
        .until("the pool is halted, and no node degraded", |view| {
            let message = view.pool_is("Degraded=True/RolloutHalted")?.message;
            ensure!(
                message.contains("no-timeout-1: RebootTimedOut, no-timeout-2: RebootTimedOut"),
                "{message}"
            );
            view.counts([3, 0, 3, 0])
        })
        .await?;
    fleet.plan_all(|plan| plan.boot = Boot::Go);
    let view = fleet.until_updated(B).await?;
    view.pool_is("Degraded=False/OK")?;
    fleet.rebooted(&[1, 1, 1])?;
    fleet.finish().await
}

async fn silent(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "silent", 2, json!({})).await?;
    fleet.plan(1, |plan| plan.mute = true);
    fleet.want(B).await?;
    fleet
        .until("the other one is updated", |view| {
            view.counts([2, 1, 1, 0])?;
            view.pool_is("Degraded=False/OK").map(drop)
        })
        .await?;
    pass(&suite, &fleet, &[1], minutes(11)).await?;
    fleet
        .until("the silence is told, on the node too", |view| {
            degraded(view, "silent-1", "has not reported on the last change")?;
            let waiting = view.node_condition("silent-1", "Waiting")?;
            ensure!(waiting.reason == "AgentSilent", "{view}");
            view.counts([2, 1, 0, 1])
        })
        .await?;
    fleet.plan(1, |plan| plan.mute = false);
    let view = fleet.until_updated(B).await?;
    view.pool_is("Degraded=False/OK")?;
    fleet.rebooted(&[1, 1])?;
    fleet.finish().await
}

/// It is drained anew when it is back; the other node has the slot meanwhile.
async fn dead(suite: Arc<Suite>) -> Result<()> {
    let fleet = held_in(&suite, "dead", Phase::Draining).await?;
    let mut status = hosts::ready("Unknown", "boot-1");
    let since = Timestamp::now() - minutes(6);
    status["status"]["conditions"][0]["lastTransitionTime"] = json!(since);
    Api::<Node>::all(fleet.client())
        .patch_status("dead-1", &PatchParams::default(), &Patch::Merge(status))
        .await?;
    fleet
        .until("its slot is free, and the other node uses it", |view| {
            ensure!(
                view.in_slot().is_empty() && view.cordoned().is_empty(),
                "{view}"
            );
            view.counts([2, 1, 1, 0])
        })
        .await?;
    fleet.rebooted(&[0, 1])?;
    let_go(&fleet, "dead").await?;
    fleet.until_updated(B).await?;
    fleet.rebooted(&[1, 1])?;
    fleet.want(A).await?;
    fleet.until_updated(A).await?;
    fleet.finish().await
}
