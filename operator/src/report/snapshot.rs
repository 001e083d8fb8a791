//! What is so at the moment of a scrape, as series.

use fsm::{Figures, PoolName};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use super::metrics::unix;

/// Pools and queues as they are now.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Each pool in numbers.
    pub pools: Vec<(PoolName, Figures)>,
    /// How many drains wait for a pod, by the cause.
    pub drains_blocked: Vec<(&'static str, usize)>,
    /// How much waits in the operator itself, by queue.
    pub queues: Vec<(&'static str, usize)>,
}

type Result = std::result::Result<(), std::fmt::Error>;

impl Collector for Snapshot {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> Result {
        self.nodes(&mut to)?;
        self.oldest(&mut to)?;
        self.waiting(&mut to)?;
        self.slots(&mut to)?;
        self.pools(&mut to)?;
        let mut family = gauges(
            &mut to,
            "drains_blocked",
            "Drains that wait for a pod to go",
        )?;
        for (cause, count) in &self.drains_blocked {
            gauge(&mut family, &[("cause", *cause)], *count)?;
        }
        let help = "Work that waits inside of the operator";
        let mut family = gauges(&mut to, "queue_depth", help)?;
        for (queue, depth) in &self.queues {
            gauge(&mut family, &[("queue", *queue)], *depth)?;
        }
        Ok(())
    }
}

impl Snapshot {
    fn nodes(&self, to: &mut DescriptorEncoder<'_>) -> Result {
        let mut family = gauges(to, "pool_nodes", "Nodes of a pool by where they stand")?;
        for (pool, figures) in &self.pools {
            for (state, count, _) in &figures.nodes {
                let labels = [("pool", pool.as_str()), ("state", state)];
                gauge(&mut family, &labels, *count)?;
            }
        }
        Ok(())
    }

    fn oldest(&self, to: &mut DescriptorEncoder<'_>) -> Result {
        let help = "Since when the node that has been there longest stands there, in Unix time";
        let mut family = gauges(to, "pool_oldest_node_timestamp_seconds", help)?;
        for (pool, figures) in &self.pools {
            for (state, _, since) in &figures.nodes {
                let Some(since) = since else { continue };
                let labels = [("pool", pool.as_str()), ("state", state)];
                ConstGauge::new(unix(*since)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn waiting(&self, to: &mut DescriptorEncoder<'_>) -> Result {
        let help = "Nodes that do not go on, by what they wait for";
        let mut family = gauges(to, "pool_waiting_nodes", help)?;
        for (pool, figures) in &self.pools {
            for (reason, count) in &figures.waiting {
                let labels = [("pool", pool.as_str()), ("reason", reason)];
                gauge(&mut family, &labels, *count)?;
            }
        }
        Ok(())
    }

    fn slots(&self, to: &mut DescriptorEncoder<'_>) -> Result {
        let mut family = gauges(to, "pool_slots_used", "Reboot slots in use")?;
        for (pool, figures) in &self.pools {
            gauge(&mut family, &[("pool", pool.as_str())], figures.slots_used)?;
        }
        let help =
            "Reboot slots that there are: maxUnavailable, less the nodes that are down anyway";
        let mut family = gauges(to, "pool_slots_allowed", help)?;
        for (pool, figures) in &self.pools {
            let allowed = figures.slots_allowed;
            gauge(&mut family, &[("pool", pool.as_str())], allowed)?;
        }
        Ok(())
    }

    fn pools(&self, to: &mut DescriptorEncoder<'_>) -> Result {
        let mut family = gauges(to, "pool_paused", "Whether the pool is paused")?;
        for (pool, figures) in &self.pools {
            let paused = usize::from(figures.paused);
            gauge(&mut family, &[("pool", pool.as_str())], paused)?;
        }
        let help = "Whether this is wrong with the pool: the reasons of its condition Degraded";
        let mut family = gauges(to, "pool_problem", help)?;
        for (pool, figures) in &self.pools {
            for (reason, applies) in &figures.problems {
                let labels = [("pool", pool.as_str()), ("reason", reason)];
                gauge(&mut family, &labels, usize::from(*applies))?;
            }
        }
        let help = "Tries of nodes to stage an image that failed";
        let mut family =
            to.encode_descriptor("pool_stage_failures", help, None, MetricType::Counter)?;
        for (pool, figures) in &self.pools {
            let labels = [("pool", pool.as_str())];
            ConstCounter::new(figures.stage_failures).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn gauges<'a>(
    to: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &str,
) -> std::result::Result<MetricEncoder<'a>, std::fmt::Error> {
    to.encode_descriptor(name, help, None, MetricType::Gauge)
}

fn gauge<L: EncodeLabelSet>(family: &mut MetricEncoder<'_>, labels: &L, value: usize) -> Result {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    ConstGauge::new(value).encode(family.encode_family(labels)?)
}
