//! What one node shows to its pools.

use std::collections::BTreeSet;

use super::{Rollout, entry::Node, grants::Grant, nodes::earliest, place::Place};
use crate::{
    names::{NodeName, PoolName},
    node::{
        self, DrainStage, Facts, Record, State, Wanted,
        health::{self, Problem},
        waiting::WaitingOn,
    },
    pool::{Bucket, Tally},
    time::{Seconds, Timestamp},
};

/// The reason of the condition Waiting while a drain waits for pods.
const DRAIN_WAITS: &str = "Drain";
/// A drain that runs longer is told of.
const SLOW_DRAIN: Seconds = Seconds(300);

impl Rollout {
    /// Counts the node in its pool and in every pool that claims it.
    pub(super) fn count(
        &mut self,
        name: &NodeName,
        node: &mut Node,
        place: &Place,
        wake: &mut Option<Timestamp>,
    ) {
        let record = node.shown().cloned().unwrap_or_default();
        if node.halt_mark.0 != record.clock {
            node.halt_mark = (record.clock, place.halted_for);
        }
        let facts = self.facts(node, place, &record, Grant::None);
        let refusal = node.refusal(place.halted, self.now);
        // Of a node without a record nothing is awaited yet, but it may be refused its first one.
        let problem = match node.shown() {
            Some(_) => health::problem(&record, &facts, refusal),
            None => refusal.map(Problem::refused),
        };
        let mut tally = self.tally(node, place, &record, &facts, problem.as_ref());
        let waits = self.waits(name, node, place, &record, &facts, problem.as_ref());
        tally.waits = waits.as_ref().map(WaitingOn::label);
        let held = node.hold.as_ref().map(|hold| hold.until);
        earliest(wake, held.filter(|until| *until > self.now));
        earliest(wake, facts.wake.get());
        tally.since = node.stands_since(tally.bucket, self.now);

        let counted = counted(node, place);
        for pool in node.counted_by.difference(&counted) {
            self.put(pool, name, None);
        }
        for pool in &counted {
            let owned = place
                .owner
                .as_ref()
                .is_some_and(|owner| owner.pool == *pool);
            let tally = if owned {
                tally.clone()
            } else {
                bystander(node, place, pool, tally.since)
            };
            self.put(pool, name, Some(tally));
        }
        node.counted_by = counted;
        self.count_control_plane(name, node);
        self.watch_drain(name, node, place, wake);
        node.wait_on(waits, self.now);
        self.show_waiting(name, node, place, wake);
    }

    /// Tells of a drain that takes long, once.
    fn watch_drain(
        &mut self,
        name: &NodeName,
        node: &mut Node,
        place: &Place,
        wake: &mut Option<Timestamp>,
    ) {
        let runs = node
            .drain
            .as_ref()
            .is_some_and(|drain| drain.stage == DrainStage::Running);
        if !runs || node.drain_noticed {
            return;
        }
        let slow = node.drain_since + SLOW_DRAIN;
        if self.now < slow {
            return earliest(wake, Some(slow));
        }
        node.drain_noticed = true;
        let pool = place.owner.as_ref().map(|owner| owner.pool.clone());
        self.notice_slow_drain(name, pool, &node::waiting::pods_message(&node.pods));
    }

    fn put(&mut self, pool: &PoolName, name: &NodeName, tally: Option<Tally>) {
        let entry = self.pools.entry(pool.clone()).or_default();
        if entry.sum.put(name, tally) {
            self.dirty_pools.insert(pool.clone());
        }
    }

    fn tally(
        &self,
        node: &Node,
        place: &Place,
        record: &Record,
        facts: &Facts<'_>,
        problem: Option<&Problem>,
    ) -> Tally {
        let left = place.wanted == Wanted::Left;
        let holds = node.holds();
        let own = health::problem(record, facts, None);
        let held_up = node.hold.as_ref().is_some_and(|hold| hold.until > self.now);
        let free = node.flight.is_none() && !held_up && place.ready;
        let down = facts.not_ready()
            || node
                .view
                .as_ref()
                .is_some_and(|node| node.cordoned && node.cordoned_by.is_none());
        Tally {
            bucket: bucket(node, place, record, facts, problem),
            since: record.since,
            waits: None,
            holds,
            unhealthy: if holds && !left {
                health::unhealthy(record, facts, problem)
            } else {
                None
            },
            candidate: free && !left && health::is_candidate(record, facts, own.as_ref()),
            wants_room: free && node.bootc.is_some() && health::wants_room(record, facts),
            stages: record.state == State::Staging && problem.is_none() && !left,
            unavailable: down && !holds && !left,
            owned: node.bootc.is_some() || node.created.is_some() || node.flight.is_some(),
            problem: problem
                .filter(|_| !left || node.hold.is_some())
                .map(|problem| problem.text.clone()),
            drain_waits: node
                .bootc
                .as_ref()
                .and_then(|bootc| bootc.waiting.as_ref())
                .filter(|it| it.waiting && it.reason == DRAIN_WAITS && holds && !left)
                .map(|it| it.message.clone()),
            rivals: place.rivals_of(place.owner.as_ref().map(|owner| &owner.pool)),
        }
    }
}

impl Place {
    pub(super) fn rivals_of(&self, pool: Option<&PoolName>) -> BTreeSet<PoolName> {
        self.quarrel
            .iter()
            .filter(|other| Some(*other) != pool)
            .cloned()
            .collect()
    }
}

/// The pools that count a node: those that claim it, its own, and one that has not let it go yet.
fn counted(node: &Node, place: &Place) -> BTreeSet<PoolName> {
    let mut pools: BTreeSet<_> = node
        .view
        .iter()
        .flat_map(|view| view.claims.clone())
        .collect();
    pools.extend(place.owner.as_ref().map(|owner| owner.pool.clone()));
    pools.extend(bound_to(node).into_iter().flatten().cloned());
    if node.is_gone() {
        BTreeSet::new()
    } else {
        pools
    }
}

/// The pools that a node is bound to beside its `BootcNode`. One that still bears a pool's cordon was
/// not let go yet, and one with a write of a pool under way may be its own in a moment.
fn bound_to(node: &Node) -> [Option<&PoolName>; 3] {
    let view = node.view.as_ref();
    [
        view.and_then(|view| view.cordoned_by.as_ref()),
        node.flight.as_ref().and_then(|it| it.pool.as_ref()),
        node.created.as_ref().map(|(_, pool)| pool),
    ]
}

/// What a node shows to a pool that does not have it.
fn bystander(node: &Node, place: &Place, pool: &PoolName, since: Timestamp) -> Tally {
    let view = node.view.as_ref();
    let claimed = view.is_some_and(|view| view.claims.contains(pool));
    // Nothing says whose label it is.
    let labelled = claimed && node.bootc.is_none() && view.is_some_and(|view| view.labelled);
    Tally {
        bucket: if claimed {
            Bucket::Pending
        } else {
            Bucket::Leaving
        },
        since,
        waits: None,
        holds: false,
        unhealthy: None,
        candidate: false,
        wants_room: false,
        stages: false,
        unavailable: false,
        owned: labelled || bound_to(node).contains(&Some(pool)),
        problem: None,
        drain_waits: None,
        rivals: place.rivals_of(Some(pool)),
    }
}

fn bucket(
    node: &Node,
    place: &Place,
    record: &Record,
    facts: &Facts<'_>,
    problem: Option<&Problem>,
) -> Bucket {
    if place.wanted == Wanted::Left || record.state == State::Leaving {
        return Bucket::Leaving;
    }
    if problem.is_some() {
        return Bucket::Degraded;
    }
    if node
        .bootc
        .as_ref()
        .is_none_or(|bootc| bootc.report.is_none())
    {
        return Bucket::Pending;
    }
    if health::is_updated(record, facts) {
        // Not before the writes by which it gets there (uncordon, end of the slot) took place.
        let before = node.flight.as_ref().and(node.record.as_ref());
        let unfinished = before.filter(|before| !health::is_updated(before, facts));
        return unfinished.map_or(Bucket::Updated, |before| Bucket::of(before.state));
    }
    if record.state != State::Staging && health::wants_room(record, facts) {
        return Bucket::Pending;
    }
    Bucket::of(record.state)
}
