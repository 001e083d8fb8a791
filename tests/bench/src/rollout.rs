//! A rollout over hosts without work of their own: wall time and the operator's CPU time a node,
//! against the floor; and the operator's memory on the way.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use bed::progress;
use kube::Client;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    cluster::{Cluster, counts::Counts, hosts::Hosts, image, operator::Extra},
    floor::{self, Floor},
    numbers::{median, millis, number},
    process::{Cpu, Memory},
    table::Table,
};

/// The part of the nodes that may be in a slot at once.
const PERCENT: usize = 10;
/// How long a process that has just started is left alone before its memory is read.
const REST: Duration = Duration::from_secs(2);

/// One pass over all nodes.
pub(crate) struct Pass {
    wall: Duration,
    /// CPU time of whoever was measured.
    pub(crate) cpu: Duration,
    asked: Counts,
}

/// What was measured at one size.
pub(crate) struct Measured {
    size: usize,
    floor: Vec<Pass>,
    operator: Vec<Pass>,
    /// Of each operator after its start, and at the end of its rollout.
    memory: Vec<(Memory, Memory)>,
}

/// Measures at each size, so often; without a floor only the operator.
pub(crate) async fn measure(
    sizes: &[usize],
    repeat: usize,
    with_floor: bool,
) -> Result<Vec<Measured>> {
    let mut all = Vec::new();
    for size in sizes {
        progress::say(format_args!("{size} nodes"));
        all.push(Stage::new(*size).await?.measure(repeat, with_floor).await?);
    }
    Ok(all)
}

/// A cluster of one size.
pub(crate) struct Stage {
    size: usize,
    /// It.
    pub(crate) cluster: Cluster,
    hosts: Arc<Hosts>,
    /// The number of the image that all nodes run.
    image: usize,
}

impl Stage {
    /// Starts one, with a pool of all nodes that is settled.
    pub(crate) async fn new(size: usize) -> Result<Self> {
        let cluster = Cluster::start().await?;
        let rollout = json!({ "maxUnavailable": format!("{PERCENT}%") });
        let (operator, hosts) = cluster.settled(size, &image(0), rollout).await?;
        operator.stop().await?;
        Ok(Self {
            size,
            cluster,
            hosts: Arc::new(hosts),
            image: 0,
        })
    }

    async fn measure(mut self, repeat: usize, with_floor: bool) -> Result<Measured> {
        let mut measured = Measured {
            size: self.size,
            floor: Vec::new(),
            operator: Vec::new(),
            memory: Vec::new(),
        };
        for _ in 0..repeat {
            if with_floor {
                let pass = self.floor().await?;
                say(&pass, "the floor", self.size);
                measured.floor.push(pass);
            }
            let (pass, memory) = self.operator(Extra::default()).await?;
            say(&pass, "the operator", self.size);
            measured.operator.push(pass);
            measured.memory.push(memory);
        }
        Ok(measured)
    }

    async fn next_image(&mut self) -> Result<()> {
        self.image += 1;
        let spec = json!({ "image": { "ref": image(self.image) } });
        self.cluster.spec(spec).await
    }

    /// The pool is told as well, so that the next operator finds everything done.
    async fn floor(&mut self) -> Result<Pass> {
        let floor = Floor::new(self.cluster.operator_kubeconfig()?).await?;
        let nodes = floor.nodes().await?;
        let images = [image(self.image), image(self.image + 1)];
        let watch = Watch::start(&self.cluster.admin, || Cpu::of_threads(floor::THREAD)).await?;
        self.next_image().await?;
        let [before, after] = images.each_ref().map(String::as_str);
        let slots = (self.size * PERCENT).div_ceil(100);
        tokio::try_join!(
            floor.roll_out(&self.hosts, nodes, [before, after], slots),
            self.hosts.until_all_run(after),
        )?;
        watch.stop(&self.cluster.admin).await
    }

    /// A rollout by an operator with these flags and variables, and its memory after its start and
    /// at the end.
    pub(crate) async fn operator(&mut self, extra: Extra) -> Result<(Pass, (Memory, Memory))> {
        let mut operator = self.cluster.operator_with(extra).await?;
        sleep(REST).await;
        let started = operator.memory()?;
        let pid = operator.pid();
        let watch = Watch::start(&self.cluster.admin, move || Cpu::of_process(pid)).await?;
        self.next_image().await?;
        let target = image(self.image);
        tokio::select! {
            done = self.hosts.until_all_run(&target) => done?,
            ended = operator.ended() => return Err(ended),
        }
        let pass = watch.stop(&self.cluster.admin).await?;
        // What comes late is not lost to the peak.
        sleep(REST).await;
        let ended = operator.memory()?;
        operator.stop().await?;
        Ok((pass, (started, ended)))
    }
}

/// Measures from its start to its stop.
struct Watch<F> {
    cpu: F,
    used: Cpu,
    asked: Counts,
    since: Instant,
}

impl<F: Fn() -> Result<Cpu>> Watch<F> {
    async fn start(client: &Client, cpu: F) -> Result<Self> {
        let asked = Counts::now(client).await?;
        Ok(Self {
            used: cpu()?,
            cpu,
            asked,
            since: Instant::now(),
        })
    }

    async fn stop(self, client: &Client) -> Result<Pass> {
        let (wall, cpu) = (self.since.elapsed(), (self.cpu)()?.since(self.used));
        let asked = Counts::now(client).await?.since(&self.asked);
        Ok(Pass { wall, cpu, asked })
    }
}

/// Tells how a pass went.
pub(crate) fn say(pass: &Pass, who: &str, size: usize) {
    let nodes = u32::try_from(size).unwrap_or(u32::MAX);
    progress::say(format_args!(
        "{who}: {:.1} s, {:.2} ms of CPU a node\n{}",
        pass.wall.as_secs_f64(),
        millis(pass.cpu / nodes),
        pass.asked.lines().join("\n"),
    ));
}

fn of(passes: &[Pass], value: impl Fn(&Pass) -> f64) -> f64 {
    median(passes.iter().map(value))
}

impl Measured {
    fn a_node(&self, passes: &[Pass], value: impl Fn(&Pass) -> f64) -> f64 {
        of(passes, value) / number(self.size as u64)
    }

    fn cpu(&self, passes: &[Pass]) -> f64 {
        self.a_node(passes, |pass| millis(pass.cpu))
    }
}

/// Wall and CPU time, in a table.
pub(crate) fn table(all: &[Measured]) -> Table {
    let mut table = Table::new([
        "nodes",
        "floor s",
        "operator s",
        "ratio",
        "floor CPU ms/node",
        "operator CPU ms/node",
        "of that at the first size",
        "patches/node",
        "requests/node: floor",
        "operator",
        "409s: floor",
        "operator",
    ]);
    let first = all.first().map_or(0.0, |first| first.cpu(&first.operator));
    for it in all {
        let wall = |passes: &[Pass]| of(passes, |pass| pass.wall.as_secs_f64());
        let patches = |passes: &[Pass]| it.a_node(passes, |pass| number(pass.asked.patches()));
        let requests = |passes: &[Pass]| it.a_node(passes, |pass| number(pass.asked.requests()));
        let conflicts = |passes: &[Pass]| of(passes, |pass| number(pass.asked.conflicts()));
        let (floor, operator) = (&it.floor, &it.operator);
        table.row([
            it.size.to_string(),
            format!("{:.2}", wall(floor)),
            format!("{:.2}", wall(operator)),
            format!("{:.2}", wall(operator) / wall(floor)),
            format!("{:.2}", it.cpu(floor)),
            format!("{:.2}", it.cpu(operator)),
            format!("{:.2}", it.cpu(operator) / first),
            format!("{:.2} / {:.2}", patches(floor), patches(operator)),
            format!("{:.1}", requests(floor)),
            format!("{:.1}", requests(operator)),
            format!("{:.0}", conflicts(floor)),
            format!("{:.0}", conflicts(operator)),
        ]);
    }
    table
}

/// The operator's memory, in a table.
pub(crate) fn memory(all: &[Measured]) -> Table {
    let mut table = Table::new([
        "nodes",
        "after start MiB",
        "peak of start MiB",
        "after a rollout MiB",
        "peak MiB",
    ]);
    for it in all {
        let mib = |value: fn(&(Memory, Memory)) -> u64| {
            let mib = median(
                it.memory
                    .iter()
                    .map(|memory| number(value(memory)) / 1024.0),
            );
            format!("{mib:.1}")
        };
        table.row([
            it.size.to_string(),
            mib(|(started, _)| started.resident),
            mib(|(started, _)| started.peak),
            mib(|(_, ended)| ended.resident),
            mib(|(_, ended)| ended.peak),
        ]);
    }
    table
}
