//! What the status should say: conditions and attempt. The images are bootc's own answer, which the
//! agent adds.

use serde::{Deserialize, Serialize};

use super::{
    Attempt, Entry, Facts, Host, Lock, Outcome, Progress, Record, Spec, State, StepTime, View,
    Wanted, effect::LOCK_TRIES,
};

/// In bytes, as registries count.
const MEGABYTE: u64 = 1_000_000;

/// What the agent says of its host. Equal reports are not written twice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Reason of the Idle condition, which is true in [`State::Idle`] alone.
    pub state: State,
    /// Its message.
    pub message: String,
    /// The Degraded condition; `None` is healthy.
    pub degraded: Option<Degraded>,
    /// The newest attempt.
    pub attempt: Option<Attempt>,
    /// The update's steps.
    pub steps: Vec<StepTime>,
    /// Leave the images in the status as they were last reported: bootc does not answer, or the
    /// host is on its way down and nobody needs to read of the unlock.
    pub keep_images: bool,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Degraded {
    /// Reason of the condition.
    pub reason: DegradedReason,
    /// What was tried, the tool's own words, what happens next.
    pub message: String,
}

/// Reason of the Degraded condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DegradedReason {
    /// A step failed.
    Error,
    /// The host was in the attempted image and is back.
    FellBack,
    /// The host is not run by bootc.
    NotBootc,
}

/// What the status should say, if enough is known.
pub(super) fn of(record: &Record, facts: &Facts) -> Option<Report> {
    let unknown = facts.host == Host::Unknown && record.state != State::Staging;
    let silent = facts.wanted == Wanted::Unknown
        || unknown
        || undecided(record, facts)
        || going_down(record, facts);
    (!silent).then(|| Report {
        state: record.state,
        message: message(record, facts),
        degraded: degraded(record, facts),
        attempt: record.attempt.clone(),
        steps: record.steps.clone(),
        keep_images: facts.host.view().is_none() || record.state == State::Rebooting,
    })
}

/// The reboot was asked for: `Rebooting` is said, and what is still to be told of this boot (when
/// the host was told to stop) is told with the next one's news, for one write less.
fn going_down(record: &Record, facts: &Facts) -> bool {
    record.asked.is_some()
        && record.state == State::Rebooting
        && record.trouble.is_none()
        && record
            .attempt
            .as_ref()
            .is_some_and(|it| it.boot == facts.boot)
}

/// In the boot after an attempt, with the boot order yet to be put right: the report says all at once.
fn undecided(record: &Record, facts: &Facts) -> bool {
    let moved = |attempt: &Attempt| attempt.boot != facts.boot;
    record.state == State::Rebooting
        && record.attempt.as_ref().is_some_and(moved)
        && facts.host.view().is_some()
}

/// Why nothing can be done with this host, if so.
pub(super) fn refusal(facts: &Facts) -> Option<Degraded> {
    let not_bootc = |message: String| Degraded {
        reason: DegradedReason::NotBootc,
        message,
    };
    let error = |message: &str| Degraded {
        reason: DegradedReason::Error,
        message: message.to_owned(),
    };
    let view = match &facts.host {
        Host::NotBootc(words) => return Some(not_bootc(words.clone())),
        Host::Unknown | Host::Unreadable(_) => return None,
        Host::Seen(view) => view,
    };
    let arrived = facts
        .wanted
        .spec()
        .is_some_and(|spec| view.booted.is(spec.digest()));
    if view.booted.incompatible {
        Some(error(
            "the host has local modifications (layered packages or overrides) that an update would \
             drop; nothing is staged until they are gone: run `rpm-ostree reset` on the host and reboot it",
        ))
    } else if view.booted.image.is_none() {
        Some(not_bootc(
            "the host did not boot a container image; run `bootc switch` on it once and reboot it, \
             or take the node out of the pool"
                .to_owned(),
        ))
    } else if view.read_only && !arrived {
        Some(error(
            "the host's disk is read-only; nothing can be staged on it",
        ))
    } else {
        None
    }
}

fn degraded(record: &Record, facts: &Facts) -> Option<Degraded> {
    let error = |message: &str| Degraded {
        reason: DegradedReason::Error,
        message: message.to_owned(),
    };
    if record.fell_back {
        return Some(fell_back(record, facts));
    }
    if let Some(refusal) = refusal(facts) {
        return Some(refusal);
    }
    if let Host::Unreadable(words) = &facts.host {
        return Some(error(&format!("{words}; bootc is asked again soon")));
    }
    let auth = record.auth_trouble.as_ref().map(|(_, trouble)| trouble);
    record
        .trouble
        .as_ref()
        .or(auth)
        .map(|trouble| error(&trouble.message))
}

fn fell_back(record: &Record, facts: &Facts) -> Degraded {
    let tried = record.attempt.as_ref().map_or("it", |it| &it.digest);
    let booted = facts
        .host
        .view()
        .map_or("the old one", |it| it.booted.name());
    Degraded {
        reason: DegradedReason::FellBack,
        message: format!(
            "the host booted {tried} and is back on {booted}: a boot or a health check failed, or \
             somebody rolled it back by hand; that image is not tried again until another one is \
             wanted or a person asks for a retry"
        ),
    }
}

fn message(record: &Record, facts: &Facts) -> String {
    let Some(spec) = facts.wanted.spec() else {
        return "no image is wanted of this host".to_owned();
    };
    match record.state {
        State::Idle => idle(record, facts, spec),
        State::Staging => {
            let image = &spec.image;
            let text = match record.outcome {
                Some(outcome) => format!("{}; staging {image} again", lost(outcome, facts)),
                None => format!("pulling {image}"),
            };
            match record.progress {
                Some((_, progress)) => format!("{text}: {}", done(progress)),
                None => text,
            }
        }
        State::Staged => format!("{} is staged; {}", spec.image, armed(record, facts)),
        State::Rebooting => format!("rebooting into {}", spec.image),
    }
}

fn done(progress: Progress) -> String {
    match progress {
        Progress::Importing => "all layers are there and being imported".to_owned(),
        Progress::Deploying => "all layers are there and being deployed".to_owned(),
        Progress::Pulling {
            bytes,
            of_bytes,
            layers,
            of_layers,
        } => {
            let of = |all: u64, words: String| if all > 0 { words } else { String::new() };
            let of_layers = of(of_layers, format!(" of {of_layers}"));
            let (come, all) = (bytes.min(of_bytes) / MEGABYTE, of_bytes / MEGABYTE);
            let of_bytes = of(of_bytes, format!(", {come} of {all} MB"));
            format!("{layers}{of_layers} layers done{of_bytes}")
        }
    }
}

fn idle(record: &Record, facts: &Facts, spec: &Spec) -> String {
    let Some(view) = facts.host.view() else {
        return "nothing goes on".to_owned();
    };
    let mut text = if view.booted.is(spec.digest()) {
        format!("running {}", spec.image)
    } else if record.trouble.is_some() && !record.fell_back {
        format!("waiting for the next try of {}", spec.image)
    } else {
        format!("running {}", view.booted.name())
    };
    for surprise in surprises(view, spec) {
        text.push_str("; ");
        text.push_str(&surprise);
    }
    text
}

/// What the next reboot would boot by accident, or would not but is there.
fn surprises(view: &View, spec: &Spec) -> Vec<String> {
    let mut all = Vec::new();
    let foreign = |it: &&Entry| !it.is(spec.digest());
    if let Some(staged) = view.staged.as_ref().filter(foreign) {
        let fate = if staged.locked {
            "it is locked, so no reboot boots it"
        } else {
            "the next reboot boots it"
        };
        all.push(format!(
            "{} is staged and not wanted: {fate}",
            staged.name()
        ));
    }
    if let Some(rollback) = view.rollback.as_ref().filter(|_| view.rollback_queued) {
        let name = rollback.name();
        all.push(format!(
            "a rollback is queued: the next reboot boots {name}"
        ));
    }
    all
}

/// Does a reboot boot what is staged?
fn armed(record: &Record, facts: &Facts) -> &'static str {
    let staged = facts.host.view().and_then(|view| view.staged.as_ref());
    let prepared = facts.host.view().is_some_and(|view| view.prepared);
    let tried = !facts.can.soft_reboot || record.lock_failures >= LOCK_TRIES;
    if prepared && tried && facts.can.lock != Lock::No {
        "a soft reboot into it is prepared and cannot be undone: any reboot boots it; \
         run `ostree admin prepare-soft-reboot --reset` on the host"
    } else if staged.is_some_and(|it| it.locked) {
        "locked, awaiting the approval"
    } else if facts.can.lock == Lock::No {
        "not locked, because this host's bootc cannot: any reboot boots it"
    } else if record.lock_failures >= LOCK_TRIES {
        "not locked, because locking failed: any reboot boots it"
    } else {
        "awaiting the approval"
    }
}

fn lost(outcome: Outcome, facts: &Facts) -> String {
    let booted = facts.host.view().map_or("", |view| view.booted.name());
    match outcome {
        Outcome::NeverApplied => {
            format!("the host rebooted without applying the update and runs {booted}")
        }
        Outcome::ThirdImage => format!("the host came up on {booted}, which is neither"),
    }
}
