//! One node: what it needs now, and what it shows to its pools.

use std::{cell::Cell, collections::BTreeSet};

use super::{
    Key, Rollout,
    entry::{Flight, Node},
    grants::Grant,
    place::Place,
};
use crate::{
    command::{Command, Decision, Effect},
    names::{NodeName, PoolName},
    node::{
        self, Drain, DrainStage, Facts, Record, State, Wanted,
        effects::{self, Site},
        health::{self, Problem},
        rebuild,
    },
    pool::{Bucket, Tally},
    time::{Seconds, Timestamp},
};

/// A `BootcNode` that was made shows up within this time, or is made again.
const CREATED_SHOWS: Seconds = Seconds(30);

/// A drain that runs longer is told of.
const SLOW_DRAIN: Seconds = Seconds(300);

impl Rollout {
    /// Decides on a node if something is to be decided, and counts it anew.
    pub(super) fn evaluate(&mut self, name: &NodeName, grant: Grant) {
        let Some(mut node) = self.nodes.remove(name) else {
            return;
        };
        let place = self.place(name, &node);
        let mut wake = None;
        if self.may_decide(&node, &place, &mut wake) {
            self.decide(name, &mut node, &place, grant, &mut wake);
        }
        self.count(name, &mut node, &place, &mut wake);
        self.set_timer(Key::Node(name.clone()), node.timer, wake);
        node.timer = wake;
        if node.is_gone() {
            self.set_timer(Key::Node(name.clone()), node.timer, None);
        } else {
            self.nodes.insert(name.clone(), node);
        }
    }

    fn may_decide(&self, node: &Node, place: &Place, wake: &mut Option<Timestamp>) -> bool {
        if let Some((at, _)) = node.created {
            let again = at + CREATED_SHOWS;
            if self.now < again {
                *wake = Some(again);
                return false;
            }
        }
        node.flight.is_none() && place.ready
    }

    fn decide(
        &mut self,
        name: &NodeName,
        node: &mut Node,
        place: &Place,
        grant: Grant,
        wake: &mut Option<Timestamp>,
    ) {
        if node.bootc.is_none() {
            return self.decide_outside(name, node, place, grant, wake);
        }
        self.load(name, node, place);
        let Some(record) = node.record.clone() else {
            return;
        };
        let facts = self.facts(node, place, &record, grant);
        let site = site(node, place);
        let effects_of = |record: &Record| effects::effects(record, &facts, &site);
        let next = node::step(&record, &facts, |record| !effects_of(record).is_empty());
        let effects = effects_of(&next);
        earliest(wake, facts.wake.get());
        self.proceed(name, node, place, next, effects, grant, wake);
    }

    /// A node without a `BootcNode`: it joins, or must not keep anything of us.
    fn decide_outside(
        &mut self,
        name: &NodeName,
        node: &mut Node,
        place: &Place,
        grant: Grant,
        wake: &mut Option<Timestamp>,
    ) {
        let facts = self.facts(node, place, &Record::default(), grant);
        let joins = node.view.is_some() && matches!(place.wanted, Wanted::Wants(_));
        let (record, effects) = if joins && place.quarrel.is_empty() {
            let record = rebuild::join(&facts);
            let effects = effects::effects(&record, &facts, &site(node, place));
            (record, effects)
        } else if place.quarrel.is_empty() && place.wanted == Wanted::Left {
            (Record::default(), effects::leftovers(&facts))
        } else {
            return;
        };
        self.proceed(name, node, place, record, effects, grant, wake);
    }

    /// The record to start from: the annotation's, or one rebuilt from the plain contract.
    fn load(&mut self, name: &NodeName, node: &mut Node, place: &Place) {
        let Some(bootc) = node.bootc.as_ref().filter(|_| node.record.is_none()) else {
            return;
        };
        let mut record = match &node.kept {
            Some(kept) => Record {
                hops: Vec::new(),
                ..kept.clone()
            },
            None => {
                let facts = self.facts(node, place, &Record::default(), Grant::None);
                let record = rebuild::rebuild(bootc, &facts);
                self.notice_rebuilt(name, place.owner.as_ref(), &bootc.kept);
                record
            }
        };
        if let Some(view) = node.view.as_ref().filter(|_| record.node_uid.is_empty()) {
            record.node_uid.clone_from(&view.uid);
        }
        record.attempt = record.attempt.max(node.attempts);
        node.record = Some(record);
    }

    /// Follows the record, at once where nothing has to be done for it.
    #[expect(clippy::too_many_arguments, reason = "the parts of one decision")]
    fn proceed(
        &mut self,
        name: &NodeName,
        node: &mut Node,
        place: &Place,
        record: Record,
        effects: Vec<Effect>,
        grant: Grant,
        wake: &mut Option<Timestamp>,
    ) {
        node.attempts = node.attempts.max(record.attempt);
        if effects.is_empty() {
            // What a pool has granted comes again, and its back-off goes on then.
            if !(grantable(&record) && node.hold.as_ref().is_some_and(|hold| hold.granted)) {
                node.hold = None;
            }
            if node.bootc.is_some() {
                let hops = node.new_hops(&record);
                let pool = place.owner.as_ref().map(|owner| &owner.pool);
                self.tell(name, pool, &hops, &record);
                node.follow(record);
            }
            return;
        }
        if let Some(hold) = &node.hold
            && hold.stops(self.now, |held| same_effects(held, &effects))
        {
            earliest(wake, Some(hold.until));
            return;
        }
        self.begin(name, node, place, record, effects, grant);
    }

    fn begin(
        &mut self,
        name: &NodeName,
        node: &mut Node,
        place: &Place,
        record: Record,
        effects: Vec<Effect>,
        grant: Grant,
    ) {
        for effect in &effects {
            match effect {
                Effect::CancelDrain => {
                    node.drain = None;
                    node.pods.clear();
                    node.attempts += 1;
                }
                Effect::StartDrain { attempt } => {
                    node.drain = Some(Drain {
                        attempt: *attempt,
                        stage: DrainStage::Running,
                    });
                    node.pods.clear();
                    (node.drain_since, node.drain_noticed) = (self.now, false);
                }
                _ => {}
            }
        }
        let id = self.next_id();
        let pool = place.owner.as_ref().map(|owner| owner.pool.clone());
        node.flight = Some(Flight {
            id,
            hops: node.new_hops(&record),
            pool: pool.clone(),
            record,
            effects: effects.clone(),
            granted: grant != Grant::None,
            node_news: false,
            bootc_news: false,
        });
        self.out.push(Command::Decide(Decision {
            node: name.clone(),
            pool,
            id,
            effects,
        }));
    }

    /// What is known of the node now.
    pub(super) fn facts<'a>(
        &self,
        node: &'a Node,
        place: &Place,
        record: &Record,
        grant: Grant,
    ) -> Facts<'a> {
        let halted_before = if node.halt_mark.0 == record.clock {
            node.halt_mark.1
        } else {
            place.halted_for
        };
        Facts {
            now: self.now,
            wanted: place.wanted.clone(),
            contested: !place.quarrel.is_empty() && place.wanted != Wanted::Left,
            granted: grant == Grant::Slot,
            room: place.unlimited || grant == Grant::Room || record.state == State::Staging,
            halted: place.halted,
            halted_ms: place.halted_for - halted_before,
            retry: place.retry,
            limits: place.limits,
            node: node.view.as_ref(),
            generation: node.bootc.as_ref().map_or(0, |bootc| bootc.generation),
            report: node.bootc.as_ref().and_then(|bootc| bootc.report.as_ref()),
            drain: node.drain.as_ref(),
            wake: Cell::new(None),
        }
    }

    /// Counts the node in its pool and in every pool that claims it.
    fn count(
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
        // Of a node without a record nothing is awaited yet.
        let problem = match node.shown() {
            Some(_) => health::problem(&record, &facts, node.refusal()),
            None => None,
        };
        let tally = self.tally(node, place, &record, &facts, problem.as_ref());
        let wait = self.wait(node, place, &record, &facts, problem.as_ref());
        earliest(wake, facts.wake.get());

        let counted = self.counted(node, place);
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
                bystander(place, pool)
            };
            self.put(pool, name, Some(tally));
        }
        node.counted_by = counted;
        self.count_control_plane(name, node);
        self.watch_drain(name, node, place, wake);
        self.show_waiting(name, node, place, wait, wake);
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

    fn counted(&self, node: &Node, place: &Place) -> BTreeSet<PoolName> {
        let mut pools: BTreeSet<_> = node
            .view
            .iter()
            .flat_map(|view| view.claims.clone())
            .collect();
        pools.extend(place.owner.as_ref().map(|owner| owner.pool.clone()));
        if node.is_gone() {
            BTreeSet::new()
        } else {
            pools
        }
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

/// What a node shows to a pool that claims it and does not have it.
fn bystander(place: &Place, pool: &PoolName) -> Tally {
    Tally {
        bucket: Bucket::Pending,
        holds: false,
        unhealthy: None,
        candidate: false,
        wants_room: false,
        stages: false,
        unavailable: false,
        owned: false,
        problem: None,
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
        return Bucket::Updated;
    }
    if record.state != State::Staging && health::wants_room(record, facts) {
        return Bucket::Pending;
    }
    Bucket::of(record.state)
}

pub(super) fn site<'a>(node: &'a Node, place: &'a Place) -> Site<'a> {
    Site {
        owner: place.owner.as_ref(),
        extras: &place.extras,
        bootc: node.bootc.as_ref(),
        kept: node.kept.as_ref(),
    }
}

pub(super) fn earliest(wake: &mut Option<Timestamp>, at: Option<Timestamp>) {
    *wake = match (*wake, at) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
}

fn grantable(record: &Record) -> bool {
    matches!(record.state, State::Idle | State::Staging | State::Staged)
}

/// The same decision? Times do not tell decisions apart.
fn same_effects(a: &[Effect], b: &[Effect]) -> bool {
    let same = |a: &Effect, b: &Effect| match (a, b) {
        (Effect::Commit(a), Effect::Commit(b))
        | (Effect::Create { write: a, .. }, Effect::Create { write: b, .. }) => {
            a.spec == b.spec
                && a.record.state == b.record.state
                && a.in_reboot_slot == b.in_reboot_slot
                && a.retry == b.retry
        }
        (a, b) => a == b,
    };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
}
