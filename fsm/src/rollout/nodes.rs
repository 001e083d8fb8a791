//! One node: what it needs now, and what it shows to its pools.

use std::{cell::Cell, sync::Arc};

use super::{
    Key, Rollout,
    entry::{Flight, Hold, Node},
    grants::Grant,
    place::Place,
};
use crate::{
    command::{Command, Decision, Effect},
    names::NodeName,
    node::{
        self, Drain, DrainStage, Facts, Record, State, Wanted,
        effects::{self, Site},
        health, rebuild,
    },
    time::{Seconds, Timestamp},
};

/// A `BootcNode` that was made shows up within this time, or is made again.
const CREATED_SHOWS: Seconds = Seconds(30);

impl Rollout {
    /// Decides on a node if something is to be decided, and counts it anew.
    pub(super) fn evaluate(&mut self, name: &NodeName, grant: Grant) {
        let Some(mut node) = self.nodes.remove(name) else {
            return;
        };
        let now = self.now;
        let waited = |(at, _): &mut (Timestamp, _)| now >= *at + CREATED_SHOWS;
        node.created.take_if(waited);
        let place = self.place(name, &node);
        // What was granted by a write that got no answer is asked for again, not granted twice.
        let again = node.maybe_slot && self.may_still_have_slot(name, &node, &place);
        let grant = if again { Grant::Slot } else { grant };
        let mut wake = None;
        if may_decide(&node, &place, &mut wake) {
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

    /// May a slot that was granted and perhaps not written still be granted?
    fn may_still_have_slot(&self, name: &NodeName, node: &Node, place: &Place) -> bool {
        let Some(record) = &node.record else {
            return false;
        };
        let facts = self.facts(node, place, record, Grant::None);
        let problem = health::problem(record, &facts, None);
        place.slots_are_given
            && self.control_plane.allows(name)
            && health::is_candidate(record, &facts, problem.as_ref())
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
        let mut facts = self.facts(node, place, &record, grant);
        facts.halted |= self.halts(name, node, place, &facts);
        let site = site(node, place);
        let effects_of = |record: &Record| effects::effects(record, &facts, &site);
        let next = node::step(&record, &facts, |record| !effects_of(record).is_empty());
        let next = if next == *record {
            record.clone()
        } else {
            Arc::new(next)
        };
        // A write without an answer may have been an approval: that is settled before the cordon goes.
        let frees = record.slot.is_some() && next.slot.is_none();
        let next = if node.maybe_slot && frees {
            record
        } else {
            next
        };
        let effects = effects_of(&next);
        earliest(wake, facts.wake.get());
        self.proceed(name, node, place, next, effects, grant, wake);
    }

    /// Does what this node has just told halt its pool? The pool's sum knows of it only afterwards.
    fn halts(&self, name: &NodeName, node: &Node, place: &Place, facts: &Facts<'_>) -> bool {
        let owner = place.owner.as_ref();
        let pool = owner.and_then(|owner| self.pools.get(&owner.pool));
        pool.is_some_and(|pool| pool.sum.halted_beside(name))
            && node.holds()
            && node.record.as_ref().is_some_and(|record| {
                let problem = health::problem(record, facts, None);
                health::unhealthy(record, facts, problem.as_ref()).is_some()
            })
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
        self.proceed(name, node, place, Arc::new(record), effects, grant, wake);
    }

    /// The record to start from: the annotation's, or one rebuilt from the plain contract.
    fn load(&mut self, name: &NodeName, node: &mut Node, place: &Place) {
        let Some(bootc) = node.bootc.as_ref().filter(|_| node.record.is_none()) else {
            return;
        };
        let mut record = if let Some(kept) = &node.kept {
            Record {
                hops: Vec::new(),
                ..Record::clone(kept)
            }
        } else {
            let facts = self.facts(node, place, &Record::default(), Grant::None);
            let record = rebuild::rebuild(bootc, &facts);
            self.notice_rebuilt(name, place.owner.as_ref(), &bootc.kept);
            record
        };
        if let Some(view) = node.view.as_ref().filter(|_| record.node_uid.is_empty()) {
            record.node_uid.clone_from(&view.uid);
        }
        record.attempt = record.attempt.max(node.attempts);
        if let Some(kept) = &node.kept {
            self.tell_again(name, place.owner.as_ref().map(|owner| &owner.pool), kept);
        }
        node.record = Some(Arc::new(record));
    }

    /// Follows the record, at once where nothing has to be done for it.
    #[expect(clippy::too_many_arguments, reason = "the parts of one decision")]
    fn proceed(
        &mut self,
        name: &NodeName,
        node: &mut Node,
        place: &Place,
        record: Arc<Record>,
        effects: Vec<Effect>,
        grant: Grant,
        wake: &mut Option<Timestamp>,
    ) {
        node.attempts = node.attempts.max(record.attempt);
        if effects.is_empty() {
            // What a pool has granted, or held up by its halt, comes again, and its back-off goes on then.
            let comes_again = |hold: &Hold| (grantable(&record) && hold.granted) || place.halted;
            node.hold.take_if(|hold| !comes_again(hold));
            if node.bootc.is_some() {
                let hops = node.new_hops(&record);
                let pool = place.owner.as_ref().map(|owner| &owner.pool);
                self.tell(name, pool, node.trace().as_ref(), &hops, &record);
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
        let again = node
            .repeat
            .as_ref()
            .and_then(|done| done.again(name, &effects));
        if let Some(again) = again.filter(|again| *again > self.now) {
            earliest(wake, Some(again));
            return;
        }
        self.begin(name, node, place, record, effects, grant);
    }

    fn begin(
        &mut self,
        name: &NodeName,
        node: &mut Node,
        place: &Place,
        record: Arc<Record>,
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
        node.flight = Some(Box::new(Flight {
            id,
            hops: node.new_hops(&record),
            trace: node.trace(),
            pool: pool.clone(),
            record,
            effects: effects.clone(),
            granted: grant != Grant::None,
            node_news: false,
            bootc_news: false,
        }));
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
            wanted_since: place.wanted_since,
            contested: !place.quarrel.is_empty() && place.wanted != Wanted::Left,
            granted: grant == Grant::Slot,
            room: place.unlimited || grant == Grant::Room || stages(node, record),
            halted: place.halted,
            halted_ms: place.halted_for - halted_before,
            retry: place.retry,
            limits: place.limits,
            node: node.view.as_ref(),
            generation: node.bootc.as_ref().map_or(0, |bootc| bootc.generation),
            report: node
                .bootc
                .as_ref()
                .and_then(|bootc| bootc.report.as_deref()),
            drain: node.drain.as_ref(),
            wake: Cell::new(None),
        }
    }
}

/// Does it take room already? (After a restart a record says so of a node that is done as well.)
fn stages(node: &Node, record: &Record) -> bool {
    let report = node
        .bootc
        .as_ref()
        .and_then(|bootc| bootc.report.as_deref());
    let booted = report.and_then(|report| report.booted.as_ref());
    let done = booted.zip(record.image.as_ref());
    record.state == State::Staging && !done.is_some_and(|(booted, image)| booted.is(image))
}

pub(super) fn site<'a>(node: &'a Node, place: &'a Place) -> Site<'a> {
    Site {
        owner: place.owner.as_ref(),
        extras: &place.extras,
        bootc: node.bootc.as_ref(),
        kept: node.kept.as_deref(),
        doubtful: node.maybe_slot,
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
pub(super) fn same_effects(a: &[Effect], b: &[Effect]) -> bool {
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

fn may_decide(node: &Node, place: &Place, wake: &mut Option<Timestamp>) -> bool {
    if let Some((at, _)) = node.created {
        *wake = Some(at + CREATED_SHOWS);
        return false;
    }
    node.flight.is_none() && place.ready
}
