//! What is seen of a rollout over real hosts in which operator and agent are killed: one unbroken
//! trace a node, journals on which the same is decided again, and what `kubectl bootc` says.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use e2e::images::Image;
use e2e::view::View;
use e2e::wait::until;
use e2e::workload::{self, BUDGET, REPLICAS};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::host_rig::SOON;
use crate::seen_after;
use crate::seen_rig::{POOL, Scene, tells_nothing_secret};
use crate::trial;

/// How long the rollout may take, with a takeover on its way.
const ROLLOUT: Duration = Duration::from_secs(300);

/// Whoever has staged the image sooner goes first.
struct Order {
    first: String,
    second: String,
}

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "seen::a_rollout_is_one_trace_per_node_and_is_decided_again_across_restarts",
        a_rollout_is_one_trace_per_node_and_is_decided_again_across_restarts,
    )]
}

async fn a_rollout_is_one_trace_per_node_and_is_decided_again_across_restarts() -> Result<()> {
    let scene = Scene::set(2).await?;
    let env = &scene.rig.env;
    let booted = env.booted("node1").await?;
    env.pool(POOL, &booted).await?;
    all_run(&scene, &booted).await?;
    workload::deploy(env).await?;
    // No drain gets past the workload.
    workload::set_budget(env, REPLICAS).await?;

    let update = env.images.push_os("2").await?;
    let wanted = SystemTime::now();
    scene.want_with_secret(&update).await?;
    let order = order(&scene).await?;
    a_drain_is_held_up(&scene, &order).await?;
    let holder = scene.kill_leader().await?;
    scene.rig.kill_agent(&order.first).await?;
    scene.another_leads(&holder).await?;
    a_drain_is_held_up(&scene, &order).await?;
    workload::set_budget(env, BUDGET).await?;
    all_run(&scene, &update).await?;

    it_is_over(&scene).await?;
    for node in &env.nodes {
        let trace = seen_after::trace(&scene, node, &update, wanted).await;
        let trace = trace.with_context(|| format!("the trace of {node}"))?;
        if *node == order.first {
            seen_after::was_held_up(&trace)?;
        }
    }
    seen_after::traces_are_apart(&scene)?;
    tells_nothing_secret("a span", &format!("{:?}", scene.collector.spans()?))?;
    seen_after::journals(&scene).await
}

/// Who is being drained, and who waits meanwhile, once that is so.
async fn order(scene: &Scene) -> Result<Order> {
    let line = format!("status {POOL} -o json");
    until("one node is being drained", SOON, async || {
        let status = scene.json(&line).await?;
        let nodes = status["nodes"].as_array().into_iter().flatten();
        let is = |state: &str| {
            let mut of = nodes.clone().filter(|node| node["state"] == state);
            let name = of.next()?["name"].as_str()?;
            Some(name.to_owned())
        };
        let (first, second) = (is("Draining"), is("Staged"));
        Ok(match first.zip(second) {
            Some((first, second)) => Ok(Order { first, second }),
            None => Err(status.to_string()),
        })
    })
    .await
}

/// What the plugin says while the first node's drain waits for the workload.
async fn a_drain_is_held_up(scene: &Scene, order: &Order) -> Result<()> {
    let Order { first, second } = order;
    for (line, texts) in [
        (
            format!("why {first}"),
            vec![
                "default/web",
                "PodDisruptionBudget default/web allows 0 disruptions",
            ],
        ),
        (format!("why {second}"), vec!["RebootSlot", first]),
        (format!("why {POOL}"), vec![first, second]),
        (
            format!("status {POOL}"),
            vec!["0/2", "Draining", "Staged", "RebootSlot"],
        ),
    ] {
        scene.says(&line, 2, &texts).await?;
    }
    let line = format!("timeline {POOL} -o json");
    until("both nodes are on the timeline", SOON, async || {
        let chart = scene.json(&line).await?;
        let (drained, waits) = (phases(&chart, first), phases(&chart, second));
        let as_far = drained == ["Staging", "Staged", "Cordoned", "Draining"];
        Ok(if as_far && waits == ["Staging", "Staged"] {
            Ok(())
        } else {
            Err(format!("{drained:?}, {waits:?}"))
        })
    })
    .await
}

/// What it says when everything is done.
async fn it_is_over(scene: &Scene) -> Result<()> {
    scene
        .says(&format!("status {POOL}"), 0, &["2/2", "AllUpdated", "Idle"])
        .await?;
    let chart = scene.json(&format!("timeline {POOL} -o json")).await?;
    for node in &scene.rig.env.nodes {
        scene.says(&format!("why {node}"), 0, &[]).await?;
        let phases = phases(&chart, node);
        let way = [
            "Staging",
            "Staged",
            "Cordoned",
            "Draining",
            "Rebooting",
            "Verifying",
        ];
        ensure!(phases == way, "{node}: {phases:?}");
    }
    Ok(())
}

/// The phases of a node on a timeline.
fn phases(chart: &Value, node: &str) -> Vec<String> {
    let bars = chart["nodes"].as_array().into_iter().flatten();
    let bar = bars.clone().find(|bar| bar["node"] == node);
    let phases = bar.and_then(|bar| bar["phases"].as_array());
    let state = |phase: &Value| phase["state"].as_str().map(str::to_owned);
    phases.into_iter().flatten().filter_map(state).collect()
}

/// Waits until all nodes run this image and nothing is left of the update.
async fn all_run(scene: &Scene, image: &Image) -> Result<()> {
    let env = &scene.rig.env;
    let what = format!("all nodes run {}", image.digest);
    until(&what, ROLLOUT, async || {
        let view = View::of(&env.client, POOL).await?;
        let all = view.all_on(&image.digest) && view.nodes.len() == env.nodes.len();
        Ok(if all {
            Ok(())
        } else {
            Err(format!("{} {:?}", view.up_to_date, view.nodes))
        })
    })
    .await
}
