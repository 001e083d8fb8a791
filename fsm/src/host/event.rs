//! Conclusions: what the facts mean, most urgent first.

use serde::{Deserialize, Serialize};

use super::{Entry, Facts, Host, Lock, News, Record, Task, View, Wanted, report::refusal};
use crate::time::Seconds;

/// A host that is still there so long after its reboot was asked for does not reboot: the units
/// that finish an update may take five minutes, and twice that is no longer a shutdown.
pub(super) const REBOOT_DEADLINE: Seconds = Seconds(600);

/// A conclusion drawn from record and facts. The state has no part in it: what an event leads to
/// is the machine's to say. In order of urgency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The reboot was asked for long ago, and the host is still there.
    Stuck,
    /// Nothing is wanted of this host any more.
    Released,
    /// Another image is wanted than the one that the record is about.
    Retargeted,
    /// A step failed; what was tried and the tool's own last words.
    Failed(String),
    /// This host cannot be updated: no bootc, local modifications, a read-only disk.
    Refused,
    /// The wanted image runs.
    Arrived,
    /// Since the attempt the host was in the attempted image, and is back.
    FellBack {
        /// The boot order says so too, or could not be made to.
        settled: bool,
    },
    /// Another boot than the attempt's, and the image never came up.
    Lost,
    /// The approval does not hold (any more) in this boot.
    Revoked,
    /// The wanted image is staged.
    Staged,
    /// It is staged and may be booted now.
    Approved,
    /// A unit of ours is pulling the wanted image.
    Adopted,
    /// The wanted image neither runs nor is staged, and a try is due.
    Needed,
}

/// The conclusions that hold, most urgent first.
///
/// While a reboot is under way there are none: the host is going down, and whatever is wanted of
/// it is wanted of the next boot.
#[must_use]
pub fn due(record: &Record, facts: &Facts, news: &News) -> Vec<Event> {
    if let Some(asked) = record.asked {
        let late = facts.now >= asked + REBOOT_DEADLINE;
        return if late { vec![Event::Stuck] } else { vec![] };
    }
    let spec = match &facts.wanted {
        Wanted::Unknown => return vec![],
        Wanted::Nothing => return vec![Event::Released],
        Wanted::Image(spec) => spec,
    };
    let mut events = Vec::new();
    let mut holds = |holds: bool, event: Event| {
        if holds {
            events.push(event);
        }
    };
    let wanted = spec.digest();
    holds(
        record.digest().is_some_and(|digest| digest != wanted),
        Event::Retargeted,
    );
    if let Some(message) = failure(facts, news, wanted) {
        holds(true, Event::Failed(message));
    }
    holds(refusal(facts).is_some(), Event::Refused);
    let Host::Seen(view) = &facts.host else {
        holds(adopts(facts, wanted), Event::Adopted);
        return events;
    };
    let arrived = view.booted.is(wanted);
    let staged = view
        .staged
        .as_ref()
        .is_some_and(|it| it.is(wanted) && is_safe(it, facts));
    let may_try = !record.waits(facts.now) && !record.fell_back;
    holds(arrived, Event::Arrived);
    if let Some(fate) = fate(record, facts, view) {
        holds(true, fate);
    }
    holds(!spec.approves(&facts.boot), Event::Revoked);
    holds(staged && !arrived && may_try, Event::Staged);
    holds(
        staged && !arrived && may_try && spec.approves(&facts.boot),
        Event::Approved,
    );
    holds(adopts(facts, wanted), Event::Adopted);
    holds(!staged && !arrived && may_try, Event::Needed);
    events
}

/// Will no reboot but ours boot it? What is staged unlocked by a tag cannot be locked as it is (bootc
/// would look for a newer image), so where locking can be had it is staged again, by its digest.
pub(super) fn is_safe(staged: &Entry, facts: &Facts) -> bool {
    let spec = facts.wanted.spec();
    staged.locked
        || staged.is_by_digest()
        || facts.can.lock == Lock::No
        || spec.is_some_and(|spec| spec.approves(&facts.boot))
}

/// What became of an attempt that was made in another boot.
///
/// The deployment in the rollback slot decides: an image that came up and was left again sits there
/// as a deployment that was not there before. (That the wanted image is in that slot proves nothing:
/// a host that went from B to A has it there before it is sent to B again.)
fn fate(record: &Record, facts: &Facts, view: &View) -> Option<Event> {
    let attempt = record.attempt.as_ref()?;
    if attempt.boot == facts.boot || view.booted.is(&attempt.digest) {
        return None;
    }
    let back = view.rollback.as_ref().filter(|it| it.is(&attempt.digest));
    let was_in_it = back.is_some_and(|it| it.deployment != attempt.rollback);
    Some(if was_in_it {
        let settled = record.settled || !view.rollback_queued;
        Event::FellBack { settled }
    } else {
        Event::Lost
    })
}

fn adopts(facts: &Facts, wanted: &str) -> bool {
    let unit = facts.unit.as_ref();
    unit.is_some_and(|unit| unit.task == Task::Stage && is_about(&unit.image, wanted))
}

/// Does the news say that a step towards the wanted image failed? An exit code is not the whole
/// truth: what bootc's status says now decides whether the step did its work.
fn failure(facts: &Facts, news: &News, wanted: &str) -> Option<String> {
    let News::Ended { task, image, error } = news else {
        return None;
    };
    if !is_about(image, wanted) {
        return None;
    }
    let staged = facts.host.view().and_then(|it| it.staged.as_ref());
    let staged = staged.filter(|it| it.is(wanted));
    let (what, undone) = match task {
        Task::Stage => (
            "staging",
            staged.is_none().then_some("bootc stages another image"),
        ),
        // Unlocked is unlocked: only the preparation of a soft reboot failed, and a full one will do.
        Task::Unlock if staged.is_some_and(|it| !it.locked) => return None,
        Task::Unlock => ("unlocking", Some("it is still locked")),
        Task::Confirm => ("reading the BootcNode before the reboot of", None),
        Task::Reboot => ("rebooting into", None),
        Task::Lock | Task::Unprepare | Task::Unstage | Task::Settle | Task::Auth => return None,
    };
    let words = error.as_deref().or(undone)?;
    Some(format!("{what} {image} failed: {words}"))
}

/// Is this reference of the image with `digest`?
pub(super) fn is_about(reference: &str, digest: &str) -> bool {
    super::facts::digest_of(reference).unwrap_or(reference) == digest
}
