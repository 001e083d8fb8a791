//! How long drains ran while their pools were not halted: only that time counts for their timeout.

use std::collections::BTreeMap;

use fsm::{NodeName, PoolName, Rollout, Timestamp};

/// What one process has seen of halts.
#[derive(Clone, Debug, Default)]
pub(super) struct Halts {
    /// When it last heard anything.
    now: Timestamp,
    /// Milliseconds for which each pool was halted, and whether it is.
    pools: BTreeMap<PoolName, (i64, bool)>,
    /// When a node's way down began, of which pool, and how long that had been halted by then.
    begun: BTreeMap<NodeName, (Timestamp, PoolName, i64)>,
}

impl Halts {
    /// Time passes, and everything is as it was until now.
    pub(super) fn pass(&mut self, now: Timestamp) {
        let passed = now.since(self.now);
        for (halted_for, halted) in self.pools.values_mut() {
            *halted_for += if *halted { passed } else { 0 };
        }
        self.now = now;
    }

    /// Which pools are halted now?
    pub(super) fn look<'a>(
        &mut self,
        rollout: &Rollout,
        pools: impl Iterator<Item = &'a PoolName>,
    ) {
        for pool in pools {
            let halted = rollout.sum(pool).is_some_and(fsm::pool::Sum::halted);
            self.pools.entry(pool.clone()).or_default().1 = halted;
        }
    }

    /// A decision on a node is made: what it leads to begins now, unless it goes on.
    pub(super) fn begin(&mut self, node: &NodeName, rollout: &Rollout, pool: Option<&PoolName>) {
        let (Some(record), Some(pool)) = (rollout.upcoming(node), pool) else {
            return;
        };
        if self.begun.get(node).is_none_or(|it| it.0 != record.clock) {
            let halted_for = self.pools.get(pool).map_or(0, |it| it.0);
            self.begun
                .insert(node.clone(), (record.clock, pool.clone(), halted_for));
        }
    }

    /// For how long a node has been on its way down, and for how much of that its pool was halted, as
    /// far as this process saw; in milliseconds.
    pub(super) fn of_drain(&self, node: &NodeName, rollout: &Rollout) -> (i64, i64) {
        let Some(record) = rollout.record(node) else {
            return (0, 0);
        };
        let seen = self.begun.get(node).filter(|it| it.0 == record.clock);
        let halted = seen.and_then(|(_, pool, before)| Some(self.pools.get(pool)?.0 - before));
        (self.now.since(record.clock), halted.unwrap_or_default())
    }
}
