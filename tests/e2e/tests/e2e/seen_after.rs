//! What is left of a rollout: the spans that the collector got, and the operator's journals.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use bed::collector::{PHASES, Span, Update};
use crd::BootcNode;
use crd::names::ANNOTATION_ROLLOUT;
use e2e::images::Image;
use e2e::wait::until;
use kube::{Api, ResourceExt as _};
use serde_json::Value;

use crate::host_rig::SOON;
use crate::seen_rig::{POOL, SECRET, Scene, tells_nothing_secret};

/// What a reboot consists of, in order.
const REBOOT: [&str; 4] = ["unlock", "down", "boot", "agent-back"];

/// A node's update is one tree, with true times.
pub(crate) async fn trace(
    scene: &Scene,
    node: &str,
    image: &Image,
    wanted: SystemTime,
) -> Result<Update> {
    let update = update_of(scene, node, image).await?;
    ensure!(update.names() == PHASES, "{:?}", update.names());
    update.is_whole()?;
    let root = &update.root;
    for (name, value) in [
        ("bootc.pool", POOL),
        ("bootc.outcome", "updated"),
        ("container.image.name", &image.name),
    ] {
        ensure!(root.attribute(name) == value, "{name} of {root:#?}");
    }
    let kept = Api::<BootcNode>::all(scene.rig.env.client.clone());
    let kept = kept.get(node).await?;
    let record: Value = serde_json::from_str(
        kept.annotations()
            .get(ANNOTATION_ROLLOUT)
            .context("no record")?,
    )?;
    let parent = record["traceparent"].as_str().unwrap_or_default();
    ensure!(
        parent.contains(&format!("-{}-{}-", root.trace, root.id)),
        "{parent} is not {root:#?}"
    );
    // In this order: wanted, begun, over, now.
    let moments = [
        nanos(wanted)?,
        root.start + MILLISECOND,
        root.end,
        nanos(SystemTime::now())?,
    ];
    ensure!(moments.is_sorted(), "{moments:?}: {root:#?}");
    ensure!(update.parts_of("stage")? == ["pull"], "{update:#?}");
    let drain = update.phase("drain")?;
    for pod in pods(&update) {
        ensure!(pod.parent == drain.id, "{pod:#?}");
    }
    reboot(scene, node, &update).await?;
    Ok(update)
}

/// Times of the operator are in whole milliseconds.
const MILLISECOND: u64 = 1_000_000;

/// The finished update of a node to an image, once the collector has it: the only one.
async fn update_of(scene: &Scene, node: &str, image: &Image) -> Result<Update> {
    let what = format!("the collector has the update of {node}");
    until(&what, SOON, async || {
        let all = Update::of(&scene.collector.spans()?, node)?;
        let to = |it: &Update| it.root.attribute("oci.manifest.digest") == image.digest;
        let mut found: Vec<_> = all.into_iter().filter(to).collect();
        ensure!(found.len() < 2, "several: {found:#?}");
        Ok(found.pop().ok_or_else(|| "none".to_owned()))
    })
    .await
}

/// The pods that were waited for.
fn pods(update: &Update) -> impl Iterator<Item = &Span> {
    update.parts.iter().filter(|it| it.name == "wait-for-pod")
}

/// A pod of the workload made the drain wait, and its span says why.
pub(crate) fn was_held_up(update: &Update) -> Result<()> {
    let web = pods(update).filter(|pod| pod.attribute("k8s.pod.name").starts_with("web-"));
    let mut why = web.map(|pod| pod.attribute("bootc.pod.waits_for"));
    let budget = why.any(|why| why.contains("PodDisruptionBudget default/web"));
    ensure!(budget, "no budget held it up: {update:#?}");
    Ok(())
}

/// The reboot that the host itself knows of lies in the span of it, and its parts follow each other.
async fn reboot(scene: &Scene, node: &str, update: &Update) -> Result<()> {
    let parts = update.parts_of("reboot")?;
    ensure!(parts == REBOOT, "{parts:?}");
    let span = update.phase("reboot")?;
    let boots = scene.rig.env.bink.bed(["boots", node]).await?;
    let boots = boots.lines().map(serde_json::from_str);
    let boots = boots.collect::<serde_json::Result<Vec<Value>>>()?;
    let [.., before, after] = boots.as_slice() else {
        anyhow::bail!("{node} has booted once: {boots:?}");
    };
    let moments = [
        span.start,
        time(&before["ended"])?,
        time(&after["started"])?,
        span.end,
    ];
    ensure!(moments.is_sorted(), "{moments:?}: {span:#?}, {boots:?}");
    Ok(())
}

fn time(text: &Value) -> Result<u64> {
    let text = text.as_str().context("a boot without a time")?;
    nanos(humantime::parse_rfc3339(text)?)
}

fn nanos(time: SystemTime) -> Result<u64> {
    let since = time.duration_since(UNIX_EPOCH)?;
    Ok(since.as_nanos().try_into()?)
}

/// No trace is of two nodes, and none hangs in the air.
pub(crate) fn traces_are_apart(scene: &Scene) -> Result<()> {
    let spans = scene.collector.spans()?;
    let all: BTreeSet<&str> = spans.iter().map(|span| span.trace.as_str()).collect();
    let mut known = BTreeSet::new();
    for node in &scene.rig.env.nodes {
        for update in Update::of(&spans, node)? {
            let new = known.insert(update.root.trace.clone());
            ensure!(new, "{} is of two updates", update.root.trace);
        }
    }
    let loose: Vec<_> = all.iter().filter(|it| !known.contains(**it)).collect();
    ensure!(loose.is_empty(), "without a root: {loose:?}");
    Ok(())
}

/// Every journal that an operator has left is decided again to the same end.
pub(crate) async fn journals(scene: &Scene) -> Result<()> {
    let mut decided = String::new();
    let (mut count, mut named) = (0, false);
    for node in &scene.rig.env.nodes {
        for journal in scene.journals_of(node).await? {
            let text = std::fs::read_to_string(&journal)?;
            named |= text.contains(SECRET);
            let name = journal.display().to_string();
            tells_nothing_secret(&name, &text)?;
            let said = scene.programs.replay(&journal).await?;
            ensure!(said.code == 0, "{name}: {said:?}");
            ensure!(!said.stderr.contains("missing"), "{name}: {}", said.stderr);
            if said.stdout.contains("hop Rebooting -> Verifying") {
                let drawn = scene.programs.timeline_of(&journal).await?;
                ensure!(drawn.code == 0, "{name}: {drawn:?}");
                ensure!(drawn.stdout.contains("Rebooting"), "{name}: {drawn:?}");
            }
            decided.push_str(&said.stdout);
            count += 1;
        }
    }
    ensure!(count > 1, "{count} journals, though an operator was killed");
    ensure!(named, "no journal has the pull secret's name");
    for node in &scene.rig.env.nodes {
        for hop in [
            "Staged -> Cordoned",
            "Draining -> Rebooting",
            "Verifying -> Idle",
        ] {
            let hop = format!("hop {hop}");
            let mut of_node = decided.lines().filter(|line| line.contains(node));
            let told = of_node.any(|line| line.contains(&hop));
            ensure!(told, "no journal has `{hop}` of {node}");
        }
    }
    Ok(())
}
