//! The pods of one draining node and what is to be done about each, without a clock or cluster.
//!
//! The task beside it feeds in what it lists, watches and is answered, and asks what is due.
//! `now` is always an argument, so that every rule here is tested without waiting.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Notable, Note, PodWait,
    cause::{Answer, Cause},
    pod::{Place, Pod, PodName, Uid},
};

/// The first and the longest wait before a refused eviction is tried again. A budget is freed by
/// other pods getting ready, which takes seconds; a fleet of blocked pods must not load the API
/// server.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// When an accepted eviction that shows no effect is repeated: the watch lags by far less.
const REPEAT: Duration = Duration::from_secs(30);
/// How long a pod is left alone whose node was silent ([`Pod::silenced`]). For Kubernetes it is not
/// ready, and such a pod is evicted past its budget as long as the budget's own count lags behind:
/// after an outage of the API server, several that serve at that moment. A kubelet that is well puts
/// it right within seconds.
const SILENCE: Duration = Duration::from_secs(60);
/// How long after its grace period a pod is called overdue: the kubelet needs a moment to say so.
const SLACK: Duration = Duration::from_secs(10);

/// An eviction to be asked for now.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Target {
    pub(super) name: PodName,
    pub(super) uid: Uid,
    /// What a person should hear of before the pod goes; only with its first eviction.
    pub(super) notable: Option<Notable>,
}

/// How far the eviction of a pod is.
#[derive(Debug)]
enum Step {
    /// Never asked for.
    New,
    /// Asked for; the answer is awaited. Until it comes, the one before holds.
    Asked(Option<Cause>),
    /// Accepted at the first instant, or already gone: repeated at `again` if nothing happens.
    Accepted { again: Instant },
    /// Refused: asked for again at `again`.
    Refused { again: Instant, cause: Cause },
}

#[derive(Debug)]
struct Entry {
    pod: Pod,
    /// It may stay: a replacement of one that was evicted although it tolerates the cordon.
    stays: bool,
    step: Step,
    /// When it was first seen to be stopping.
    stopping: Option<Instant>,
    /// When it was first seen to be [`Pod::silenced`], if it still is.
    silenced: Option<Instant>,
    backoff: ExponentialBackoff,
}

/// The pods of one draining node that are not left alone from the start.
#[derive(Debug)]
pub(super) struct Board {
    cordoned: Timestamp,
    own: Option<PodName>,
    entries: BTreeMap<Uid, Entry>,
    /// How many pods that came back may still be evicted, by family: as many as there were at
    /// first, at least one. Without an end a controller and this drain would replace and evict
    /// for ever.
    returns: HashMap<Uid, usize>,
    listed: bool,
}

impl Board {
    /// A node that was cordoned at `cordoned`; `own` is the pod that this program runs in.
    pub(super) fn new(cordoned: Timestamp, own: Option<PodName>) -> Self {
        let (entries, returns) = (BTreeMap::new(), HashMap::new());
        Self {
            cordoned,
            own,
            entries,
            returns,
            listed: false,
        }
    }

    /// Takes a whole list: what is not in it is gone.
    pub(super) fn replace(&mut self, pods: Vec<Pod>, now: Instant) {
        if !self.listed {
            self.listed = true;
            for pod in pods
                .iter()
                .filter(|pod| pod.place(self.cordoned) != Place::Left)
            {
                *self.returns.entry(pod.family().clone()).or_default() += 1;
            }
        }
        self.entries
            .retain(|uid, _| pods.iter().any(|pod| pod.uid == *uid));
        for pod in pods {
            self.apply(pod, now);
        }
    }

    /// Takes a pod as it is now.
    pub(super) fn apply(&mut self, pod: Pod, now: Instant) {
        let place = pod.place(self.cordoned);
        if place == Place::Left {
            self.entries.remove(&pod.uid);
            return;
        }
        if !self.entries.contains_key(&pod.uid) {
            let stays = place == Place::CameBack && !self.may_be_evicted_once_more(&pod);
            let entry = Entry {
                pod: pod.clone(),
                stays,
                step: Step::New,
                stopping: None,
                silenced: None,
                backoff: backoff(),
            };
            self.entries.insert(pod.uid.clone(), entry);
        }
        if let Some(entry) = self.entries.get_mut(&pod.uid) {
            if pod.terminating.is_some() {
                entry.stopping.get_or_insert(now);
            }
            entry.silenced = pod.silenced.then(|| entry.silenced.unwrap_or(now));
            entry.pod = pod;
        }
    }

    /// Uses up one of the evictions that the family of a pod that came back has. The pod that this
    /// program runs in has none: evicting its own replacement would never end.
    fn may_be_evicted_once_more(&mut self, pod: &Pod) -> bool {
        if self.own.as_ref() == Some(&pod.name) {
            return false;
        }
        let left = self.returns.entry(pod.family().clone()).or_insert(1);
        let may = *left > 0;
        *left = left.saturating_sub(1);
        may
    }

    /// Takes it that a pod is gone.
    pub(super) fn gone(&mut self, uid: &Uid) {
        self.entries.remove(uid);
    }

    /// Takes the answer to an eviction; one for a pod that is gone meanwhile says nothing.
    pub(super) fn answered(&mut self, uid: &Uid, answer: Answer, now: Instant) {
        let Some(entry) = self.entries.get_mut(uid) else {
            return;
        };
        entry.step = match answer {
            Answer::Accepted | Answer::Gone => Step::Accepted {
                again: now + REPEAT,
            },
            Answer::Refused { cause, wait } => {
                let own = entry.backoff.next().unwrap_or(BACKOFF.1);
                Step::Refused {
                    again: now + own.max(wait),
                    cause,
                }
            }
        };
    }

    /// At most `room` evictions that are due, taken as asked for.
    pub(super) fn due(&mut self, now: Instant, room: usize) -> Vec<Target> {
        let last = self.left() <= 1;
        let Self {
            own,
            cordoned,
            entries,
            ..
        } = self;
        let due = |entry: &&mut Entry| {
            // Its own pod goes last: with it goes the drain, until its replacement takes over.
            entry.is_due(now) && (last || own.as_ref() != Some(&entry.pod.name))
        };
        entries
            .values_mut()
            .filter(due)
            .take(room)
            .map(|entry| entry.ask(*cordoned))
            .collect()
    }

    /// When something is next due, or worth saying, without a change from outside.
    pub(super) fn wake(&self, now: Instant) -> Option<Instant> {
        let wake = |entry: &Entry| match (&entry.step, entry.overdue()) {
            _ if entry.stays => None,
            (_, Some(overdue)) => (overdue > now).then_some(overdue),
            (Step::Accepted { again } | Step::Refused { again, .. }, None) => {
                Some(*again).max(entry.left_alone(now))
            }
            (Step::New, None) => entry.left_alone(now),
            (Step::Asked(_), None) => None,
        };
        self.entries.values().filter_map(wake).min()
    }

    /// How many pods must still go.
    pub(super) fn left(&self) -> usize {
        self.entries.values().filter(|entry| !entry.stays).count()
    }

    /// The pods that may stay, by name.
    pub(super) fn staying(&self) -> Vec<PodName> {
        let staying = self.entries.values().filter(|entry| entry.stays);
        let mut names: Vec<_> = staying.map(|entry| entry.pod.name.clone()).collect();
        names.sort();
        names
    }

    /// The pods that are waited for and why; those that something holds up come first.
    pub(super) fn waits(&self, now: Instant) -> Vec<PodWait> {
        let wait = |entry: &Entry| {
            let cause = entry.cause(now)?;
            let fine = matches!(cause, Cause::Terminating { overdue: false, .. });
            Some((
                fine,
                PodWait {
                    pod: entry.pod.name.clone(),
                    cause,
                },
            ))
        };
        let mut waits: Vec<_> = self.entries.values().filter_map(wait).collect();
        waits.sort_by(|(a_fine, a), (b_fine, b)| (a_fine, &a.pod).cmp(&(b_fine, &b.pod)));
        waits.into_iter().map(|(_, wait)| wait).collect()
    }
}

impl Entry {
    fn is_due(&self, now: Instant) -> bool {
        let asked_too_early = match self.step {
            Step::New => false,
            Step::Asked(_) => true,
            Step::Accepted { again } | Step::Refused { again, .. } => again > now,
        };
        let left_alone = self.left_alone(now).is_some();
        !self.stays && self.stopping.is_none() && !asked_too_early && !left_alone
    }

    /// Until when it is left alone since its node was silent.
    fn left_alone(&self, now: Instant) -> Option<Instant> {
        let until = self.silenced?.checked_add(SILENCE)?;
        (until > now).then_some(until)
    }

    fn ask(&mut self, cordoned: Timestamp) -> Target {
        let first = matches!(self.step, Step::New);
        self.step = match std::mem::replace(&mut self.step, Step::New) {
            Step::Refused { cause, .. } => Step::Asked(Some(cause)),
            Step::Accepted { .. } => Step::Asked(Some(Cause::Ignored)),
            Step::New | Step::Asked(_) => Step::Asked(None),
        };
        let notable = first.then(|| notable(&self.pod, cordoned)).flatten();
        Target {
            name: self.pod.name.clone(),
            uid: self.pod.uid.clone(),
            notable,
        }
    }

    /// When a stopping pod should be gone at the latest.
    fn overdue(&self) -> Option<Instant> {
        let grace = self.pod.terminating.as_ref()?.grace.try_into().unwrap_or(0);
        self.stopping?
            .checked_add(Duration::from_secs(grace) + SLACK)
    }

    fn cause(&self, now: Instant) -> Option<Cause> {
        if self.stays {
            return None;
        }
        if let Some(terminating) = &self.pod.terminating {
            return Some(Cause::Terminating {
                grace: terminating.grace,
                overdue: self.overdue().is_some_and(|overdue| overdue <= now),
                finalizers: terminating.finalizers.clone(),
            });
        }
        match &self.step {
            _ if self.left_alone(now).is_some() => Some(Cause::Silenced),
            Step::Refused { cause, .. } | Step::Asked(Some(cause)) => Some(cause.clone()),
            Step::Accepted { again } if *again <= now => Some(Cause::Ignored),
            _ => None,
        }
    }
}

/// What a person should hear before the pod is evicted.
fn notable(pod: &Pod, cordoned: Timestamp) -> Option<Notable> {
    let notes: Vec<_> = [
        (pod.controller.is_none(), Note::Bare),
        (pod.empty_dir, Note::EmptyDir),
        (pod.place(cordoned) == Place::CameBack, Note::CameBack),
    ]
    .into_iter()
    .filter_map(|(holds, note)| holds.then_some(note))
    .collect();
    (!notes.is_empty()).then(|| Notable {
        pod: pod.name.clone(),
        notes,
    })
}

fn backoff() -> ExponentialBackoff {
    let builder = ExponentialBuilder::default()
        .with_min_delay(BACKOFF.0)
        .with_max_delay(BACKOFF.1);
    builder.with_jitter().without_max_times().build()
}

#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;
