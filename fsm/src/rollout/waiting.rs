//! When the condition Waiting of a node is written: not for what is over in a moment, and news of the
//! same wait not more often than every 30 seconds. That a wait is over is said after a second, and another
//! cause as soon as it has lasted: a node that is drained must not seem to wait for its slot.

use super::{Rollout, entry::Node, nodes::earliest, outcome::back_off_of, place::Place};
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
/// The reason where nothing is waited for.
const NOT_WAITING: &str = "NotWaiting";

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
        let now = self.now;
        let wait = node.waits.as_ref();
        // The host's work is no wait before it has taken its time.
        let work = wait.filter(|wait| wait.on.is_work());
        let overdue = work.map(|work| work.since + WORK_SHOWN_AFTER);
        let wait = wait.filter(|_| overdue.is_none_or(|overdue| overdue <= now));
        earliest(wake, overdue.filter(|overdue| *overdue > now));
        let shown = bootc.waiting.as_ref();
        let over = was_over.unwrap_or(now);
        let new = Waiting {
            waiting: wait.is_some(),
            reason: wait.map_or(NOT_WAITING, |wait| wait.on.label()).to_owned(),
            message: wait.map(|wait| wait.on.to_string()).unwrap_or_default(),
            since: shown
                .filter(|shown| shown.waiting == wait.is_some())
                .map_or_else(
                    || wait.map_or(over, |wait| wait.since).whole_seconds(),
                    |shown| shown.since,
                ),
        };
        if shown.map_or(!new.waiting, |shown| *shown == new) {
            return;
        }
        node.waiting.over = wait.is_none().then_some(over);
        let grace = wait.map_or(now, |wait| wait.since + SHOWN_AFTER);
        let news = shown.is_none_or(|shown| shown.reason != new.reason);
        let due = match node.waiting.last {
            _ if !new.waiting => over + END_SHOWN_AFTER,
            Some(last) if !news => grace.max(last + PERIOD),
            _ => grace,
        };
        let due = node.waiting.hold_until.map_or(due, |until| due.max(until));
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
