//! What is known of one node at one moment. Facts are replaced whole, never edited.

use std::cell::Cell;

use super::record::Record;
use crate::{
    image::Image,
    time::{Seconds, Timestamp},
    view::{Activity, AgentFaultKind, NodeView, Report},
};

/// A Node that is not Ready for so long gives its slot back.
pub const DEAD_AFTER: Seconds = Seconds(300);
/// An awaited report that is missing for so long makes the node degraded.
pub const SILENT_AFTER: Seconds = Seconds(600);
/// A reboot of this length counts as unhealthy where the pool sets no timeout.
pub const REBOOT_AFTER: Seconds = Seconds(600);
/// So many reboots that end where they began make the node degraded.
pub const MAX_TRIES: u32 = 3;

/// What the pool wants of a node. Not knowing is not the same as not wanting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// The pool's target is not known.
    #[default]
    Unknown,
    /// The node is no longer of the pool: proven, not assumed.
    Left,
    /// It shall run this image.
    Wants(Image),
}

/// A drain of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Its number.
    pub attempt: u32,
    /// How far it is.
    pub stage: DrainStage,
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainStage {
    /// Under way.
    Running,
    /// Only what may stay is left.
    Done,
    /// The node took pods meanwhile, so whatever comes of it does not count.
    Void,
}

/// The pool's limits in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `drainTimeoutSeconds`; never 0.
    pub drain: Option<Seconds>,
    /// `rebootTimeoutSeconds`
    pub reboot: Option<Seconds>,
    /// `minReadySeconds`
    pub min_ready: Seconds,
}

/// All that a decision on one node may depend on, beside its [`Record`].
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not a state"
)]
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// The time.
    pub now: Timestamp,
    /// What the pool wants.
    pub wanted: Wanted,
    /// Since when, as far as that was seen.
    pub wanted_since: Option<Timestamp>,
    /// Several pools claim the node.
    pub contested: bool,
    /// The pool gives it a slot.
    pub granted: bool,
    /// The pool has room for it to stage an image.
    pub room: bool,
    /// The pool starts nothing new: two slot holders are unhealthy.
    pub halted: bool,
    /// Of the time since the record's clock, milliseconds for which the pool was halted.
    pub halted_ms: i64,
    /// A person asks for another try, and this is not noted yet.
    pub retry: bool,
    /// The pool's limits.
    pub limits: Limits,
    /// The Node; `None` if there is none.
    pub node: Option<&'a NodeView>,
    /// Generation of the `BootcNode`.
    pub generation: i64,
    /// What the agent says.
    pub report: Option<&'a Report>,
    /// The drain under way.
    pub drain: Option<&'a Drain>,
    /// The next moment at which one of the answers below may change.
    pub wake: Cell<Option<Timestamp>>,
}

impl Facts<'_> {
    /// Is `at` over? If not, the facts are to be looked at again then.
    pub fn past(&self, at: Timestamp) -> bool {
        if self.now >= at {
            return true;
        }
        self.wake
            .set(Some(self.wake.get().map_or(at, |wake| wake.min(at))));
        false
    }

    /// Is the Node cordoned, by whomever?
    #[must_use]
    pub fn cordoned(&self) -> bool {
        self.node.is_some_and(|node| node.cordoned)
    }

    /// Does the Node say that it is not Ready? (Saying nothing is not saying so.)
    #[must_use]
    pub fn not_ready(&self) -> bool {
        self.node.is_some_and(|node| node.ready == Some(false))
    }

    /// Is it not Ready for so long that it must not hold up others?
    pub fn dead(&self) -> bool {
        self.not_ready()
            && self
                .node
                .and_then(|node| node.ready_since)
                .is_some_and(|since| self.past(since + DEAD_AFTER))
    }

    /// Does the agent say that this image runs?
    #[must_use]
    pub fn booted_is(&self, image: &Image) -> bool {
        self.report
            .and_then(|report| report.booted.as_ref())
            .is_some_and(|booted| booted.is(image))
    }

    /// Does the agent say that another image than this one runs?
    #[must_use]
    pub fn booted_other(&self, image: &Image) -> bool {
        self.report
            .and_then(|report| report.booted.as_ref())
            .is_some_and(|booted| !booted.is(image))
    }

    /// Does the agent say that exactly this image is staged and waits for the approval?
    #[must_use]
    pub fn staged_is(&self, image: &Image) -> bool {
        self.activity() == Activity::Staged
            && self
                .report
                .and_then(|report| report.staged.as_ref())
                .is_some_and(|staged| staged.is(image))
    }

    /// What the agent does.
    #[must_use]
    pub fn activity(&self) -> Activity {
        self.report
            .map_or(Activity::Unknown, |report| report.activity)
    }

    /// The boot in which the agent last reported.
    #[must_use]
    pub fn boot(&self) -> Option<&str> {
        self.report.and_then(|report| report.boot.as_deref())
    }

    /// The agent's Degraded.
    #[must_use]
    pub fn agent_fault(&self) -> Option<AgentFaultKind> {
        self.report
            .and_then(|report| report.degraded.as_ref())
            .map(|fault| fault.kind)
    }

    /// Does the agent's report speak of our last write? One that names no generation does.
    #[must_use]
    pub fn heard(&self) -> bool {
        self.report.is_some_and(|report| {
            report
                .observed_generation
                .is_none_or(|seen| seen >= self.generation)
        })
    }

    /// May the agent still reboot by the record's approval? Of an agent that names no boots: until
    /// it runs the image.
    #[must_use]
    pub fn approval_out(&self, record: &Record) -> bool {
        record
            .approval
            .as_ref()
            .is_some_and(|approval| match (&approval.boot, self.boot()) {
                (Some(approved), Some(boot)) => approved == boot,
                _ => !record
                    .image
                    .as_ref()
                    .is_some_and(|image| self.booted_is(image)),
            })
    }

    /// Is the host in another boot than the approved one? Of an agent that names no boots this is
    /// not known.
    #[must_use]
    pub fn rebooted(&self, record: &Record) -> bool {
        let approved = record
            .approval
            .as_ref()
            .and_then(|approval| approval.boot.as_deref());
        match (approved, self.boot()) {
            (Some(approved), Some(boot)) => approved != boot,
            _ => false,
        }
    }

    /// Does the host run what ran before the approval?
    #[must_use]
    pub fn runs_as_before(&self, record: &Record) -> bool {
        let before = record
            .approval
            .as_ref()
            .and_then(|approval| approval.before.as_ref());
        let booted = self.report.and_then(|report| report.booted.as_ref());
        matches!((before, booted), (Some(before), Some(booted)) if *before == booted.digest)
    }

    /// Has the pool's drain timeout passed? Time in which the pool was halted does not count.
    pub fn drain_late(&self, record: &Record) -> bool {
        let Some(timeout) = self
            .limits
            .drain
            .filter(|_| !self.halted && self.drain.is_some())
        else {
            return false;
        };
        self.past(Timestamp(
            (record.clock + timeout).0.saturating_add(self.halted_ms),
        ))
    }

    /// Has the reboot taken longer than `limit`, and is the node still not back?
    pub fn reboot_late(&self, record: &Record, limit: Seconds) -> bool {
        !self.back(record) && self.past(record.clock + limit)
    }

    /// Is the node up in the wanted image?
    #[must_use]
    pub fn back(&self, record: &Record) -> bool {
        !self.not_ready()
            && record
                .image
                .as_ref()
                .is_some_and(|image| self.booted_is(image))
    }

    /// Is a report missing that must have come by now?
    pub fn silent(&self, record: &Record) -> bool {
        !self.heard() && self.past(record.written + SILENT_AFTER)
    }

    /// Is the host up as its Node says too: Ready for long enough, in the boot that the agent
    /// speaks of? A Node without a Ready condition counts as its agent says.
    pub fn settled(&self, record: &Record) -> bool {
        let Some(node) = self.node else { return false };
        let same_boot = match (node.boot_id.as_deref(), self.boot()) {
            (Some(node), Some(agent)) => agent.split('+').next() == Some(node),
            _ => true,
        };
        match node.ready {
            Some(false) => false,
            None => same_boot,
            Some(true) => {
                let since = node.ready_since.unwrap_or_default().max(record.since);
                same_boot
                    && (self.limits.min_ready == Seconds(0)
                        || self.past(since + self.limits.min_ready))
            }
        }
    }
}
