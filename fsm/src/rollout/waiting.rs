//! When the condition Waiting of a node is written: not for what is over in a moment, and news of the
//! same wait not more often than every 30 seconds. That a wait is over is said after a second, and another
//! cause as soon as it has lasted: a node that is drained must not seem to wait for its slot. Where many
//! nodes begin to wait at once, those without a slot take turns.

use super::{
    Rollout,
    entry::{Node, WaitingState},
    nodes::earliest,
    outcome::back_off_of,
    place::Place,
};
use crate::{
    command::Command,
    input::Outcome,
    names::NodeName,
    node::{
        Facts, Record, Wanted,
        health::Problem,
        waiting::{Outside, Wait, WaitingOn, waiting_on},
    },
    time::{Seconds, Timestamp},
    view::Waiting,
};

/// Shorter waits are not shown.
const SHOWN_AFTER: Seconds = Seconds(5);
/// A wait's end is shown after so long: just then a node mostly goes on, its agent and the next
/// decision write to the same object, and all but one of such writes are conflicts.
const END_SHOWN_AFTER: Seconds = Seconds(1);
/// The host's own work is shown as a wait once it takes so long.
const WORK_SHOWN_AFTER: Seconds = Seconds(60);
/// At most so often for one cause.
const PERIOD: Seconds = Seconds(30);
/// The time between two nodes of which that is shown, on average: each costs the API server as much as a
/// write that moves a node on, and in a large rollout thousands begin to wait at once. Most of those
/// will have gone on before they could be read of.
const PAUSE: i64 = 50;
/// So many may follow each other at once after a rest.
const BURST: i64 = 50;
/// The reason where nothing is waited for.
const NOT_WAITING: &str = "NotWaiting";

/// When the next node without a slot may show what it waits for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    last: Timestamp,
}

/// When a node may show what it waits for, and since when it does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    since: Timestamp,
    at: Timestamp,
}

impl Pace {
    /// The turn of a node that waits since then: the one that it has, or else the next. One that is
    /// still to come is good for another wait as well, or each that is over before its turn would
    /// leave a gap behind.
    fn turn(&mut self, turn: &mut Option<Turn>, since: Timestamp, now: Timestamp) -> Timestamp {
        let next = || {
            let rested = Timestamp(now.0 - BURST * PAUSE);
            self.last = Timestamp(self.last.max(rested).0 + PAUSE);
            self.last.max(now)
        };
        let at = turn
            .filter(|turn| turn.since == since || turn.at > now)
            .map_or_else(next, |turn| turn.at);
        *turn = Some(Turn { since, at });
        at
    }
}

/// Where a node without a slot waits for its turn: what a person may have to act on, and that a wait is
/// over, are not behind all that wait for a slot.
fn line(wait: Option<&Wait>) -> usize {
    usize::from(wait.is_some_and(|wait| !wait.on.is_warning()))
}

/// What is shown of this wait, or of the end of one at that time.
fn to_show(wait: Option<&Wait>, shown: Option<&Waiting>, over: Timestamp) -> Waiting {
    let begun = wait.map_or(over, |wait| wait.since).whole_seconds();
    let goes_on = shown.filter(|shown| shown.waiting == wait.is_some());
    Waiting {
        waiting: wait.is_some(),
        reason: wait.map_or(NOT_WAITING, |wait| wait.on.label()).to_owned(),
        message: wait.map(|wait| wait.on.to_string()).unwrap_or_default(),
        since: goes_on.map_or(begun, |shown| shown.since),
    }
}

impl WaitingState {
    /// When this wait may be shown; `news` says that another cause is.
    fn due(&self, wait: &Wait, news: bool) -> Timestamp {
        let grace = wait.since + SHOWN_AFTER;
        match self.last {
            Some(last) if !news => grace.max(last + PERIOD),
            _ => grace,
        }
    }
}

impl Rollout {
    pub(super) fn show_waiting(
        &mut self,
        name: &NodeName,
        node: &mut Node,
        place: &Place,
        wake: &mut Option<Timestamp>,
    ) {
        // What happens meanwhile begins the second anew.
        let was_over = node.waiting.over.take();
        let Some(pool) = place.owner.as_ref().map(|owner| &owner.pool) else {
            return;
        };
        let Some(bootc) = node.bootc.as_ref().filter(|bootc| !bootc.deleting) else {
            return;
        };
        // A decision mostly ends a wait, and two writes at once make one of them a conflict.
        let busy = node.waiting.in_flight.is_some() || node.flight.is_some();
        if place.wanted == Wanted::Left || !place.ready || busy {
            return;
        }
        let (now, in_slot) = (self.now, node.holds());
        let wait = node.waits.as_ref();
        // The host's work is no wait before it has taken its time.
        let work = wait.filter(|wait| wait.on.is_work());
        let overdue = work.map(|work| work.since + WORK_SHOWN_AFTER);
        let wait = wait.filter(|_| overdue.is_none_or(|overdue| overdue <= now));
        earliest(wake, overdue.filter(|overdue| *overdue > now));
        let shown = bootc.waiting.as_ref();
        let over = was_over.unwrap_or(now);
        let new = to_show(wait, shown, over);
        if shown.map_or(!new.waiting, |shown| *shown == new) {
            return;
        }
        let news = shown.is_none_or(|shown| shown.reason != new.reason);
        let due = match wait {
            Some(wait) => node.waiting.due(wait, news),
            None => over + END_SHOWN_AFTER,
        };
        let due = node.waiting.hold_until.map_or(due, |until| due.max(until));
        node.waiting.over = wait.is_none().then_some(over);
        // Those in slots are few, and somebody may have to act.
        let due = if due <= now && !in_slot {
            let (line, since) = (line(wait), wait.map_or(over, |wait| wait.since));
            self.paces[line].turn(&mut node.waiting.turns[line], since, now)
        } else {
            due
        };
        if due > now {
            earliest(wake, Some(due));
            return;
        }
        if let Some(wait) = wait.filter(|wait| news && wait.on.is_obstacle()) {
            let pool = Some(pool.clone());
            self.notice_wait(name, pool, &wait.on);
        }
        node.waiting.in_flight = Some(new.clone());
        node.waiting.last = Some(now);
        self.out.push(Command::Waiting {
            node: name.clone(),
            waiting: new,
        });
    }

    pub(super) fn take_waiting_done(&mut self, name: NodeName, outcome: &Outcome) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&name) else {
            return;
        };
        let state = &mut node.waiting;
        let ok = *outcome == Outcome::Ok;
        state.failures = if ok { 0 } else { state.failures + 1 };
        state.hold_until = (!ok).then(|| now + back_off_of(state.failures, name.as_str()));
        let written = state.in_flight.take().filter(|_| ok);
        if let (Some(written), Some(bootc)) = (written, node.bootc.as_mut()) {
            bootc.waiting = Some(written);
        }
        self.dirty_nodes.insert(name);
    }
}

impl Rollout {
    /// Why the node waits; nothing of one that no pool has.
    pub(super) fn waits(
        &self,
        name: &NodeName,
        node: &Node,
        place: &Place,
        record: &Record,
        facts: &Facts<'_>,
        problem: Option<&Problem>,
    ) -> Option<WaitingOn> {
        let owner = place.owner.as_ref().map(|owner| &owner.pool);
        let pool = owner.or(place.quarrel.first())?;
        if node.bootc.is_none() && place.wanted == Wanted::Left && place.quarrel.is_empty() {
            return None;
        }
        let rivals = place.rivals_of(owner);
        let outside = Outside {
            pool,
            ready: place.ready,
            paused: place.paused,
            control_plane_busy: !self.control_plane.allows(name),
            rivals: &rivals,
            pods: &node.pods,
        };
        waiting_on(record, facts, problem, outside)
    }
}

impl Node {
    /// It waits for this now. Other evidence for the same cause is the same wait.
    pub(super) fn wait_on(&mut self, on: Option<WaitingOn>, now: Timestamp) {
        let same = |wait: &Wait, on: &WaitingOn| wait.on.label() == on.label();
        self.waits = on.map(|on| Wait {
            since: match &self.waits {
                Some(wait) if same(wait, &on) => wait.since,
                _ => now,
            },
            on,
        });
    }
}
