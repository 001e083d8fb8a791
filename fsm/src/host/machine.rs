//! The machine: which event leads where, and the step around it.

use serde::{Deserialize, Serialize};
use statig::{
    Outcome,
    blocking::{self, IntoStateMachineExt as _},
    prelude::IntoStateMachine,
};

use super::{
    Attempt, Effect, Event, Facts, Host, News, Record, Report, Spec, State, StepName, Task,
    Trouble, due, effect, event::REBOOT_DEADLINE, record::Outcome as Fate, report,
};
use crate::{Timestamp, time::Seconds};

/// More hops than any way through the machine has: beyond it a step stops, so that a defect shows
/// as a slow host and not as a hung agent.
pub const MAX_HOPS: usize = 8;

/// How often the progress of a pull is told: each time costs a write to the API server.
const PROGRESS_EVERY: Seconds = Seconds(30);

/// What follows from one look at the facts.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The memory from now on.
    pub record: Record,
    /// What the status should say; `None` while too little is known to say anything.
    pub report: Option<Report>,
    /// What to do on the host, if nothing is under way there.
    pub effect: Option<Effect>,
    /// A reboot is under way: nothing of ours may run bootc.
    pub quiet: bool,
    /// When to look again, if nothing happens before.
    pub wake_at: Option<Timestamp>,
    /// The transitions that were taken.
    pub taken: Vec<Hop>,
}

/// One transition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// The state that was left.
    pub from: State,
    /// Why.
    pub event: Event,
    /// The state that was reached.
    pub to: State,
}

/// Takes the record through all that the facts and the news mean.
///
/// Pure: same record, facts and news, same step. May be repeated at will with [`News::None`].
#[must_use]
pub fn step(mut record: Record, facts: &Facts, news: &News) -> Step {
    learn(&mut record, facts, news);
    let mut taken: Vec<Hop> = Vec::new();
    while taken.len() < MAX_HOPS {
        // A failure is told once.
        let heard = taken
            .iter()
            .any(|hop| matches!(hop.event, Event::Failed(_)));
        let events = due(&record, facts, if heard { &News::None } else { news });
        let Some(hop) = events
            .iter()
            .find_map(|event| consider(&mut record, facts, event))
        else {
            break;
        };
        match hop {
            Handled::Hop(hop) => taken.push(hop),
            Handled::Here => break,
        }
    }
    tidy(&mut record, facts);
    Step {
        report: report::of(&record, facts),
        effect: effect::next(&record, facts, news),
        quiet: record.asked.is_some(),
        wake_at: wake_at(&record, facts),
        taken,
        record,
    }
}

/// News that change what is remembered, in every state.
fn learn(record: &mut Record, facts: &Facts, news: &News) {
    let retry = facts.wanted.spec().and_then(|spec| spec.retry);
    if retry.is_some_and(|asked| record.is_older(asked)) {
        record.forgive();
    }
    match news {
        News::RebootAsked => {
            record.asked = Some(facts.now);
            record.end(StepName::Unlocking, facts.now);
            record.begin(StepName::Stopping, facts.now);
        }
        News::Ended { task, image, error } => ended(record, facts, *task, image, error.as_deref()),
        News::None | News::Confirmed => {}
    }
}

fn ended(record: &mut Record, facts: &Facts, task: Task, image: &str, error: Option<&str>) {
    match task {
        Task::Lock | Task::Unprepare => {
            let done = facts.host.view().is_some_and(|view| match task {
                Task::Lock => view.staged.as_ref().is_some_and(|it| it.locked),
                _ => !view.prepared,
            });
            let failures = record.lock_failures.saturating_add(1);
            record.lock_failures = if done { 0 } else { failures };
        }
        Task::Unstage => record.leftover = None,
        Task::Settle => record.settled = true,
        Task::Auth => {
            let before = record.auth_trouble.take();
            let before = before.filter(|(hash, _)| hash == image).map(|(_, it)| it);
            record.auth_trouble = error.map(|words| {
                let trouble = Trouble::after(before.as_ref(), facts, words);
                (image.to_owned(), trouble)
            });
        }
        Task::Stage | Task::Unlock | Task::Confirm | Task::Reboot => {}
    }
}

/// Drops what the facts have overtaken.
fn tidy(record: &mut Record, facts: &Facts) {
    let hash = facts
        .wanted
        .spec()
        .and_then(|spec| spec.secret.as_ref())
        .map_or("", |secret| &secret.hash);
    if record.auth_trouble.as_ref().is_some_and(|it| it.0 != hash) {
        record.auth_trouble = None;
    }
    if let Host::Seen(view) = &facts.host
        && facts.unit.is_none()
        && view.staged.is_none()
    {
        record.leftover = None;
    }
    tell_progress(record, facts);
}

/// What is told of a pull: nothing of a short one, and else not more often than [`PROGRESS_EVERY`].
fn tell_progress(record: &mut Record, facts: &Facts) {
    if record.state != State::Staging {
        record.progress = None;
        return;
    }
    let mut steps = record.steps.iter();
    let begun = steps.find(|step| step.name == StepName::Staging && step.end.is_none());
    let told = record.progress.map(|(at, _)| at);
    let last = told.or(begun.map(|step| step.start));
    let due = last.is_none_or(|at| facts.now >= at + PROGRESS_EVERY);
    let news = record.progress.map(|(_, progress)| progress) != facts.progress;
    if let Some(progress) = facts.progress.filter(|_| due && news) {
        record.progress = Some((facts.now, progress));
    }
}

fn wake_at(record: &Record, facts: &Facts) -> Option<Timestamp> {
    [
        record.trouble.as_ref().map(|it| it.retry_at),
        record.auth_trouble.as_ref().map(|it| it.1.retry_at),
        record.asked.map(|at| at + REBOOT_DEADLINE),
    ]
    .into_iter()
    .flatten()
    .filter(|at| *at > facts.now)
    .min()
}

/// What came of an event.
enum Handled {
    /// A transition.
    Hop(Hop),
    /// It holds here and there is nothing more to conclude.
    Here,
}

/// Gives one event to the machine; `None` if it means nothing in this state.
fn consider(record: &mut Record, facts: &Facts, event: &Event) -> Option<Handled> {
    let from = record.state;
    let mut context = Context {
        record,
        facts,
        handled: true,
        to: None,
    };
    let mut machine = Machine.uninitialized_state_machine();
    *machine.state_mut() = from;
    let mut machine = machine.init_with_context(&mut context);
    machine.handle_with_context(event, &mut context);
    match context.to {
        Some(to) => {
            context.record.state = to;
            Some(Handled::Hop(Hop {
                from,
                event: event.clone(),
                to,
            }))
        }
        None => context.handled.then_some(Handled::Here),
    }
}

/// Carries nothing: all memory is in the record.
#[derive(Clone, Copy, Debug)]
struct Machine;

/// What a handler may read and change.
struct Context<'a> {
    record: &'a mut Record,
    facts: &'a Facts,
    handled: bool,
    to: Option<State>,
}

/// Around all states.
#[derive(Clone, Copy, Debug)]
enum Scope {
    /// What holds wherever the host is.
    Managed,
}

impl IntoStateMachine for Machine {
    type Event<'e> = Event;
    type Context<'c> = Context<'c>;
    type State = State;
    type Superstate<'s> = Scope;

    fn initial() -> State {
        State::Idle
    }

    fn after_transition(&mut self, _: &State, to: &State, context: &mut Context<'_>) {
        context.to = Some(*to);
    }
}

impl blocking::State<Machine> for State {
    fn call_handler(
        &mut self,
        _: &mut Machine,
        event: &Event,
        context: &mut Context<'_>,
    ) -> Outcome<Self> {
        use Outcome::{Handled, Super, Transition};
        match (*self, event) {
            (Self::Idle, Event::Arrived | Event::Released) => {
                context.settle_down();
                Handled
            }
            (Self::Idle, Event::Refused)
            | (Self::Rebooting, Event::FellBack { settled: false }) => Handled,
            (Self::Idle | Self::Staging, Event::Staged) => {
                context.staged();
                Transition(Self::Staged)
            }
            (Self::Idle | Self::Staged | Self::Rebooting, Event::Needed)
            | (Self::Idle, Event::Adopted) => {
                context.stage();
                Transition(Self::Staging)
            }
            (Self::Staging | Self::Rebooting, Event::Failed(message)) => {
                context.failed(message);
                Transition(Self::Idle)
            }
            (Self::Staged, Event::Approved) => {
                context.attempt();
                Transition(Self::Rebooting)
            }
            (Self::Rebooting, Event::Stuck) => {
                context.stuck();
                Transition(Self::Idle)
            }
            (Self::Rebooting, Event::FellBack { settled: true }) => {
                context.fell_back();
                Transition(Self::Idle)
            }
            (Self::Rebooting, Event::Lost) => {
                context.lost();
                Transition(Self::Idle)
            }
            (Self::Rebooting, Event::Revoked) => Transition(Self::Staged),
            _ => Super,
        }
    }

    fn superstate(&mut self) -> Option<Scope> {
        Some(Scope::Managed)
    }
}

impl blocking::Superstate<Machine> for Scope {
    fn call_handler(
        &mut self,
        _: &mut Machine,
        event: &Event,
        context: &mut Context<'_>,
    ) -> Outcome<State> {
        use Outcome::{Handled, Transition};
        match event {
            Event::Released | Event::Retargeted => {
                context.let_go();
                Transition(State::Idle)
            }
            Event::Stuck => {
                context.record.asked = None;
                Transition(State::Idle)
            }
            Event::Refused => Transition(State::Idle),
            Event::Arrived => {
                context.arrived();
                Transition(State::Idle)
            }
            _ => {
                context.handled = false;
                Handled
            }
        }
    }

    fn superstate(&mut self) -> Option<Self> {
        None
    }
}

/// What the events do to the record.
impl Context<'_> {
    fn wanted(&self) -> Option<String> {
        Some(self.facts.wanted.spec()?.image.clone())
    }

    /// Nothing to do and nothing held against the image.
    fn settle_down(&mut self) {
        let record = &mut *self.record;
        (record.image, record.trouble, record.outcome) = (None, None, None);
        (record.fell_back, record.soft_reboot_failed) = (false, false);
    }

    fn stage(&mut self) {
        self.record.image = self.wanted();
        self.record.lock_failures = 0;
        self.record.steps.clear();
        self.record.begin(StepName::Staging, self.facts.now);
    }

    fn staged(&mut self) {
        self.record.image = self.wanted();
        (self.record.trouble, self.record.outcome) = (None, None);
        self.record.leftover = None;
        self.record.end(StepName::Staging, self.facts.now);
    }

    /// A failed stage that left the image staged leaves it half made (its bound images are
    /// missing, say), and bootc takes a second try for done: so it is dropped first.
    fn failed(&mut self, message: &str) {
        if self.record.state == State::Staging {
            let record = &mut *self.record;
            record.leftover.clone_from(&record.image);
        }
        let before = self.record.trouble.take();
        self.record.trouble = Some(Trouble::after(before.as_ref(), self.facts, message));
    }

    fn stuck(&mut self) {
        self.record.asked = None;
        self.record.soft_reboot_failed = true;
        self.failed(
            "the host said yes to its reboot and is still there after 10 minutes; \
             look for inhibitors and stuck jobs (systemd-inhibit, systemctl list-jobs)",
        );
    }

    fn attempt(&mut self) {
        let (Some(spec), Some(view)) = (self.facts.wanted.spec(), self.facts.host.view()) else {
            return;
        };
        self.record.soft_reboot_failed |= self.went_nowhere_softly();
        self.record.attempt = Some(Attempt {
            digest: spec.digest().to_owned(),
            boot: self.facts.boot.clone(),
            at: self.facts.now,
            rollback: view.rollback.as_ref().and_then(|it| it.deployment.clone()),
            retry: spec.retry,
        });
        let booted = view.booted.image.as_ref();
        self.record.before = booted.map(|it| it.digest.clone());
        (self.record.settled, self.record.expected) = (false, true);
        self.record.begin(StepName::Unlocking, self.facts.now);
    }

    /// Did a soft reboot into the image that is wanted now lead nowhere? Told from the attempt alone,
    /// which outlives the agent.
    fn went_nowhere_softly(&self) -> bool {
        let wanted = self.facts.wanted.spec().map(Spec::digest);
        let before = self.record.attempt.as_ref();
        let before = before.filter(|it| Some(it.digest.as_str()) == wanted);
        before
            .is_some_and(|it| it.boot != self.facts.boot && same_kernel(&it.boot, &self.facts.boot))
    }

    fn fell_back(&mut self) {
        (self.record.fell_back, self.record.expected) = (true, false);
        self.record.trouble = None;
    }

    fn lost(&mut self) {
        let booted = self.facts.host.view().map(|view| &view.booted);
        let before = self.record.before.as_deref();
        let as_before = before.is_none_or(|digest| booted.is_some_and(|booted| booted.is(digest)));
        let outcome = if as_before {
            Fate::NeverApplied
        } else {
            Fate::ThirdImage
        };
        self.record.outcome = self.record.expected.then_some(outcome);
        self.record.expected = false;
    }

    /// The image is no longer wanted: so is what we staged of it, unless the next image takes its
    /// place.
    fn let_go(&mut self) {
        let spec = self.facts.wanted.spec();
        let view = self.facts.host.view();
        let stays = spec.is_none_or(|spec| view.is_some_and(|it| it.booted.is(spec.digest())));
        let ours = self.record.state != State::Idle || self.record.trouble.is_some();
        let leftover = self.record.image.take().filter(|_| stays && ours);
        self.record.leftover = leftover.or(self.record.leftover.take());
        self.record.forgive();
        self.settle_down();
    }

    /// The wanted image runs; if we rebooted into it, the steps that no agent saw are filled in.
    fn arrived(&mut self) {
        let facts = self.facts;
        let record = &mut *self.record;
        let attempt = record.attempt.as_ref();
        let went = attempt.filter(|attempt| attempt.boot != facts.boot);
        if let Some(at) = went
            .map(|attempt| attempt.at)
            .filter(|_| record.state == State::Rebooting)
        {
            let asked = facts.started.asked;
            match asked {
                Some(asked) => record.end(StepName::Unlocking, asked),
                None => record.steps.retain(|step| step.name != StepName::Unlocking),
            }
            if let Some(boot) = facts.started.boot {
                let asked = asked.unwrap_or(at);
                // systemd tells it in whole seconds.
                let boot = boot.max(asked);
                record.ran(StepName::Stopping, asked, boot);
                record.ran(StepName::Booting, boot, facts.started.agent);
            }
            record.ran(StepName::Returning, facts.started.agent, facts.now);
            record.expected = false;
        }
        self.settle_down();
    }
}

/// Is there nothing but soft reboots between the two boots?
fn same_kernel(one: &str, other: &str) -> bool {
    one.split('+').next() == other.split('+').next()
}
