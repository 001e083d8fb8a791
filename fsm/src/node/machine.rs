//! The machine: in which state which conclusion leads where, and what is kept of it.
//!
//! Read the `match`es as the table of transitions; what a state does not name is asked of the group
//! around it: `Managed` ⊃ `Updating` ⊃ `InSlot`. There are no entry or exit actions: a slot outlives
//! the states that use it, so what has to be done follows from the record (see `effects`), not from
//! the way by which a state was reached.

use statig::blocking::{IntoStateMachine, IntoStateMachineExt as _};
use statig::{Outcome, Outcome::Handled, Outcome::Super, Outcome::Transition, blocking};

use super::{
    event::{Event, due},
    facts::{Facts, Wanted},
    record::{self, Approval, DrainFault, Hop, Mark, Record, Slot, State},
};
use crate::time::Seconds;

/// Back-off after a drain that took too long: this, doubled with each further one.
const DRAIN_RETRY: Seconds = Seconds(300);
/// Doubled at most so often: 80 minutes.
const DRAIN_RETRY_DOUBLINGS: u32 = 4;
/// More hops than this in one step would be a circle.
const MAX_HOPS: usize = 8;

/// Hops to and fro that need no write must not fill the annotation: the oldest are dropped.
const MAX_HOPS_KEPT: usize = 16;

/// So many states of one update are kept: an update that goes as it should has eight.
const MAX_MARKS: usize = 24;

/// The machine has no storage of its own: everything is in the [`Record`].
#[derive(Debug)]
struct Machine;

/// What the handlers read and write.
struct Context<'a, 'f> {
    record: &'a mut Record,
    facts: &'a Facts<'f>,
    event: Event,
    /// What was kept of the state before.
    group: record::Group,
}

/// Groups of states.
#[derive(Debug)]
enum Group {
    /// Of a pool.
    Managed,
    /// On the way to an image; the agent reports.
    Updating,
    /// With a slot, on the way down and up again.
    InSlot,
}

impl IntoStateMachine for Machine {
    type Event<'e> = Event;
    type Context<'c> = Context<'c, 'c>;
    type State = State;
    type Superstate<'s> = Group;

    fn initial() -> State {
        State::Idle
    }

    fn after_transition(&mut self, from: &State, to: &State, context: &mut Context<'_, '_>) {
        context.arrive(*from, *to);
    }
}

impl blocking::State<Machine> for State {
    #[expect(clippy::match_same_arms, reason = "one arm a row of the table")]
    fn call_handler(
        &mut self,
        _: &mut Machine,
        event: &Event,
        c: &mut Context<'_, '_>,
    ) -> Outcome<Self> {
        use Event as E;
        match (*self, event) {
            (Self::Idle, E::Unbooted) => c.stage_again(),
            // Without a slot there is nothing to prove, and nothing to come back from.
            (Self::Verifying, E::Unbooted) if c.record.slot.is_none() => c.stage_again(),

            (Self::Staging, E::Staged) => Transition(Self::Staged),
            (Self::Staged, E::Unstaged) => Transition(Self::Staging),
            (Self::Staged, E::SlotHeld | E::Granted) => c.take_slot(),

            (Self::Cordoned, E::CordonSeen) => Transition(Self::Draining),
            (Self::Cordoned | Self::Draining, E::Dead | E::Contested) => c.give_up(),
            (Self::Draining, E::CordonLost) => c.cordon_again(),
            (Self::Draining, E::DrainLate) => c.drain_timed_out(),
            (Self::Draining, E::Drained) => c.approve(),

            (Self::Verifying, E::Booted) => Handled,
            (Self::Verifying, E::Proven) => c.finish(),
            (Self::Rebooting | Self::Verifying, E::Contested) => Handled,
            (Self::Rebooting | Self::Verifying, E::Returned) => c.try_again(),
            (Self::Rebooting | Self::Verifying, E::Strayed) => c.stage_again(),
            _ => Super,
        }
    }

    fn superstate(&mut self) -> Option<Group> {
        match self {
            Self::Idle => Some(Group::Managed),
            Self::Staging | Self::Staged => Some(Group::Updating),
            Self::Cordoned | Self::Draining | Self::Rebooting | Self::Verifying => {
                Some(Group::InSlot)
            }
            Self::Leaving => None,
        }
    }
}

impl blocking::Superstate<Machine> for Group {
    fn call_handler(
        &mut self,
        _: &mut Machine,
        event: &Event,
        c: &mut Context<'_, '_>,
    ) -> Outcome<State> {
        use Event as E;
        match (self, event) {
            (Self::Updating, E::Booted) => Transition(State::Verifying),
            (Self::Updating, E::Contested) => c.free_slot(),

            (Self::Managed, E::Left) => Transition(State::Leaving),
            (Self::Managed, E::Retried) => c.forget_faults(),
            (Self::Managed, E::Revoked | E::Retargeted) => c.retarget(State::Staging),
            (Self::Managed, E::RevokedToBooted) => c.retarget(State::Verifying),
            (Self::Managed, E::RetargetedToBooted) => c.retarget(State::Idle),
            _ => Super,
        }
    }

    fn superstate(&mut self) -> Option<Self> {
        match self {
            Self::Managed => None,
            Self::Updating => Some(Self::Managed),
            Self::InSlot => Some(Self::Updating),
        }
    }
}

impl Context<'_, '_> {
    fn arrive(&mut self, from: State, to: State) {
        let now = self.facts.now;
        let record = &mut *self.record;
        record.state = to;
        if record.group() != self.group {
            record.clock = now;
        }
        if from != to || record.path.is_empty() {
            if record.path.len() >= MAX_MARKS {
                record.path.remove(0);
            }
            record.path.push(Mark { state: to, at: now });
        }
        if from != to {
            let since = std::mem::replace(&mut record.since, now);
            let cause = format!("{:?}", self.event);
            if record.hops.len() >= MAX_HOPS_KEPT {
                record.hops.remove(0);
            }
            record.hops.push(Hop {
                from,
                since,
                to,
                at: now,
                cause,
            });
        }
    }

    /// Another image is wanted: the old one's approval, faults and tries go with it.
    fn retarget(&mut self, to: State) -> Outcome<State> {
        let Wanted::Wants(image) = &self.facts.wanted else {
            return Handled;
        };
        self.record.image = Some(image.clone());
        self.record.approval = None;
        self.record.path.clear();
        let wanted = self.facts.wanted_since.unwrap_or(self.facts.now);
        self.record
            .begin(image, self.facts.now, wanted.max(self.record.since));
        if to == State::Idle {
            self.record.slot = None;
        }
        let _ = self.forget_faults();
        Transition(to)
    }

    fn forget_faults(&mut self) -> Outcome<State> {
        self.record.fault = None;
        self.record.tries = 0;
        Handled
    }

    fn free_slot(&mut self) -> Outcome<State> {
        self.record.slot = None;
        Handled
    }

    /// Takes the slot, or uses the one it has. What was cordoned before is noted once.
    fn take_slot(&mut self) -> Outcome<State> {
        let facts = self.facts;
        self.record.slot.get_or_insert_with(|| Slot {
            was_cordoned: facts
                .node
                .is_some_and(|node| node.cordoned && node.cordoned_by.is_none()),
            since: facts.now,
        });
        self.record.attempt += 1;
        Transition(State::Cordoned)
    }

    fn cordon_again(&mut self) -> Outcome<State> {
        self.record.attempt += 1;
        Transition(State::Cordoned)
    }

    fn give_up(&mut self) -> Outcome<State> {
        self.record.slot = None;
        Transition(State::Staged)
    }

    fn drain_timed_out(&mut self) -> Outcome<State> {
        let times = self.record.fault.as_ref().map_or(0, |fault| fault.times);
        let wait = Seconds(DRAIN_RETRY.0 << times.min(DRAIN_RETRY_DOUBLINGS));
        self.record.fault = Some(DrainFault {
            until: self.facts.now + wait,
            times: times + 1,
        });
        self.give_up()
    }

    fn approve(&mut self) -> Outcome<State> {
        let report = self.facts.report;
        self.record.approval = Some(Approval {
            boot: self.facts.boot().map(str::to_owned),
            before: report.and_then(|report| Some(report.booted.as_ref()?.digest.clone())),
            at: self.facts.now,
        });
        Transition(State::Rebooting)
    }

    /// The image is to be staged (again); an approval that is out of date goes. Where the last update
    /// was over, that is another one.
    fn stage_again(&mut self) -> Outcome<State> {
        self.record.approval = None;
        if let Some(image) = self.record.image.clone()
            && self.record.state == State::Idle
        {
            self.record.begin(&image, self.facts.now, self.facts.now);
        }
        Transition(State::Staging)
    }

    fn try_again(&mut self) -> Outcome<State> {
        self.record.tries += 1;
        self.stage_again()
    }

    /// The update is over. The approval stays: its boot is over and it is void, and taking it back
    /// would be one more change of the spec for the agent to report on. One that names no boot goes: it
    /// would hold for every boot to come.
    fn finish(&mut self) -> Outcome<State> {
        self.record.slot = None;
        self.record.approval.take_if(|it| it.boot.is_none());
        let _ = self.forget_faults();
        Transition(State::Idle)
    }
}

/// What the machine makes of one event, whether that holds or not.
#[must_use]
pub fn handle(record: &Record, facts: &Facts<'_>, event: Event) -> Record {
    let mut next = record.clone();
    let mut machine = Machine.uninitialized_state_machine();
    *machine.state_mut() = record.state;
    let mut context = Context {
        group: record.group(),
        record: &mut next,
        facts,
        event,
    };
    let mut machine = machine.init_with_context(&mut context);
    machine.handle_with_context(&event, &mut context);
    next
}

/// Follows what holds, the most urgent first, until something has to be written or done
/// (`stop` says so of the record reached) or nothing more changes.
#[must_use]
pub fn step(record: &Record, facts: &Facts<'_>, stop: impl Fn(&Record) -> bool) -> Record {
    let mut record = record.clone();
    for _ in 0..MAX_HOPS {
        let next = due(&record, facts)
            .map(|event| handle(&record, facts, event))
            .find(|next| *next != record);
        match next {
            Some(next) => record = next,
            None => break,
        }
        if stop(&record) {
            break;
        }
    }
    record
}
