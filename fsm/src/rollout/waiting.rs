//! When the condition Waiting of a node is written: not for what is over in a moment, and news of the
//! same wait not more often than every 30 seconds. That a wait is over is said at once, and another
//! cause as soon as it has lasted: a node that is drained must not seem to wait for its slot.

use std::collections::BTreeSet;

use super::{Rollout, entry::Node, nodes::earliest, place::Place};
use crate::{
    command::Command,
    input::Outcome,
    names::NodeName,
    node::{
        Facts, Record, Wanted,
        health::Problem,
        waiting::{Outside, WaitingOn, waiting_on},
    },
    time::{Seconds, Timestamp},
    view::Waiting,
};

/// Shorter waits are not shown.
const SHOWN_AFTER: Seconds = Seconds(5);
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
        wait: Option<&WaitingOn>,
        wake: &mut Option<Timestamp>,
    ) {
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
        let reason = wait.map(WaitingOn::reason);
        if node.waiting.reason.map(|(reason, _)| reason) != reason {
            node.waiting.reason = reason.map(|reason| (reason, now));
        }
        let since = node.waiting.reason.map_or(now, |(_, since)| since);
        let shown = bootc.waiting.as_ref();
        let new = Waiting {
            waiting: wait.is_some(),
            reason: reason.unwrap_or(NOT_WAITING).to_owned(),
            message: wait
                .as_ref()
                .map(|wait| wait.message(pool))
                .unwrap_or_default(),
            since: shown
                .filter(|shown| shown.waiting == wait.is_some())
                .map_or(since.whole_seconds(), |shown| shown.since),
        };
        if shown.map_or(!new.waiting, |shown| *shown == new) {
            return;
        }
        let grace = since + SHOWN_AFTER;
        let due = match node.waiting.last {
            _ if !new.waiting => now,
            Some(last) if shown.is_some_and(|shown| shown.reason == new.reason) => {
                grace.max(last + PERIOD)
            }
            _ => grace,
        };
        if due > now {
            earliest(wake, Some(due));
            return;
        }
        node.waiting.in_flight = Some(new.clone());
        node.waiting.last = Some(now);
        self.out.push(Command::Waiting {
            node: name.clone(),
            waiting: new,
        });
    }

    pub(super) fn take_waiting_done(&mut self, name: NodeName, outcome: &Outcome) {
        let Some(node) = self.nodes.get_mut(&name) else {
            return;
        };
        let written = node
            .waiting
            .in_flight
            .take()
            .filter(|_| *outcome == Outcome::Ok);
        if let (Some(written), Some(bootc)) = (written, node.bootc.as_mut()) {
            bootc.waiting = Some(written);
        }
        self.dirty_nodes.insert(name);
    }
}

/// Why the node waits; nothing of a node that goes.
pub(super) fn wait(
    node: &Node,
    place: &Place,
    record: &Record,
    facts: &Facts<'_>,
    problem: Option<&Problem>,
) -> Option<WaitingOn> {
    let owner = place
        .owner
        .as_ref()
        .filter(|_| place.wanted != Wanted::Left)?;
    let rivals: BTreeSet<_> = place.rivals_of(Some(&owner.pool));
    let outside = Outside {
        paused: place.paused,
        rivals: &rivals,
        pods: &node.pods,
    };
    waiting_on(record, facts, problem, outside)
}
