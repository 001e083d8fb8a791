//! A pool's own objects: its finalizer, its tag, its secret.

use super::{
    Key, Rollout,
    entry::{Pool, PoolFlight, Resolution, Secret},
    outcome::{back_off_of, spread},
};
use crate::{
    command::{Command, PoolWrite},
    input::Outcome,
    names::PoolName,
    time::{Seconds, Timestamp},
    view::{ImageRef, PoolView, SecretRef},
};

/// First wait after a registry did not answer; doubled up to the interval.
const RESOLVE_AGAIN: Seconds = Seconds(5);

impl Rollout {
    pub(super) fn see_pool(&mut self, name: PoolName, view: Option<PoolView>) {
        let now = self.now;
        let pool = self.pools.entry(name.clone()).or_default();
        let same_but_status = match (&pool.view, &view) {
            (Some(old), Some(new)) => {
                PoolView {
                    status: None,
                    ..old.clone()
                } == PoolView {
                    status: None,
                    ..new.clone()
                }
            }
            (old, new) => old == new,
        };
        let uid = |view: &Option<PoolView>| view.as_ref().map(|view| view.uid.clone());
        if uid(&pool.view) != uid(&view) {
            (pool.resolution, pool.secret, pool.flight) = (None, None, None);
        }
        pool.shown = view.as_ref().and_then(|view| view.status.clone());
        pool.view = view;
        pool.follow_reference(now);
        pool.follow_target(now);
        if !same_but_status {
            self.dirty_nodes.extend(pool.sum.names().cloned());
        }
        self.dirty_pools.insert(name);
    }

    pub(super) fn take_secret(
        &mut self,
        name: PoolName,
        secret: SecretRef,
        result: Result<String, String>,
    ) {
        let now = self.now;
        let Some(pool) = self.pools.get_mut(&name) else {
            return;
        };
        let seen = Some((secret, result));
        if pool.secret == seen {
            return;
        }
        pool.secret = seen;
        if let Some(known) = pool
            .resolution
            .as_mut()
            .filter(|known| known.error.is_some())
        {
            known.next = now;
        }
        self.dirty_nodes.extend(pool.sum.names().cloned());
        self.dirty_pools.insert(name);
    }

    pub(super) fn take_digest(
        &mut self,
        name: &PoolName,
        reference: &str,
        result: Result<String, String>,
    ) {
        let interval = self.config.tag_interval;
        let now = self.now;
        let Some(pool) = self.pools.get_mut(name) else {
            return;
        };
        let Some(known) = pool
            .resolution
            .as_mut()
            .filter(|known| known.reference == reference)
        else {
            return;
        };
        known.asked = false;
        let mut news = None;
        let wait = match result {
            Ok(digest) => {
                (known.failures, known.error) = (0, None);
                if known.digest.as_ref() != Some(&digest) {
                    news = Some((known.digest.replace(digest.clone()), digest));
                }
                interval
            }
            Err(error) => {
                let wait = Seconds(RESOLVE_AGAIN.0.saturating_mul(1 << known.failures.min(10)))
                    .min(interval);
                known.failures += 1;
                known.error = Some(error);
                wait
            }
        };
        known.next = now + wait + Seconds(spread(name.as_str(), wait.0 / 10));
        pool.follow_target(now);
        if let Some((old, new)) = news {
            self.dirty_nodes.extend(pool.sum.names().cloned());
            self.notice_digest(name, reference, old.as_deref(), &new);
        }
        self.dirty_pools.insert(name.clone());
    }

    /// All that follows for a pool from what its nodes show.
    pub(super) fn evaluate_pool(&mut self, name: &PoolName) {
        self.note_halt(name);
        self.hand_out(name);
        let Some(pool) = self.pools.get(name) else {
            return;
        };
        if pool.view.is_none() && pool.sum.is_empty() {
            let timer = pool.timer;
            self.set_timer(Key::Pool(name.clone()), timer, None);
            self.pools.remove(name);
            return;
        }
        let mut wake = None;
        self.resolve(name, &mut wake);
        self.write_pool(name, &mut wake);
        let Some(pool) = self.pools.get_mut(name) else {
            return;
        };
        let old = std::mem::replace(&mut pool.timer, wake);
        self.set_timer(Key::Pool(name.clone()), old, wake);
    }

    /// Nodes that wait for the end of a halt, or run into one, are looked at again.
    fn note_halt(&mut self, name: &PoolName) {
        let now = self.now;
        let Some(pool) = self.pools.get_mut(name) else {
            return;
        };
        let halted = pool.sum.halted();
        if halted == pool.was_halted {
            return;
        }
        pool.was_halted = halted;
        pool.halted_ms = pool.halted_for(now);
        pool.halted_since = halted.then_some(now);
        self.dirty_nodes.extend(pool.sum.holders.iter().cloned());
        self.dirty_nodes.extend(pool.sum.candidates.iter().cloned());
    }

    fn resolve(&mut self, name: &PoolName, wake: &mut Option<Timestamp>) {
        let now = self.now;
        let Some(pool) = self
            .pools
            .get_mut(name)
            .filter(|pool| pool.alive().is_some() && pool.secret() != Secret::Unseen)
        else {
            return;
        };
        let secret = pool.view.as_ref().and_then(|view| view.spec.secret.clone());
        let Some(known) = pool.resolution.as_mut().filter(|known| !known.asked) else {
            return;
        };
        if known.next > now {
            super::nodes::earliest(wake, Some(known.next));
            return;
        }
        known.asked = true;
        let reference = known.reference.clone();
        self.out.push(Command::Resolve {
            pool: name.clone(),
            reference,
            secret,
        });
    }

    /// At most one write at a time: the finalizer first, then the status.
    fn write_pool(&mut self, name: &PoolName, wake: &mut Option<Timestamp>) {
        let now = self.now;
        let Some(pool) = self.pools.get(name).filter(|pool| pool.flight.is_none()) else {
            return;
        };
        let Some(view) = &pool.view else { return };
        let what = match (view.deleting, view.finalizer) {
            (false, false) => Some(PoolWrite::AddFinalizer),
            (true, true) => (pool.sum.owned == 0).then_some(PoolWrite::RemoveFinalizer),
            (true, false) => None,
            (false, true) => self.status_due(name, wake),
        };
        let Some(what) = what else { return };
        if let Some(until) = pool.hold_until.filter(|until| *until > now) {
            super::nodes::earliest(wake, Some(until));
            return;
        }
        let write = self.next_id();
        self.notice_pool(name, &what);
        if let Some(pool) = self.pools.get_mut(name) {
            pool.flight = Some(PoolFlight {
                id: write,
                what: what.clone(),
            });
        }
        self.out.push(Command::Pool {
            pool: name.clone(),
            write,
            what,
        });
    }

    pub(super) fn take_pool_done(&mut self, name: &PoolName, write: u64, outcome: &Outcome) {
        let now = self.now;
        let Some(pool) = self.pools.get_mut(name) else {
            return;
        };
        let Some(flight) = pool.flight.take_if(|flight| flight.id == write) else {
            return;
        };
        self.dirty_pools.insert(name.clone());
        if *outcome != Outcome::Ok {
            pool.failures += 1;
            pool.hold_until = Some(now + back_off_of(pool.failures, name.as_str()));
            return;
        }
        (pool.failures, pool.hold_until) = (0, None);
        if flight.what == PoolWrite::AddFinalizer {
            self.dirty_nodes.extend(pool.sum.names().cloned());
        }
        pool.apply(flight.what, now);
    }
}

impl Pool {
    fn apply(&mut self, what: PoolWrite, now: Timestamp) {
        match what {
            PoolWrite::AddFinalizer => self.set_finalizer(true),
            PoolWrite::RemoveFinalizer => self.set_finalizer(false),
            PoolWrite::Status(status) => {
                self.shown = Some(*status);
                self.written = Some(now);
            }
        }
    }

    fn set_finalizer(&mut self, is: bool) {
        if let Some(view) = &mut self.view {
            view.finalizer = is;
        }
    }

    /// A tag's digest belongs to the reference that it was resolved from. After a restart the status
    /// tells it, if that speaks of this very spec.
    fn follow_reference(&mut self, now: Timestamp) {
        let Some(view) = &self.view else {
            self.resolution = None;
            return;
        };
        let ImageRef::Tag { reference, .. } = &view.spec.image else {
            self.resolution = None;
            return;
        };
        if self
            .resolution
            .as_ref()
            .is_some_and(|known| known.reference == *reference)
        {
            return;
        }
        let told = view
            .status
            .as_ref()
            .filter(|status| status.observed_generation == Some(view.generation));
        let digest = told.and_then(|status| status.target_digest.clone());
        let next = told.and_then(|status| status.next_tag_resolution);
        self.resolution = Some(Resolution {
            reference: reference.clone(),
            next: next.filter(|_| digest.is_some()).unwrap_or(now),
            digest,
            asked: false,
            failures: 0,
            error: None,
        });
    }
}
