//! How long a slot stays empty: from the version that freed it to the next node's cordon, both as a
//! watch shows them, against the round trip of one write.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, ensure};
use bed::progress;
use kube::{
    Client,
    api::{Patch, PatchParams},
    core::Request,
};
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    cluster::{
        Cluster, image, nodes,
        wire::{self, NodeSpec, Nothing, Object},
    },
    numbers::{millis, quantile},
    table::Table,
};

/// How often a write is made for comparison.
const PACE: Duration = Duration::from_millis(50);

/// Measures a rollout over so many nodes with each number of slots.
pub(crate) async fn measure(size: usize, slots: &[usize]) -> Result<Table> {
    let mut table = Table::new([
        "nodes",
        "slots",
        "turn-rounds",
        "p50 ms",
        "p99 ms",
        "one write p50 ms",
        "p99 / write",
    ]);
    let cluster = Cluster::start().await?;
    // A node of no pool, to write to.
    nodes::create_one(&cluster.admin, size, json!({})).await?;
    let (_operator, hosts) = cluster
        .settled(size, &image(0), json!({ "maxUnavailable": 1 }))
        .await?;
    for (n, slots) in slots.iter().enumerate() {
        progress::say(format_args!("{size} nodes, {slots} slots"));
        let target = image(n + 1);
        let rollout = |paused: bool| json!({ "maxUnavailable": slots, "paused": paused });
        cluster
            .spec(json!({ "image": { "ref": target }, "rollout": rollout(true) }))
            .await?;
        hosts.until_all_staged(&target).await?;
        hosts.take_freed();
        let witness = Witness::start(&cluster.admin, size);
        cluster.spec(json!({ "rollout": rollout(false) })).await?;
        hosts.until_all_run(&target).await?;
        let seen = witness.end();
        let empty = turn_rounds(hosts.take_freed(), seen.cordoned, *slots)?;
        let (p50, p99) = (quantile(&empty, 0.5), quantile(&empty, 0.99));
        let write = quantile(&seen.writes, 0.5);
        table.row([
            size.to_string(),
            slots.to_string(),
            empty.len().to_string(),
            format!("{p50:.1}"),
            format!("{p99:.1}"),
            format!("{write:.2}"),
            format!("{:.1}", p99 / write),
        ]);
    }
    Ok(table)
}

/// The k-th slot that became free is the next one to be taken after the first ones.
fn turn_rounds(
    mut freed: Vec<Instant>,
    mut cordoned: Vec<Instant>,
    slots: usize,
) -> Result<Vec<f64>> {
    freed.sort();
    cordoned.sort();
    ensure!(
        freed.len() == cordoned.len(),
        "{} slots became free and {} nodes were cordoned",
        freed.len(),
        cordoned.len()
    );
    let next = cordoned.iter().skip(slots);
    let both = freed.iter().zip(next);
    Ok(both
        .map(|(freed, cordoned)| millis(cordoned.saturating_duration_since(*freed)))
        .collect())
}

/// Who notes cordons, and writes now and then.
struct Witness {
    seen: Arc<Mutex<Seen>>,
    _tasks: JoinSet<()>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    cordoned: Vec<Instant>,
    /// Milliseconds of each round trip.
    writes: Vec<f64>,
}

impl Witness {
    fn start(client: &Client, spare: usize) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut tasks = JoinSet::new();
        tasks.spawn(note_cordons(client.clone(), Arc::clone(&seen)));
        tasks.spawn(write(client.clone(), spare, Arc::clone(&seen)));
        Self {
            seen,
            _tasks: tasks,
        }
    }

    fn end(self) -> Seen {
        noted(&self.seen, |seen| seen.clone())
    }
}

fn noted<T>(seen: &Mutex<Seen>, note: impl FnOnce(&mut Seen) -> T) -> T {
    note(&mut seen.lock().unwrap_or_else(PoisonError::into_inner))
}

async fn note_cordons(client: Client, seen: Arc<Mutex<Seen>>) {
    let mut cordoned = std::collections::BTreeSet::new();
    wire::watch(client, wire::NODES, |node: Object<NodeSpec>| {
        let name = node.metadata.name;
        if !node.spec.unschedulable {
            cordoned.remove(&name);
        } else if cordoned.insert(name) {
            noted(&seen, |seen| seen.cordoned.push(Instant::now()));
        }
    })
    .await;
}

async fn write(client: Client, spare: usize, seen: Arc<Mutex<Seen>>) {
    for n in 0_u64.. {
        let note =
            json!({ "metadata": { "annotations": { "bench.example.com/write": n.to_string() } } });
        let patch = Patch::Strategic(note);
        let request =
            Request::new(wire::NODES).patch(&nodes::name(spare), &PatchParams::default(), &patch);
        let Ok(request) = request else { return };
        let since = Instant::now();
        // One that failed says nothing of the round trip.
        if client.request::<Object<Nothing>>(request).await.is_ok() {
            noted(&seen, |seen| seen.writes.push(millis(since.elapsed())));
        }
        sleep(PACE).await;
    }
}
