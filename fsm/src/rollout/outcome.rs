//! What a finished decision changes.

use std::sync::Arc;

use super::{
    Rollout,
    entry::{Flight, Hold, Node, Repeat},
    nodes::same_effects,
};
use crate::{
    command::{Effect, NodeWrite},
    input::Outcome,
    names::NodeName,
    node::{Hop, Record},
    time::{Seconds, Timestamp},
    view::Kept,
};

/// News are awaited this long before a stale decision is made again.
const NEWS_WITHIN: Seconds = Seconds(5);
/// A hop is kept by every write within this time, to be told again after a restart.
const HOPS_KEPT: Seconds = Seconds(60);
/// Longest back-off, in seconds.
const BACK_OFF_MAX: u32 = 60;
/// So often a decision is repeated without a pause while it is undone.
const REPEATED_AT_ONCE: u32 = 3;
/// So many failures in a row without an answer are shown.
const SHOWN_FROM: u32 = 3;

impl Rollout {
    pub(super) fn take_done(&mut self, name: &NodeName, id: u64, done: usize, outcome: Outcome) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        let Some(flight) = node.flight.take_if(|flight| flight.id == id) else {
            return;
        };
        self.dirty_nodes.insert(name.clone());
        let all = outcome == Outcome::Ok;
        let done = if all {
            flight.effects.len()
        } else {
            done.min(flight.effects.len())
        };
        let mut behind = false;
        for effect in flight.effects.iter().take(done) {
            behind |= apply(node, effect, &flight, now);
        }
        if all {
            succeed(node, &flight, behind, now);
            let Flight { effects, .. } = *flight;
            node.repeat = Some(Repeat::of(node.repeat.take(), effects, now));
            let (pool, before) = (flight.pool.as_ref(), flight.trace.as_ref());
            self.tell(name, pool, before, &flight.hops, &flight.record);
        } else {
            fail(name, node, &flight, done, behind, outcome, now);
        }
    }
}

fn succeed(node: &mut Node, flight: &Flight, behind: bool, now: Timestamp) {
    node.hold = behind.then(|| await_news(now, flight));
    let settles = |effect: &Effect| matches!(effect, Effect::Commit(_) | Effect::Delete);
    node.maybe_slot &= !flight.effects.iter().any(settles);
    if node.bootc.is_none() || is_overtaken(node, flight) {
        return;
    }
    let written = flight.effects.iter().find_map(|effect| match effect {
        Effect::Commit(write) => Some(with_fresh_hops(&write.record, now)),
        _ => None,
    });
    let record = written.unwrap_or_else(|| flight.record.clone());
    node.follow(record);
}

/// Somebody else wrote another record while effects were carried out that write none: that one holds.
fn is_overtaken(node: &Node, flight: &Flight) -> bool {
    let writes = |effect: &Effect| matches!(effect, Effect::Commit(_) | Effect::Create { .. });
    flight.bootc_news && node.record.is_none() && !flight.effects.iter().any(writes)
}

/// The record with the hops that the next write keeps as well: a process that dies right after may
/// not have told of them.
fn with_fresh_hops(record: &Arc<Record>, now: Timestamp) -> Arc<Record> {
    let fresh = |hop: &Hop| now < hop.at + HOPS_KEPT;
    let mut record = record.clone();
    if !record.hops.iter().all(fresh) {
        Arc::make_mut(&mut record).hops.retain(fresh);
    }
    record
}

fn fail(
    name: &NodeName,
    node: &mut Node,
    flight: &Flight,
    done: usize,
    behind: bool,
    outcome: Outcome,
    now: Timestamp,
) {
    let rest = flight.effects.get(done..).unwrap_or_default();
    // A drain that was to be started and was not does not run.
    if rest
        .iter()
        .any(|effect| matches!(effect, Effect::StartDrain { .. }))
    {
        node.drain = None;
    }
    match outcome {
        Outcome::Refused(text) => {
            node.maybe_slot = false;
            node.hold = Some(back_off(name, node.hold.as_ref(), now, flight, Some(text)));
        }
        Outcome::Failed(text) => {
            node.maybe_slot |= rest.iter().any(takes_slot) && !flight.bootc_news;
            let tries = node.hold.as_ref().map_or(1, |hold| hold.tries + 1);
            let text = Some(text).filter(|_| tries >= SHOWN_FROM);
            node.hold = Some(back_off(name, node.hold.as_ref(), now, flight, text));
        }
        Outcome::Conflict | Outcome::Gone | Outcome::Ok => {
            let seen = flight.node_news || flight.bootc_news;
            node.hold = (!seen || behind).then(|| await_news(now, flight));
        }
    }
}

/// What the effect has changed. If news of the object came meanwhile they are left as they are,
/// being newer or about to be followed by newer ones; `true` if they do not show the effect yet.
fn apply(node: &mut Node, effect: &Effect, flight: &Flight, now: Timestamp) -> bool {
    match effect {
        Effect::Create { owner, write } => {
            node.created = node.bootc.is_none().then(|| (now, owner.pool.clone()));
            let seen = node.bootc.is_some();
            if seen {
                node.kept.get_or_insert_with(|| write.record.clone());
            }
            false
        }
        Effect::Commit(write) => apply_commit(node, write, flight.bootc_news),
        Effect::Delete => {
            if flight.bootc_news && node.bootc.is_some() {
                return true;
            }
            (node.bootc, node.kept, node.record) = (None, None, None);
            false
        }
        _ => apply_to_node(node, effect, flight.node_news),
    }
}

fn apply_commit(node: &mut Node, write: &NodeWrite, news: bool) -> bool {
    let Some(bootc) = &mut node.bootc else {
        return false;
    };
    if news {
        return node.kept.as_ref() != Some(&write.record);
    }
    if bootc.spec != write.spec {
        bootc.generation += 1;
        bootc.spec = write.spec.clone();
    }
    bootc.kept = Kept::Is(write.record.clone());
    bootc.in_reboot_slot = write.in_reboot_slot;
    bootc.was_cordoned = write.was_cordoned;
    bootc.retry = write.retry;
    node.kept = Some(write.record.clone());
    false
}

fn apply_to_node(node: &mut Node, effect: &Effect, news: bool) -> bool {
    let Some(view) = &mut node.view else {
        return false;
    };
    let mut after = view.clone();
    match effect {
        Effect::Uncordon => (after.cordoned, after.cordoned_by) = (false, None),
        Effect::ForgetCordon => after.cordoned_by = None,
        Effect::Unlabel => after.labelled = false,
        Effect::Label => after.labelled = true,
        Effect::Cordon { by } => (after.cordoned, after.cordoned_by) = (true, Some(by.clone())),
        _ => {}
    }
    if news {
        return *view != after;
    }
    *view = after;
    false
}

fn takes_slot(effect: &Effect) -> bool {
    matches!(effect, Effect::Commit(write) | Effect::Create { write, .. } if write.in_reboot_slot)
}

fn await_news(now: Timestamp, flight: &Flight) -> Hold {
    Hold {
        effects: Vec::new(),
        until: now + NEWS_WITHIN,
        tries: 0,
        granted: flight.granted,
        text: None,
        ends_with_news: true,
    }
}

fn back_off(
    name: &NodeName,
    before: Option<&Hold>,
    now: Timestamp,
    flight: &Flight,
    text: Option<String>,
) -> Hold {
    let tries = before.map_or(1, |hold| hold.tries + 1);
    Hold {
        effects: flight.effects.clone(),
        until: now + back_off_of(tries, name.as_str()),
        tries,
        granted: flight.granted,
        text,
        ends_with_news: false,
    }
}

/// 1, 2, 4 … 60 seconds, and up to a quarter more, by name, so that not all try at once.
pub(super) fn back_off_of(tries: u32, name: &str) -> Seconds {
    let seconds = (1u32 << tries.saturating_sub(1).min(6)).min(BACK_OFF_MAX);
    Seconds(seconds + spread(name, seconds / 4))
}

/// A number from 0 to `most` that differs by name.
pub(super) fn spread(name: &str, most: u32) -> u32 {
    let sum = name.bytes().fold(0u32, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u32::from(byte))
    });
    sum % (most + 1)
}

impl Repeat {
    /// Of a decision that took place now.
    fn of(before: Option<Self>, effects: Vec<Effect>, now: Timestamp) -> Self {
        let recent = |it: &Self| now < it.at + Seconds(2 * BACK_OFF_MAX);
        let times = before
            .filter(|it| recent(it) && same_effects(&it.effects, &effects))
            .map_or(1, |it| it.times + 1);
        Self {
            effects,
            at: now,
            times,
        }
    }

    /// When these effects may take place, if they are the same once more.
    pub(super) fn again(&self, name: &NodeName, effects: &[Effect]) -> Option<Timestamp> {
        let spent = self.times.checked_sub(REPEATED_AT_ONCE)?;
        same_effects(&self.effects, effects)
            .then(|| self.at + back_off_of(spent + 1, name.as_str()))
    }
}

impl Hold {
    /// Does it hold up these effects? One that awaits news holds up all.
    pub(super) fn stops(&self, now: Timestamp, same: impl Fn(&[Effect]) -> bool) -> bool {
        self.until > now && (self.ends_with_news || same(&self.effects))
    }
}
