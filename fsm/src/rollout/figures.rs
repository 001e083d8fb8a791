//! A pool in numbers, for metrics. Everything here is kept as a sum already, so asking costs the same
//! however many nodes there are.

use super::{Rollout, entry::Pool, status::problems};
use crate::{
    names::{NodeName, PoolName},
    node::State,
    pool::Bucket,
    time::Timestamp,
    view::{Activity, AgentFaultKind, BootcNodeView, Report},
};

/// A pool in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// For each of [`Bucket::ALL`]: how many nodes stand there, and since when the one that has been
    /// there longest.
    pub nodes: Vec<(&'static str, usize, Option<Timestamp>)>,
    /// Nodes that wait, by the name of the cause.
    pub waiting: Vec<(&'static str, usize)>,
    /// Slots in use.
    pub slots_used: usize,
    /// Slots that there are now: `maxUnavailable`, less the nodes that are down for other reasons.
    pub slots_allowed: usize,
    /// `rollout.paused`
    pub paused: bool,
    /// For each reason of Degraded=True: whether it applies.
    pub problems: Vec<(&'static str, bool)>,
    /// How often staging failed on a node, as far as this process has seen.
    pub stage_failures: u64,
}

impl Rollout {
    /// Every pool in numbers, by name.
    pub fn figures(&self) -> impl Iterator<Item = (&PoolName, Figures)> {
        self.pools
            .iter()
            .filter_map(|(name, pool)| Some((name, figures(pool)?)))
    }

    /// Counts a try of staging that failed, once: the news of it is that the agent gave up, or that
    /// it gave up for another reason.
    pub(super) fn count_stage_failure(&mut self, name: &NodeName, new: Option<&BootcNodeView>) {
        let Some(node) = self.nodes.get(name) else {
            return;
        };
        let old = node.bootc.as_ref().and_then(|bootc| bootc.report.as_ref());
        let stages = node
            .record
            .as_ref()
            .is_some_and(|record| record.state == State::Staging);
        if let (true, Some(old), Some(new)) = (stages, old, new)
            && new.report.as_ref().is_some_and(|new| gave_up(old, new))
            && let Some(owner) = &new.owner
            && let Some(pool) = self.pools.get_mut(&owner.pool)
        {
            pool.stage_failures += 1;
        }
    }
}

fn gave_up(old: &Report, new: &Report) -> bool {
    let failed = new
        .degraded
        .as_ref()
        .is_some_and(|fault| fault.kind == AgentFaultKind::Error);
    failed
        && new.activity == Activity::Idle
        && (old.activity == Activity::Staging || old.degraded != new.degraded)
}

fn figures(pool: &Pool) -> Option<Figures> {
    let view = pool.view.as_ref()?;
    let sum = &pool.sum;
    let nodes = Bucket::ALL.map(|(bucket, name)| (name, sum.count(bucket), sum.oldest(bucket)));
    let problems = problems(pool, view).map(|(reason, text)| (reason, text.is_some()));
    Some(Figures {
        nodes: nodes.into(),
        waiting: sum.waiting().collect(),
        slots_used: sum.holders.len(),
        slots_allowed: sum.slots(view.spec.max_unavailable),
        paused: view.spec.paused,
        problems: problems.into(),
        stage_failures: pool.stage_failures,
    })
}
