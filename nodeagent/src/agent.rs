//! The agent's one task: it gathers facts, asks `fsm` what follows, and sees that it is done.

use std::{
    future::{Future, pending},
    mem,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use crd::{BootcNode, BootcNodeStatus};
use fsm::host::{
    self, Effect, Facts, Host as HostFact, News, Record, Report, Started, State, Wanted,
};
use futures::StreamExt as _;
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use crate::{
    api::{ApiError, Seen},
    bootc::Images,
    hands::{Hands, Sighting, Survey, now},
    report,
    watch::HostWatch,
};

/// How often the unit that pulls is looked at.
const LOOK_AT_UNIT: Duration = Duration::from_secs(1);
/// When bootc is asked again after it failed to answer.
const READ_AGAIN: Duration = Duration::from_secs(30);
/// Doing the same thing again at once means that it changed nothing: it is tried again after this.
const SAME_AGAIN: Duration = Duration::from_secs(5);
/// The longest wait after a refused status write.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

type Work<T> = Pin<Box<dyn Future<Output = T>>>;

/// The agent.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not a state"
)]
pub struct Agent {
    hands: Hands,
    poll: Duration,
    facts: Facts,
    asked: Option<(String, fsm::Timestamp)>,
    news: News,
    record: Option<Record>,
    images: Images,
    node: Option<BootcNode>,
    /// What is being done on the host: one thing at a time.
    work: Option<Work<Sighting>>,
    /// The status write under way.
    writing: Option<Work<Result<BootcNode, ApiError>>>,
    write_at: Instant,
    write_waits: ExponentialBackoff,
    /// The last thing done, and when: see [`SAME_AGAIN`].
    done: Option<(Effect, Instant)>,
    knows_tools: bool,
    /// The host was going down already when the agent started.
    stopping: bool,
    read_at: Instant,
    look_at: Instant,
    /// bootc was asked since the last deed.
    looked: bool,
    quiet: bool,
    wake_at: Option<Instant>,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("facts", &self.facts)
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

impl Agent {
    /// Looks round and is ready to run.
    ///
    /// # Errors
    /// If the host does not show its boot id.
    pub async fn start(hands: Hands, poll: Duration) -> std::io::Result<Self> {
        let survey = hands.survey().await?;
        tracing::info!(?survey, "the host");
        Ok(Self::after(survey, hands, poll))
    }

    fn after(survey: Survey, hands: Hands, poll: Duration) -> Self {
        let at = Instant::now();
        Self {
            hands,
            poll,
            facts: facts(&survey),
            asked: survey.asked,
            news: News::None,
            record: None,
            images: Images::default(),
            node: None,
            work: None,
            writing: None,
            write_at: at,
            write_waits: waits(),
            done: None,
            knows_tools: survey.can.is_some(),
            stopping: survey.stopping,
            read_at: at,
            look_at: at,
            looked: false,
            quiet: survey.stopping,
            wake_at: None,
        }
    }

    /// Runs for ever. May be dropped at any time: what is under way on the host goes on in a unit of
    /// its own, and the next agent takes it from there.
    pub async fn run(mut self) {
        let changed = Arc::new(Notify::new());
        let watch = HostWatch::new(self.hands.host());
        let watching = tokio::spawn(watch.run(Arc::clone(&changed)));
        let _stop = AbortOnDrop(watching);
        let mut seen = pin!(self.hands.server().watch());
        let mut poll = interval(self.poll);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.decide();
            let wake = self.next_look();
            tokio::select! {
                Some(seen) = seen.next() => self.saw(seen),
                () = changed.notified() => self.look_now(),
                _ = poll.tick() => self.look_now(),
                sighting = finished(&mut self.work) => {
                    self.work = None;
                    self.learn(sighting);
                }
                written = finished(&mut self.writing) => {
                    self.writing = None;
                    self.written(written);
                }
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Draws the consequences of what is known and gets them under way.
    fn decide(&mut self) {
        let Some(record) = self.record.take().or_else(|| self.resume()) else {
            return self.work_on(None, false);
        };
        self.facts.now = now();
        self.facts.jitter = fastrand::u16(..=1000);
        let mut news = mem::take(&mut self.news);
        let mut step = host::step(record, &self.facts, &news);
        for hop in &step.taken {
            tracing::info!(from = ?hop.from, to = ?hop.to, event = ?hop.event, "state");
        }
        if let Some(report) = &step.report
            && self.stands_or_is_written(report)
            && self.facts.reported.as_ref() != Some(report)
        {
            self.facts.reported = Some(report.clone());
            news = News::None;
            step = host::step(step.record, &self.facts, &news);
        }
        self.quiet = step.quiet;
        self.wake_at = step.wake_at.map(|at| {
            let wait = u64::try_from(at.since(self.facts.now)).unwrap_or_default();
            Instant::now() + Duration::from_millis(wait)
        });
        self.record = Some(step.record);
        self.work_on(step.effect, news == News::Confirmed);
    }

    /// Memory, as soon as the object was seen.
    fn resume(&mut self) -> Option<Record> {
        let node = self.node.as_ref()?;
        let reported = report::reported(node.status.as_ref());
        let attempt = reported.report.as_ref().and_then(|it| it.attempt.as_ref());
        let asked = self.asked.take();
        let asked = asked.filter(|(boot, _)| attempt.is_some_and(|it| it.boot == *boot));
        self.facts.started.asked = asked.map(|(_, at)| at);
        let mut record = Record::resume(reported, &self.facts);
        record.asked =
            (self.stopping && record.state == State::Rebooting).then_some(self.facts.now);
        Some(record)
    }

    /// Does the report stand in the API server? If not, its write is begun when it may be.
    fn stands_or_is_written(&mut self, report: &Report) -> bool {
        let Some(node) = &self.node else {
            return false;
        };
        let before = node.status.as_ref().map(report::ours).unwrap_or_default();
        let status = report::status(
            report,
            &self.images,
            &self.facts.boot,
            node.metadata.generation,
            self.facts.now,
            &before,
        );
        if status == before {
            return true;
        }
        if self.writing.is_none() && Instant::now() >= self.write_at {
            self.writing = Some(self.write(node.clone(), status));
        }
        false
    }

    fn write(&self, node: BootcNode, status: BootcNodeStatus) -> Work<Result<BootcNode, ApiError>> {
        let server = self.hands.server().clone();
        Box::pin(async move { server.write(&node, &status).await })
    }

    /// Begins the next thing on the host, if none is under way. A look comes before a deed, but for
    /// one that was just confirmed (between the two nothing must come), and for one after a look:
    /// a host that changes all the time would else be looked at for ever.
    fn work_on(&mut self, effect: Option<Effect>, confirmed: bool) {
        if self.work.is_some() || self.quiet {
            return;
        }
        let hands = self.hands.clone();
        let at = Instant::now();
        let unit = self.facts.unit.clone();
        let deed = effect.filter(|it| confirmed || self.is_due(it, at));
        let has_turn = confirmed || (self.looked && deed.is_some());
        if unit.is_none() && !has_turn && at >= self.read_at {
            self.read_at = at + self.poll;
            let ask_tools = !self.knows_tools;
            self.work = Some(Box::pin(async move { hands.read(ask_tools).await }));
        } else if let Some(effect) = deed {
            self.looked = false;
            self.done = Some((effect.clone(), at));
            self.look_at = at + LOOK_AT_UNIT;
            self.work = Some(Box::pin(async move { hands.carry_out(effect).await }));
        } else if let Some(unit) = unit.filter(|_| at >= self.look_at) {
            self.look_at = at + LOOK_AT_UNIT;
            self.work = Some(Box::pin(async move { hands.look_at_unit(unit).await }));
        }
    }

    fn is_due(&mut self, effect: &Effect, at: Instant) -> bool {
        let again = self.done.as_ref().filter(|(done, _)| done == effect);
        let due = again.map(|(_, done)| *done + SAME_AGAIN);
        if let Some(due) = due.filter(|due| *due > at) {
            self.wake_at = Some(self.wake_at.map_or(due, |wake| wake.min(due)));
            return false;
        }
        true
    }

    fn next_look(&self) -> Instant {
        let mut at = Instant::now() + self.poll;
        let unit = self.facts.unit.is_some();
        let idle = self.work.is_none() && !self.quiet;
        let looks = [
            (idle && unit).then_some(self.look_at),
            (idle && !unit).then_some(self.read_at),
            self.writing.is_none().then_some(self.write_at),
            self.wake_at,
        ];
        let now = Instant::now();
        for look in looks.into_iter().flatten().filter(|it| *it > now) {
            at = at.min(look);
        }
        at
    }

    fn look_now(&mut self) {
        let at = Instant::now();
        (self.read_at, self.look_at) = (at, at);
    }

    fn saw(&mut self, seen: Seen) {
        match seen {
            Seen::Node(node) => self.saw_node(*node),
            Seen::Gone => {
                self.node = None;
                self.facts.wanted = Wanted::Nothing;
            }
        }
    }

    /// Takes the object over, unless a newer one was seen.
    fn saw_node(&mut self, node: BootcNode) {
        if self
            .node
            .as_ref()
            .is_some_and(|known| is_newer(known, &node))
        {
            return;
        }
        self.facts.wanted = report::wanted(&node);
        self.node = Some(node);
    }

    fn learn(&mut self, seen: Sighting) {
        if let Some(host) = seen.host {
            if matches!(host, HostFact::Unreadable(_)) {
                self.read_at = self.read_at.min(Instant::now() + READ_AGAIN);
            }
            self.facts.host = host;
            self.looked = true;
        }
        self.images = seen.images.unwrap_or(mem::take(&mut self.images));
        self.facts.unit = seen.unit.unwrap_or(self.facts.unit.take());
        let progress = seen.progress.or(self.facts.progress.take());
        self.facts.progress = progress.filter(|_| self.facts.unit.is_some());
        self.facts.auth = seen.auth.unwrap_or(mem::take(&mut self.facts.auth));
        if let Some(can) = seen.can {
            tracing::info!(?can, "the host's tools");
            (self.facts.can, self.knows_tools) = (can, true);
        }
        match seen.node {
            Some(Some(node)) => self.saw_node(node),
            Some(None) => self.saw(Seen::Gone),
            None => {}
        }
        // Without a record nobody heard the last one yet: a look that tells nothing must not undo it.
        if seen.news != News::None {
            self.news = seen.news;
        }
    }

    fn written(&mut self, written: Result<BootcNode, ApiError>) {
        match written {
            Ok(node) => {
                self.write_waits = waits();
                self.saw_node(node);
            }
            Err(error) => {
                let wait = self.write_waits.next().unwrap_or(LONGEST_WAIT);
                tracing::warn!(%error, ?wait, "the status could not be written; it is tried again");
                self.write_at = Instant::now() + wait;
            }
        }
    }
}

fn facts(survey: &Survey) -> Facts {
    Facts {
        now: now(),
        boot: survey.boot.clone(),
        wanted: Wanted::Unknown,
        host: HostFact::Unknown,
        unit: survey.unit.clone(),
        progress: None,
        auth: survey.auth.clone(),
        started: Started {
            asked: None,
            boot: survey.booted_at,
            agent: now(),
        },
        can: survey.can.unwrap_or_default(),
        reported: None,
        jitter: 0,
    }
}

fn waits() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(LONGEST_WAIT)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Is `known` the same object in a later version than `node`?
fn is_newer(known: &BootcNode, node: &BootcNode) -> bool {
    let version =
        |node: &BootcNode| -> Option<u64> { node.metadata.resource_version.as_ref()?.parse().ok() };
    known.metadata.uid == node.metadata.uid
        && version(known)
            .zip(version(node))
            .is_some_and(|(known, node)| known > node)
}

async fn finished<T>(work: &mut Option<Work<T>>) -> T {
    match work {
        Some(work) => work.await,
        None => pending().await,
    }
}

/// Ends the task with its owner.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::path::Path;

    use crd::BootcNodeSpec;
    use fsm::host::{Auth, Entry, Image, Task, View};

    use super::*;
    use crate::{api::Server, host::Host};

    const A: &str = "quay.io/os@sha256:aa";
    const B: &str = "quay.io/os@sha256:bb";

    /// An agent that has seen nothing but its host, which it cannot reach; nor can it the API server.
    fn alone() -> Agent {
        let config = kube::Config::new("http://127.0.0.1:9".parse().unwrap());
        let server = Server::new(config, "n").unwrap();
        let host = Host::played(Path::new("/nonexistent"), "/nonexistent");
        let survey = Survey {
            boot: "now".into(),
            asked: None,
            booted_at: None,
            stopping: false,
            unit: None,
            auth: Auth::Absent,
            can: None,
        };
        Agent::after(survey, Hands::new(host, server), Duration::from_secs(300))
    }

    fn booted() -> View {
        let image = Image {
            reference: A.into(),
            digest: "sha256:aa".into(),
            sigpolicy: false,
        };
        View {
            booted: Entry {
                image: Some(image),
                ..Entry::default()
            },
            ..View::default()
        }
    }

    #[tokio::test]
    async fn a_failure_before_the_object_is_seen_is_not_forgotten() {
        let mut agent = alone();
        let failed = Sighting {
            news: News::Ended {
                task: Task::Stage,
                image: B.into(),
                error: Some("no luck".into()),
            },
            host: Some(HostFact::Seen(booted())),
            ..Sighting::default()
        };
        agent.learn(failed);
        agent.decide();
        // Looks that tell nothing come until the API server answers.
        agent.learn(Sighting::default());
        agent.decide();
        let spec = BootcNodeSpec {
            desired_image: Some(B.into()),
            ..BootcNodeSpec::default()
        };
        agent.saw_node(BootcNode::new("n", spec));
        agent.decide();
        let trouble = agent.record.unwrap().trouble.unwrap();
        assert!(
            trouble.message.contains("failed: no luck"),
            "{}",
            trouble.message
        );
        assert_eq!(agent.news, News::None);
    }
}
