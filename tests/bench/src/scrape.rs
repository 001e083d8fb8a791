//! What a scrape of the operator's metrics costs, against one of a cluster with few nodes: the figures
//! out of the deciding task's sums and the text that is made of them, without the way over HTTP.

use std::{hint::black_box, time::Instant};

use anyhow::{Context as _, Result};
use fsm::{
    Config, Image, Input, NodeName, PoolName, Rollout, Timestamp,
    view::{Amount, ImageRef, NodeView, PoolSpec, PoolView},
};
use operator::report::{Metrics, Snapshot};

use crate::{
    numbers::{median, micros},
    table::Table,
};

/// Measures at each size, so often.
pub(crate) fn measure(sizes: &[usize], pools: usize, repeat: usize) -> Result<Table> {
    let mut table = Table::new(["nodes", "pools", "bytes", "µs", "ratio"]);
    let mut baseline = None;
    for size in sizes {
        let rollout = cluster(*size, pools)?;
        let (metrics, _scrapes) = Metrics::new();
        let mut bytes = 0;
        let times = (0..repeat).map(|_| {
            let since = Instant::now();
            let text = metrics.render(Some(snapshot(&rollout))).unwrap_or_default();
            bytes = black_box(text).len();
            micros(since.elapsed())
        });
        let time = median(times);
        let of = *baseline.get_or_insert(time);
        table.row([
            size.to_string(),
            pools.to_string(),
            bytes.to_string(),
            format!("{time:.0}"),
            format!("{:.2}", time / of),
        ]);
    }
    Ok(table)
}

fn snapshot(rollout: &Rollout) -> Snapshot {
    let pools = rollout.figures();
    Snapshot {
        pools: pools.map(|(name, all)| (name.clone(), all)).collect(),
        ..Snapshot::default()
    }
}

/// Nodes that have just joined their pools, in the memory of the deciding task.
fn cluster(nodes: usize, pools: usize) -> Result<Rollout> {
    let image = Image::new("registry.test/os@sha256:1").context("no image")?;
    let mut rollout = Rollout::new(Config::default());
    let mut tell = |input| drop(rollout.handle(Timestamp(1_700_000_000_000), input));
    for n in 0..pools {
        tell(Input::Pool(pool_name(n), Some(pool(&image))));
    }
    for n in 0..nodes {
        let node = NodeView {
            uid: format!("node-{n}"),
            ready: Some(true),
            claims: [pool_name(n % pools)].into(),
            ..NodeView::default()
        };
        tell(Input::Node(NodeName::from(format!("node-{n}")), Some(node)));
    }
    tell(Input::Synced);
    Ok(rollout)
}

fn pool_name(n: usize) -> PoolName {
    PoolName::from(format!("a-pool-of-workers-{n}"))
}

fn pool(image: &Image) -> PoolView {
    PoolView {
        uid: "pool".to_owned(),
        generation: 1,
        deleting: false,
        finalizer: true,
        spec: PoolSpec {
            max_unavailable: Amount::Percent(10),
            ..PoolSpec::of(ImageRef::Pinned(image.clone()))
        },
        retry: None,
        status: None,
    }
}
