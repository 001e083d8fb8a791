//! What is to be done on the host next, in a state that the machine has reached.

use serde::{Deserialize, Serialize};

use super::{
    Auth, Entry, Facts, Lock, News, Record, Secret, Spec, State, Unit, View,
    event::{is_about, is_safe},
};

/// So often is locking tried before a staged image is left unlocked and reported so.
pub(super) const LOCK_TRIES: u8 = 3;

/// One thing to do on the host. It may be said again and again: it is dropped by whoever carries it
/// out while another is under way, and repeated until the facts show it done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Stop the unit: its image is not wanted any more.
    Cancel(Unit),
    /// Put the Secret's credentials on the host.
    WriteAuth(Secret),
    /// Take ours off again.
    RemoveAuth,
    /// Pull and deploy the image, locked as the host can.
    Stage {
        /// By digest.
        image: String,
        /// How it is locked.
        lock: Lock,
        /// The host verifies signatures: go on doing so.
        sigpolicy: bool,
        /// Have bootc tell how far it is.
        progress: bool,
    },
    /// Lock what is staged.
    Lock {
        /// The image that is expected there.
        image: String,
    },
    /// Let the next reboot boot what is staged.
    Unlock {
        /// The image that is expected there.
        image: String,
        /// Prepare a soft reboot into it as well, if that can be.
        soft: bool,
    },
    /// Undo the preparation of a soft reboot: what it leads to is to be locked or dropped.
    Unprepare {
        /// The image that is expected there.
        image: String,
    },
    /// Drop what is staged.
    Unstage {
        /// The image that is expected there.
        image: String,
    },
    /// The host fell back, but its boot order still has the image first that did not hold: put the
    /// booted one first.
    Settle {
        /// The image that did not hold.
        image: String,
    },
    /// Read the `BootcNode` from the API server and `bootc status` once more.
    Confirm {
        /// The image that is about to be booted.
        image: String,
    },
    /// Ask the host to reboot.
    Reboot {
        /// The image that it boots.
        image: String,
        /// By the soft reboot that is prepared; else by a full one.
        soft: bool,
    },
}

/// Kind of an effect, by which its end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Task {
    /// Of [`Effect::Stage`].
    Stage,
    /// Of [`Effect::Lock`].
    Lock,
    /// Of [`Effect::Unlock`].
    Unlock,
    /// Of [`Effect::Unprepare`].
    Unprepare,
    /// Of [`Effect::Unstage`].
    Unstage,
    /// Of [`Effect::Settle`].
    Settle,
    /// Of [`Effect::WriteAuth`] and [`Effect::RemoveAuth`].
    Auth,
    /// Of [`Effect::Confirm`].
    Confirm,
    /// Of [`Effect::Reboot`].
    Reboot,
}

/// What is to be done now, if anything.
pub(super) fn next(record: &Record, facts: &Facts, news: &News) -> Option<Effect> {
    if record.asked.is_some() || facts.wanted == super::Wanted::Unknown {
        return None;
    }
    if let Some(unit) = &facts.unit {
        return (!is_wanted(unit, record, facts)).then(|| Effect::Cancel(unit.clone()));
    }
    let spec = facts.wanted.spec();
    let secret = spec.and_then(|spec| spec.secret.as_ref());
    let credentials = auth(record, facts, secret);
    if let Credentials::Do(effect) = credentials {
        return Some(effect);
    }
    let view = facts.host.view()?;
    if let Some(effect) = leftover(record, facts, view) {
        return Some(effect);
    }
    let spec = spec?;
    match record.state {
        State::Idle => None,
        State::Staging => {
            let ready = matches!(credentials, Credentials::Ready);
            (ready && !record.waits(facts.now)).then(|| stage(facts, spec, view))?
        }
        State::Staged => lock(record, facts, spec, view),
        State::Rebooting => reboot(record, facts, news, spec),
    }
}

/// Pull the wanted image, unless it is there already.
fn stage(facts: &Facts, spec: &Spec, view: &View) -> Option<Effect> {
    let staged = view.staged.as_ref();
    let there = [Some(&view.booted), staged.filter(|it| is_safe(it, facts))];
    let is_there = there.into_iter().flatten().any(|it| it.is(spec.digest()));
    (!is_there).then(|| Effect::Stage {
        image: spec.image.clone(),
        lock: facts.can.lock,
        sigpolicy: [Some(&view.booted), staged]
            .into_iter()
            .flatten()
            .any(verifies),
        progress: facts.can.progress,
    })
}

fn verifies(entry: &Entry) -> bool {
    entry.image.as_ref().is_some_and(|image| image.sigpolicy)
}

/// A pull for another image than the wanted one is stopped; all else is short and runs to its end.
fn is_wanted(unit: &Unit, record: &Record, facts: &Facts) -> bool {
    let spec = facts.wanted.spec();
    let same = spec.is_some_and(|spec| is_about(&unit.image, spec.digest()));
    unit.task != super::Task::Stage || (record.state == State::Staging && same)
}

enum Credentials {
    Ready,
    Wait,
    Do(Effect),
}

/// The credentials come first: bootc reads them when it pulls.
fn auth(record: &Record, facts: &Facts, secret: Option<&Secret>) -> Credentials {
    let effect = match (secret, &facts.auth) {
        (_, Auth::Unknown) => return Credentials::Wait,
        (None, Auth::Absent) => return Credentials::Ready,
        (Some(secret), Auth::Written(hash)) if *hash == secret.hash => return Credentials::Ready,
        (Some(secret), _) => Effect::WriteAuth(secret.clone()),
        (None, Auth::Written(_)) => Effect::RemoveAuth,
    };
    let about = secret.map_or("", |secret| &secret.hash);
    let waits = record
        .auth_trouble
        .as_ref()
        .is_some_and(|(hash, trouble)| hash == about && trouble.retry_at > facts.now);
    if waits {
        Credentials::Wait
    } else {
        Credentials::Do(effect)
    }
}

/// Something that we staged, that is no longer wanted and can be dropped.
fn leftover(record: &Record, facts: &Facts, view: &View) -> Option<Effect> {
    let may = facts.can.unstage && matches!(record.state, State::Idle | State::Staging);
    let image = record.leftover.as_ref().filter(|_| may)?.clone();
    let digest = super::facts::digest_of(&image).unwrap_or(&image);
    if !view.staged.as_ref()?.is(digest) {
        return None;
    }
    if view.prepared {
        return unprepare(record, facts, image);
    }
    Some(Effect::Unstage { image })
}

/// Lock what is staged. Only what is staged by digest: for a tag bootc would look for a newer image.
fn lock(record: &Record, facts: &Facts, spec: &Spec, view: &View) -> Option<Effect> {
    if facts.can.lock == Lock::No || spec.approves(&facts.boot) {
        return None;
    }
    let image = spec.image.clone();
    if view.prepared {
        return unprepare(record, facts, image);
    }
    let staged = view.staged.as_ref()?;
    let wanted = !staged.locked && staged.is_by_digest();
    (wanted && record.lock_failures < LOCK_TRIES).then_some(Effect::Lock { image })
}

fn unprepare(record: &Record, facts: &Facts, image: String) -> Option<Effect> {
    let may = facts.can.soft_reboot && record.lock_failures < LOCK_TRIES;
    may.then_some(Effect::Unprepare { image })
}

/// Is a soft reboot the way into what is staged? Not again after one that led nowhere.
fn goes_softly(record: &Record, facts: &Facts, spec: &Spec, staged: &Entry) -> bool {
    spec.soft_reboot
        && facts.can.soft_reboot
        && staged.soft_reboot_capable
        && !record.soft_reboot_failed
}

/// The way down. Each stretch is gone only if the report `Rebooting` with this attempt stands in the
/// API server and everything was read again just now; the unlock is one stretch, the reboot the next.
fn reboot(record: &Record, facts: &Facts, news: &News, spec: &Spec) -> Option<Effect> {
    let attempt = record.attempt.as_ref()?;
    let view = facts.host.view()?;
    if attempt.boot != facts.boot {
        let image = attempt.digest.clone();
        return (view.rollback_queued && !record.settled).then_some(Effect::Settle { image });
    }
    let reported = facts.reported.as_ref().is_some_and(|report| {
        report.state == State::Rebooting && report.attempt.as_ref() == Some(attempt)
    });
    let staged = view.staged.as_ref()?;
    let holds = spec.approves(&facts.boot)
        && !record.waits(facts.now)
        && spec.digest() == attempt.digest
        && staged.is(&attempt.digest);
    if !reported || !holds {
        return None;
    }
    let image = spec.image.clone();
    let soft = goes_softly(record, facts, spec, staged);
    Some(match news {
        News::Confirmed if staged.locked => Effect::Unlock { image, soft },
        News::Confirmed => Effect::Reboot {
            image,
            soft: soft && view.prepared,
        },
        _ => Effect::Confirm { image },
    })
}
