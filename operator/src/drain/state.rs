//! What one drain knows between two changes: its [`Board`], how fresh that is, what was said last.
//!
//! No I/O: the task feeds in changes and does what the answers ask for.

use std::time::Duration;

use kube::runtime::watcher::{self, Event};
use tokio::time::Instant;

use super::{
    Waits,
    board::{Board, Target},
    cause::Answer,
    pod::{Pod, PodName, PodView, Uid},
};
use crate::words;

/// When a watch whose list has not come is given up for a new one; longer than its own back-off.
const LISTING: Duration = Duration::from_secs(60);
/// When a watch that was refused is given up for a new one, so that it is known to be well again.
const REFUSED: Duration = Duration::from_secs(10);
/// The time between two tries of the last list.
const LIST_AGAIN: Duration = Duration::from_secs(5);
/// The shortest time between two reports.
const REPORTS: Duration = Duration::from_secs(1);

/// What one drain knows.
#[derive(Debug)]
pub(super) struct State {
    board: Board,
    /// The moment of the last change. What is due and when to wake are judged by the same moment,
    /// or what becomes due between the two would be missed.
    now: Instant,
    /// The pods of a list that is not complete yet.
    listing: Vec<Pod>,
    listed: bool,
    /// When to give up the watch for a new one.
    watch_until: Option<Instant>,
    /// When the last list may be tried again.
    last_list: Instant,
    done: bool,
    trouble: Option<String>,
    said: Option<Waits>,
    say_next: Instant,
}

impl State {
    /// A drain whose watch has just been begun.
    pub(super) fn new(board: Board, now: Instant) -> Self {
        Self {
            board,
            now,
            listing: Vec::new(),
            listed: false,
            watch_until: Some(now + LISTING),
            last_list: now,
            done: false,
            trouble: None,
            said: None,
            say_next: now,
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant) {
        self.now = now;
    }

    /// The watch says something.
    pub(super) fn seen(&mut self, seen: watcher::Result<Event<PodView>>, now: Instant) {
        self.now = now;
        match seen {
            Ok(Event::Init) => {
                self.listing.clear();
                self.watch_until = Some(now + LISTING);
            }
            Ok(Event::InitApply(view)) => self.listing.extend(Pod::read(&view)),
            Ok(Event::InitDone) => {
                self.listed = true;
                self.watch_until = None;
                self.trouble = None;
                self.board.replace(std::mem::take(&mut self.listing), now);
            }
            Ok(Event::Apply(view)) => {
                if let Some(pod) = Pod::read(&view) {
                    self.board.apply(pod, now);
                }
            }
            Ok(Event::Delete(view)) => {
                if let Some(pod) = Pod::read(&view) {
                    self.board.gone(&pod.uid);
                }
            }
            Err(error) => self.failed(&error),
        }
    }

    /// The watch retries by itself. One that breaks off is taken up again and is not worth a word;
    /// one that cannot begin hides the pods from this drain.
    fn failed(&mut self, error: &watcher::Error) {
        match error {
            watcher::Error::InitialListFailed(_) => {}
            watcher::Error::WatchStartFailed(_) => self.watch_until = Some(self.now + REFUSED),
            _ => return,
        }
        self.trouble = Some(words::watch(error));
    }

    /// An eviction was answered.
    pub(super) fn answered(&mut self, uid: &Uid, answer: Answer, now: Instant) {
        self.now = now;
        self.board.answered(uid, answer, now);
    }

    /// Whether the watch must be begun anew; asked once, then it is taken as done.
    pub(super) fn wants_new_watch(&mut self) -> bool {
        let wants = self.watch_until.is_some_and(|until| until <= self.now);
        if wants {
            self.watch_until = Some(self.now + LISTING);
        }
        wants
    }

    /// Whether nothing is left as far as the watch says, so that it is time to list again.
    pub(super) fn wants_last_list(&self) -> bool {
        self.listed && self.board.left() == 0 && self.last_list <= self.now
    }

    /// The answer to the last list. Pods in it that must go are evicted like the others.
    pub(super) fn listed_again(&mut self, list: Result<Vec<Pod>, String>, now: Instant) {
        self.now = now;
        match list {
            Ok(pods) => {
                self.trouble = None;
                self.board.replace(pods, now);
                self.done = self.board.left() == 0;
            }
            Err(trouble) => {
                self.trouble = Some(trouble);
                self.last_list = now + LIST_AGAIN;
            }
        }
    }

    /// Whether the last list showed only what may stay.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// The pods that came back and may stay.
    pub(super) fn staying(&self) -> Vec<PodName> {
        self.board.staying()
    }

    /// At most `room` evictions that are due, taken as asked for.
    pub(super) fn due(&mut self, room: usize) -> Vec<Target> {
        self.board.due(self.now, room)
    }

    /// When to look again without a change from outside.
    pub(super) fn wake(&self) -> Option<Instant> {
        let last_list = (self.listed && self.board.left() == 0).then_some(self.last_list);
        let say = self.has_news().then_some(self.say_next);
        [self.board.wake(self.now), self.watch_until, last_list, say]
            .into_iter()
            .flatten()
            .min()
    }

    /// What there is to report, at most once a second; asked once, then it is taken as said.
    pub(super) fn news(&mut self) -> Option<Waits> {
        if self.say_next > self.now || !self.has_news() {
            return None;
        }
        self.say_next = self.now + REPORTS;
        self.said = Some(self.waits());
        self.said.clone()
    }

    fn has_news(&self) -> bool {
        let known = self.listed || self.trouble.is_some();
        known && self.said.as_ref() != Some(&self.waits())
    }

    fn waits(&self) -> Waits {
        Waits {
            left: self.listed.then(|| self.board.left()),
            pods: self.board.waits(self.now),
            trouble: self.trouble.clone(),
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
