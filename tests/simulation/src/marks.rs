//! What really struck: a schedule of faults that never meet anything proves nothing.

/// Something that a run must have met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// A host was rebooted by us.
    Reboot,
    /// The same, softly.
    SoftReboot,
    /// The request for a reboot failed.
    RebootRefused,
    /// A host said yes to a reboot and hung.
    RebootHung,
    /// A host fell back at boot.
    FellBack,
    /// A host fell back long after it came up.
    FellBackLate,
    /// An update was lost at shutdown.
    UpdateLost,
    /// A host stayed down.
    StayedDown,
    /// Power was cut.
    PowerCut,
    /// A pull failed.
    PullFailed,
    /// Another command on a host failed.
    StepFailed,
    /// An admin staged an image by hand.
    AdminSwitch,
    /// An admin queued a rollback.
    AdminRollback,
    /// An admin rebooted a host.
    AdminReboot,
    /// An agent was killed.
    AgentKilled,
    /// An agent was killed in the middle of something.
    AgentKilledBusy,
    /// An agent's request failed, was lost or refused.
    AgentRequestFailed,
    /// Agents that name no boot gave way to ours.
    AgentsUpgraded,
    /// An operator was killed.
    OperatorKilled,
    /// An operator was killed with decisions on their way.
    OperatorKilledBusy,
    /// A deposed operator went on writing.
    OldLeaderWrote,
    /// A deposed operator's write was refused as stale.
    OldLeaderStale,
    /// A write arrived after its sender had given up.
    LateWriteDone,
    /// A late write came to an object that had changed.
    LateWriteStale,
    /// A write was refused.
    WriteRefused,
    /// A write took place and its answer was lost.
    AnswerLost,
    /// A write was lost.
    WriteLost,
    /// A write was decided on a stale version.
    Conflict,
    /// A write was about an object that was gone.
    Gone,
    /// A watch was restarted and missed changes.
    WatchRestarted,
    /// A watch stood still while there was news.
    WatchStale,
    /// Watches of several kinds told of changes in another order.
    WatchesReordered,
    /// The wanted image changed while a node had a slot.
    RetargetedInSlot,
    /// It changed back to the image that ran.
    RetargetedBack,
    /// An approval was taken back.
    Revoked,
    /// Two pools claimed a node.
    Conflicting,
    /// A node left its pool while it had a slot.
    LeftInSlot,
    /// A Node was made anew under its name.
    Recreated,
    /// A pool was deleted.
    PoolDeleted,
    /// A `BootcNode` was deleted by hand.
    BootcNodeDeleted,
    /// One stayed for a while, held by somebody's finalizer.
    DeletionHeld,
    /// The operator's annotation was lost or spoilt.
    AnnotationLost,
    /// A node was cordoned by others.
    Cordoned,
    /// A slot holder was uncordoned by others.
    UncordonedInSlot,
    /// A drain hung.
    DrainBlocked,
    /// A drain took too long.
    DrainTimedOut,
    /// It had more time than that, for its pool was halted meanwhile.
    DrainClockStood,
    /// A dead node gave its slot back.
    DeadNode,
    /// A pool was halted.
    Halted,
    /// `maxUnavailable` became a percentage.
    Share,
    /// A slot was granted.
    Granted,
    /// A reboot was approved for an agent that names no boot.
    ApprovedPlain,
    /// A reboot was approved.
    Approved,
    /// A person asked for another try of an image that had failed.
    Retried,
    /// A clock jumped.
    ClockJumped,
    /// A clock was set back.
    ClockBack,
    /// A tag moved to another image.
    TagMoved,
    /// A registry did not answer.
    TagFailed,
    /// A pull secret changed.
    SecretChanged,
    /// A spec was mistyped.
    Typo,
}

impl Mark {
    /// All, as they are shown.
    pub const ALL: [Self; 60] = {
        use Mark as M;
        [
            M::Reboot,
            M::SoftReboot,
            M::RebootRefused,
            M::RebootHung,
            M::FellBack,
            M::FellBackLate,
            M::UpdateLost,
            M::StayedDown,
            M::PowerCut,
            M::PullFailed,
            M::StepFailed,
            M::AdminSwitch,
            M::AdminRollback,
            M::AdminReboot,
            M::AgentKilled,
            M::AgentKilledBusy,
            M::AgentRequestFailed,
            M::AgentsUpgraded,
            M::OperatorKilled,
            M::OperatorKilledBusy,
            M::OldLeaderWrote,
            M::OldLeaderStale,
            M::LateWriteDone,
            M::LateWriteStale,
            M::WriteRefused,
            M::AnswerLost,
            M::WriteLost,
            M::Conflict,
            M::Gone,
            M::WatchRestarted,
            M::WatchStale,
            M::WatchesReordered,
            M::RetargetedInSlot,
            M::RetargetedBack,
            M::Revoked,
            M::Conflicting,
            M::LeftInSlot,
            M::Recreated,
            M::PoolDeleted,
            M::BootcNodeDeleted,
            M::DeletionHeld,
            M::AnnotationLost,
            M::Cordoned,
            M::UncordonedInSlot,
            M::DrainBlocked,
            M::DrainTimedOut,
            M::DrainClockStood,
            M::DeadNode,
            M::Halted,
            M::Share,
            M::Granted,
            M::ApprovedPlain,
            M::Approved,
            M::Retried,
            M::ClockJumped,
            M::ClockBack,
            M::TagMoved,
            M::TagFailed,
            M::SecretChanged,
            M::Typo,
        ]
    };
}

/// How often each struck.
#[derive(Clone, Debug)]
pub struct Marks([u64; Mark::ALL.len()]);

impl Default for Marks {
    fn default() -> Self {
        Self([0; Mark::ALL.len()])
    }
}

impl Marks {
    /// Once more.
    pub(crate) fn hit(&mut self, mark: Mark) {
        if let Some(count) = self.0.get_mut(mark as usize) {
            *count += 1;
        }
    }

    /// How often.
    #[must_use]
    pub fn count(&self, mark: Mark) -> u64 {
        self.0.get(mark as usize).copied().unwrap_or_default()
    }

    /// Adds those of another run.
    pub(crate) fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }
}
