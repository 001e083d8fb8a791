//! What is remembered of each node and pool beside their objects: what is under way.

use std::{collections::BTreeSet, sync::Arc};

use super::waiting::Turn;
use crate::{
    command::Effect,
    image::Image,
    input::BlockedPod,
    names::PoolName,
    node::{Drain, DrainStage, Hop, Record, State, Trace, waiting::Wait},
    pool::{Bucket, Sum},
    time::Timestamp,
    view::{BootcNodeView, ImageRef, Kept, NodeView, PoolStatus, PoolView, SecretRef, Waiting},
};

/// A node.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) view: Option<NodeView>,
    /// A time of its condition Ready that is ahead of our clock, and when that was first seen.
    ready_ahead: Option<(Timestamp, Timestamp)>,
    pub(super) bootc: Option<BootcNodeView>,
    /// The record in the annotation, as last read or written.
    pub(super) kept: Option<Arc<Record>>,
    /// The same with the hops since, which needed no write.
    pub(super) record: Option<Arc<Record>>,
    pub(super) drain: Option<Drain>,
    pub(super) drain_since: Timestamp,
    pub(super) drain_noticed: bool,
    pub(super) pods: Vec<BlockedPod>,
    /// No drain gets this number or a smaller one again.
    pub(super) attempts: u32,
    /// Boxed, as most nodes have none and this is large.
    pub(super) flight: Option<Box<Flight>>,
    pub(super) hold: Option<Hold>,
    pub(super) repeat: Option<Repeat>,
    /// A slot was asked for by a write of which nobody knows whether it took place.
    pub(super) maybe_slot: bool,
    /// A `BootcNode` was made and has not been seen yet.
    pub(super) created: Option<(Timestamp, PoolName)>,
    /// The record's clock, and how long the pool had been halted when that was first seen.
    pub(super) halt_mark: (Timestamp, i64),
    /// The pools that count this node.
    pub(super) counted_by: BTreeSet<PoolName>,
    pub(super) timer: Option<Timestamp>,
    pub(super) waiting: WaitingState,
    /// What it waits for, shown or not.
    pub(super) waits: Option<Wait>,
    /// Where it stands in its pool, and since when.
    pub(super) stands: Option<(Bucket, Timestamp)>,
}

/// A decision under way.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) id: u64,
    /// What is so once it is done.
    pub(super) record: Arc<Record>,
    pub(super) effects: Vec<Effect>,
    /// The hops that it adds to the record, to be told once it is done.
    pub(super) hops: Vec<Hop>,
    /// The update that the node is on before them.
    pub(super) trace: Option<Trace>,
    pub(super) pool: Option<PoolName>,
    /// It gives the node something that the pool has granted.
    pub(super) granted: bool,
    /// News of the Node came meanwhile.
    pub(super) node_news: bool,
    /// News of the `BootcNode` came meanwhile.
    pub(super) bootc_news: bool,
}

/// A decision that failed and is not repeated for a while. Another decision is not held up.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub(super) effects: Vec<Effect>,
    pub(super) until: Timestamp,
    pub(super) tries: u32,
    pub(super) granted: bool,
    /// What the API server says, once that is worth showing.
    pub(super) text: Option<String>,
    /// Any news of the node ends it.
    pub(super) ends_with_news: bool,
}

/// A decision that took place, and how often in a row. One that is undone again and again (by
/// somebody who wants it otherwise) is repeated ever more seldom, not in a hot loop.
#[derive(Clone, Debug)]
pub(super) struct Repeat {
    pub(super) effects: Vec<Effect>,
    pub(super) at: Timestamp,
    pub(super) times: u32,
}

/// What is under way with the condition Waiting.
#[derive(Clone, Debug, Default)]
pub(super) struct WaitingState {
    pub(super) in_flight: Option<Waiting>,
    pub(super) last: Option<Timestamp>,
    /// When it is this node's turn to show what it waits for, in each line.
    pub(super) turns: [Option<Turn>; 2],
    /// Since when the wait that is still shown is over.
    pub(super) over: Option<Timestamp>,
    /// Writes in a row that did not take place.
    pub(super) failures: u32,
    /// The next one not before.
    pub(super) hold_until: Option<Timestamp>,
}

impl Node {
    pub(super) fn see(&mut self, mut view: Option<NodeView>, now: Timestamp) {
        if let Some(view) = &mut view {
            self.set_ready_since(view, now);
        }
        if let Some(flight) = &mut self.flight {
            flight.node_news = true;
        }
        self.news();
        // An uncordon that is over before anything could follow from it is not to be seen later.
        let takes_pods = view.as_ref().is_none_or(|view| !view.cordoned);
        if let Some(drain) = self.drain.as_mut().filter(|_| takes_pods) {
            drain.stage = DrainStage::Void;
        }
        self.view = view;
    }

    /// The time of the condition Ready is by the clock of whoever wrote it. What is still to come by
    /// ours has begun when it was first seen: an operator whose clock is behind would else wait until
    /// that has caught up.
    fn set_ready_since(&mut self, view: &mut NodeView, now: Timestamp) {
        let Some(said) = view.ready_since.filter(|said| *said > now) else {
            self.ready_ahead = None;
            return;
        };
        let before = self.ready_ahead.filter(|(before, _)| *before == said);
        let (_, seen) = *self.ready_ahead.insert(before.unwrap_or((said, now)));
        view.ready_since = Some(seen);
    }

    pub(super) fn see_bootc(&mut self, view: Option<BootcNodeView>) {
        if let Some(flight) = &mut self.flight {
            flight.bootc_news = true;
        }
        self.news();
        self.maybe_slot = false;
        let same = matches!((&self.bootc, &view), (Some(old), Some(new)) if old.uid == new.uid);
        let kept = match view.as_ref().map(|view| &view.kept) {
            Some(Kept::Is(record)) => Some(record.clone()),
            _ => None,
        };
        // An annotation that is lost while we know better is written again.
        if !same || (kept.is_some() && kept != self.kept) {
            self.record = None;
        }
        if view.is_some() {
            self.created = None;
        }
        self.kept = kept;
        self.bootc = view;
    }

    fn news(&mut self) {
        if self.hold.as_ref().is_some_and(|hold| hold.ends_with_news) {
            self.hold = None;
        }
    }

    /// Goes on with this record. A drain that is done is of use only while the node is drained.
    pub(super) fn follow(&mut self, record: Arc<Record>) {
        let done = |drain: &mut Drain| drain.stage == DrainStage::Done;
        if record.state != State::Draining {
            self.drain.take_if(done);
        }
        self.record = Some(record);
    }

    /// The hops that `after` has and the record has not.
    pub(super) fn new_hops(&self, after: &Record) -> Vec<Hop> {
        let known = self.record.as_ref().map_or(&[][..], |record| &record.hops);
        let new = after.hops.iter().filter(|hop| !known.contains(hop));
        new.cloned().collect()
    }

    /// The update that it is on.
    pub(super) fn trace(&self) -> Option<Trace> {
        self.record.as_ref()?.trace()
    }

    /// Nothing of it is left.
    pub(super) fn is_gone(&self) -> bool {
        self.view.is_none() && self.bootc.is_none() && self.flight.is_none()
    }

    /// The record to be shown: what a decision under way will make of it.
    pub(super) fn shown(&self) -> Option<&Record> {
        self.flight
            .as_ref()
            .map(|flight| &*flight.record)
            .or(self.record.as_deref())
    }

    /// It holds a slot, is about to, or may.
    pub(super) fn holds(&self) -> bool {
        let has = |record: Option<&Record>| record.is_some_and(|record| record.slot.is_some());
        let lost = self.bootc.is_none()
            && self
                .view
                .as_ref()
                .is_some_and(|node| node.cordoned_by.is_some());
        has(self.kept.as_deref())
            || has(self.record.as_deref())
            || has(self.shown())
            || self.maybe_slot
            || lost
            || (self.kept.is_none()
                && self
                    .bootc
                    .as_ref()
                    .is_some_and(|bootc| bootc.in_reboot_slot))
    }

    /// Since when it stands there. Of a node that is seen for the first time its record is the best
    /// witness.
    pub(super) fn stands_since(&mut self, bucket: Bucket, now: Timestamp) -> Timestamp {
        let since = match self.stands {
            Some((stood, since)) if stood == bucket => since,
            Some(_) => now,
            None => self.shown().map_or(now, |record| record.since),
        };
        self.stands = Some((bucket, since));
        since
    }

    /// What the API server says against our last write. In a halted pool it counts only for the time of
    /// its back-off: else refused writes of two slot holders halt the pool, and so are never repeated.
    pub(super) fn refusal(&self, halted: bool, now: Timestamp) -> Option<&str> {
        let counts = |hold: &&Hold| !halted || self.flight.is_some() || hold.until > now;
        let hold = self.hold.as_ref().filter(counts)?;
        hold.text.as_deref()
    }
}

/// A pool.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    pub(super) view: Option<PoolView>,
    pub(super) sum: Sum,
    pub(super) resolution: Option<Resolution>,
    pub(super) secret: Option<(SecretRef, Result<String, String>)>,
    pub(super) was_halted: bool,
    pub(super) halted_since: Option<Timestamp>,
    pub(super) halted_ms: i64,
    /// How often staging failed on a node, as far as was seen.
    pub(super) stage_failures: u64,
    /// The target, and since when it is that one; of the first one that was seen, since then.
    pub(super) target_since: Option<(Image, Timestamp)>,
    pub(super) flight: Option<PoolFlight>,
    pub(super) failures: u32,
    pub(super) hold_until: Option<Timestamp>,
    /// The status as it stands at the API server.
    pub(super) shown: Option<PoolStatus>,
    pub(super) written: Option<Timestamp>,
    pub(super) timer: Option<Timestamp>,
}

/// A pool's pull secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secret<'a> {
    /// The pool names none.
    None,
    /// Nobody has looked yet.
    Unseen,
    /// Hash of its content, or what is wrong with it.
    Seen(&'a SecretRef, Result<&'a str, &'a str>),
}

/// A write to a pool under way.
#[derive(Clone, Debug)]
pub(super) struct PoolFlight {
    pub(super) id: u64,
    pub(super) what: crate::command::PoolWrite,
}

/// What is known of a tag.
#[derive(Clone, Debug)]
pub(super) struct Resolution {
    pub(super) reference: String,
    /// Of this reference, never of another one.
    pub(super) digest: Option<String>,
    pub(super) next: Timestamp,
    pub(super) asked: bool,
    pub(super) failures: u32,
    pub(super) error: Option<String>,
}

impl Pool {
    /// It exists and is to stay.
    pub(super) fn alive(&self) -> Option<&PoolView> {
        self.view.as_ref().filter(|view| !view.deleting)
    }

    /// What it wants its nodes to run.
    pub(super) fn target(&self) -> Option<Image> {
        let spec = &self.alive()?.spec;
        match &spec.image {
            _ if spec.invalid.is_some() => None,
            ImageRef::Pinned(image) => Some(image.clone()),
            ImageRef::Tag { repository, .. } => {
                let known = self.resolution.as_ref()?;
                Image::of(repository, known.digest.as_deref()?)
            }
            ImageRef::Invalid(_) => None,
        }
    }

    /// Notes when the target changed.
    pub(super) fn follow_target(&mut self, now: Timestamp) {
        let target = self.target();
        let known = self.target_since.as_ref();
        if known.map(|(image, _)| image) != target.as_ref() {
            self.target_since = target.map(|image| (image, now));
        }
    }

    /// What is known of its pull secret.
    pub(super) fn secret(&self) -> Secret<'_> {
        let wanted = self
            .view
            .as_ref()
            .and_then(|view| view.spec.secret.as_ref());
        match (wanted, &self.secret) {
            (None, _) => Secret::None,
            (Some(wanted), Some((seen, result))) if seen == wanted => {
                Secret::Seen(wanted, result.as_deref().map_err(String::as_str))
            }
            (Some(_), _) => Secret::Unseen,
        }
    }

    /// Its finalizer is in place and its secret was looked at: nodes may be decided on.
    pub(super) fn is_ready(&self) -> bool {
        self.view.as_ref().is_some_and(|view| view.finalizer) && self.secret() != Secret::Unseen
    }

    /// For how long it has been halted in this process, in milliseconds.
    pub(super) fn halted_for(&self, now: Timestamp) -> i64 {
        self.halted_ms + self.halted_since.map_or(0, |since| now.since(since))
    }
}
