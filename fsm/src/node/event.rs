//! Conclusions from what is known and kept, in the order of their urgency.
//!
//! They do not look at the state: what follows from them in which state is the machine's.

use super::{
    facts::{Drain, DrainStage, Facts, MAX_TRIES, Wanted},
    record::Record,
};
use crate::view::{Activity, AgentFaultKind};

/// One conclusion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// The node is no longer of its pool.
    Left,
    /// Several pools claim it.
    Contested,
    /// A person asks for another try.
    Retried,
    /// Another image is wanted while a reboot is approved.
    Revoked,
    /// The running image is wanted while a reboot is approved.
    RevokedToBooted,
    /// Another image is wanted.
    Retargeted,
    /// The image that runs is wanted.
    RetargetedToBooted,
    /// The wanted image runs.
    Booted,
    /// The approved reboot took place and ended in the old image, without a fall-back.
    Returned,
    /// A third image runs.
    Strayed,
    /// The host was in the wanted image and is back.
    FellBack,
    /// The Node is not Ready for five minutes.
    Dead,
    /// The drain is done, the cordon and the staged image are there, the pool is not halted.
    Drained,
    /// The drain took too long.
    DrainLate,
    /// A slot holder is not cordoned (any more).
    CordonLost,
    /// A slot holder is cordoned.
    CordonSeen,
    /// The wanted image is not staged (any more).
    Unstaged,
    /// The wanted image is staged.
    Staged,
    /// The node still holds a slot and may use it.
    SlotHeld,
    /// The pool gives it a slot.
    Granted,
    /// The rebooted node is well.
    Proven,
    /// The image that it shall run is not the one that runs.
    Unbooted,
}

impl Event {
    /// All, the most urgent first.
    pub const ALL: [Self; 22] = [
        Self::Left,
        Self::Contested,
        Self::Retried,
        Self::Revoked,
        Self::RevokedToBooted,
        Self::Retargeted,
        Self::RetargetedToBooted,
        Self::Booted,
        Self::Returned,
        Self::Strayed,
        Self::FellBack,
        Self::Dead,
        Self::Drained,
        Self::DrainLate,
        Self::CordonLost,
        Self::CordonSeen,
        Self::Unstaged,
        Self::Staged,
        Self::SlotHeld,
        Self::Granted,
        Self::Proven,
        Self::Unbooted,
    ];

    /// Does it follow from what is kept and known?
    #[must_use]
    pub fn holds(self, record: &Record, facts: &Facts<'_>) -> bool {
        match self {
            Self::Left => facts.wanted == Wanted::Left,
            Self::Contested => facts.contested,
            Self::Retried => facts.retry,
            Self::Revoked | Self::RevokedToBooted | Self::Retargeted | Self::RetargetedToBooted => {
                retarget(record, facts) == Some(self)
            }
            Self::Booted => runs(record, facts) && at_rest(record, facts),
            Self::Returned => {
                facts.rebooted(record) && facts.runs_as_before(record) && !fell_back(facts)
            }
            Self::Strayed => strayed(record, facts),
            Self::FellBack => fell_back(facts),
            Self::Dead => facts.dead(),
            Self::Drained => drained(record, facts),
            Self::DrainLate => facts.drain_late(record),
            Self::CordonLost => record.slot.is_some() && cordon_lost(record, facts),
            Self::CordonSeen => record.slot.is_some() && facts.cordoned(),
            Self::Unstaged => !staged(record, facts),
            Self::Staged => staged(record, facts),
            Self::SlotHeld => {
                record.slot.is_some()
                    && record.tries < MAX_TRIES
                    && !facts.contested
                    && facts.agent_fault().is_none()
            }
            Self::Granted => facts.granted,
            Self::Proven => proven(record, facts),
            Self::Unbooted => record
                .image
                .as_ref()
                .is_some_and(|image| facts.booted_other(image)),
        }
    }
}

/// All that holds, the most urgent first.
pub fn due<'a>(record: &'a Record, facts: &'a Facts<'_>) -> impl Iterator<Item = Event> + 'a {
    Event::ALL
        .into_iter()
        .filter(|event| event.holds(record, facts))
}

/// Which of the four ways to want another image it is. Nothing new is wanted of a node that pools
/// quarrel about; a node that has to stage waits for room, unless others wait for its slot.
fn retarget(record: &Record, facts: &Facts<'_>) -> Option<Event> {
    let Wanted::Wants(wanted) = &facts.wanted else {
        return None;
    };
    if facts.contested || record.image.as_ref() == Some(wanted) {
        return None;
    }
    match (facts.approval_out(record), facts.booted_is(wanted)) {
        (true, true) => Some(Event::RevokedToBooted),
        (true, false) => Some(Event::Revoked),
        (false, true) => Some(Event::RetargetedToBooted),
        (false, false) => (facts.room || record.slot.is_some()).then_some(Event::Retargeted),
    }
}

fn runs(record: &Record, facts: &Facts<'_>) -> bool {
    record
        .image
        .as_ref()
        .is_some_and(|image| facts.booted_is(image))
}

fn staged(record: &Record, facts: &Facts<'_>) -> bool {
    record
        .image
        .as_ref()
        .is_some_and(|image| facts.staged_is(image))
}

fn fell_back(facts: &Facts<'_>) -> bool {
    facts.agent_fault() == Some(AgentFaultKind::FellBack)
}

/// A third image: neither the wanted one nor the one before the approval. Without an approval any
/// other one will do, and so will any in another boot if it is not known what ran before.
fn strayed(record: &Record, facts: &Facts<'_>) -> bool {
    let other = record
        .image
        .as_ref()
        .is_some_and(|image| facts.booted_other(image));
    let before_known = record
        .approval
        .as_ref()
        .is_none_or(|approval| approval.before.is_some());
    other
        && !fell_back(facts)
        && if before_known {
            !facts.runs_as_before(record)
        } else {
            facts.rebooted(record)
        }
}

fn drained(record: &Record, facts: &Facts<'_>) -> bool {
    let done = facts
        .drain
        .is_some_and(|drain| drain.attempt == record.attempt && drain.stage == DrainStage::Done);
    done && facts.cordoned() && staged(record, facts) && !facts.halted
}

/// Is a slot holder not cordoned, or was it not for a while since its drain began?
fn cordon_lost(record: &Record, facts: &Facts<'_>) -> bool {
    let void = |drain: &Drain| drain.attempt == record.attempt && drain.stage == DrainStage::Void;
    !facts.cordoned() || facts.drain.is_some_and(void)
}

/// Is the agent idle? Of a node without a slot it does not matter: it did not go down by us, and
/// that it runs the image is all there is to see.
fn at_rest(record: &Record, facts: &Facts<'_>) -> bool {
    record.slot.is_none() || facts.activity() == Activity::Idle
}

/// A slot holder must be up, Ready, and its agent must have seen our last write.
fn proven(record: &Record, facts: &Facts<'_>) -> bool {
    let up = facts.agent_fault().is_none() && facts.heard() && facts.settled(record);
    runs(record, facts) && at_rest(record, facts) && (record.slot.is_none() || up)
}
