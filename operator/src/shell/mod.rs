//! The one task that decides. It owns the rollout, the index and the drains; there is no lock and
//! no shared map. Everything that takes time runs elsewhere and comes back as a [`Message`].

mod clock;
mod draining;
mod pull_secrets;
mod traces;
mod work;

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context as _, bail};
use fsm::{
    Command, Input, NodeName, PoolName, Rollout, Timestamp,
    command::{About, Effect, Notice},
    input::Outcome,
    view::{SecretRef, Waiting},
};
use futures::StreamExt as _;
use kube::Client;
use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use crate::{
    Config,
    apply::{Effected, Failure, Lane, Line, Step, Writer, outcome},
    drain::{self, DrainEvent, Drains, PodName},
    health::{Health, Pings},
    journal::Journal,
    lease::Fence,
    observe::{Index, Stamp, Target, Watch, Written, time, watch},
    registry::Resolver,
    report::{self, Blocked, Events, Metrics, Scrapes, Snapshot, Telemetry},
    secrets::{SecretEvent, Secrets},
};
use clock::Clock;
use pull_secrets::PullSecrets;
use traces::Traces;

/// News of drains and secrets that wait to be looked at; their senders wait when it is full.
const QUEUE: usize = 256;

/// What comes back from work that was done elsewhere.
#[derive(Debug)]
enum Message {
    /// A write of a lane took place.
    Effected(Effected),
    /// A lane came to a drain's effect or to its end.
    Lane(Step),
    /// The answer to a write of the shell's own.
    Written(Asked, Stamp, Result<Option<Written>, Failure>),
    /// The answer of a registry.
    Resolved {
        pool: PoolName,
        reference: String,
        result: Result<String, String>,
    },
}

/// A write that is no lane's.
#[derive(Debug)]
enum Asked {
    Pool { pool: PoolName, write: u64 },
    Waiting(NodeName),
}

/// The deciding task's state.
pub struct Shell {
    rollout: Rollout,
    journal: Journal,
    index: Index,
    clock: Clock,
    wake_at: Option<Timestamp>,
    client: Client,
    writer: Writer,
    drains: Drains,
    drain_events: mpsc::Receiver<DrainEvent>,
    secrets: Secrets,
    secret_events: mpsc::Receiver<SecretEvent>,
    pull_secrets: PullSecrets,
    resolver: Arc<Resolver>,
    events: Events,
    /// Nodes with a lane under way, and what is to be shown of them once it has ended: two writes
    /// to one object at once would make one of them a conflict.
    lanes: BTreeMap<NodeName, Option<Waiting>>,
    blocked: Blocked,
    traces: Option<Traces>,
    metrics: Metrics,
    health: Health,
    /// Work elsewhere: dropping it ends all of it.
    tasks: JoinSet<()>,
    /// Unbounded, but never longer than what fsm has under way: one decision a node.
    outbox: mpsc::UnboundedSender<Message>,
    inbox: mpsc::UnboundedReceiver<Message>,
}

impl std::fmt::Debug for Shell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shell")
            .field("tasks", &self.tasks.len())
            .finish_non_exhaustive()
    }
}

impl Shell {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(
        client: &Client,
        config: &Config,
        fence: &Fence,
        health: Health,
        telemetry: Telemetry,
    ) -> Self {
        let Telemetry { metrics, spans } = telemetry;
        let (drain_sender, drain_events) = mpsc::channel(QUEUE);
        let (secret_sender, secret_events) = mpsc::channel(QUEUE);
        let (outbox, inbox) = mpsc::unbounded_channel();
        let (events, publishing) =
            Events::new(client.clone(), config.identity.clone(), metrics.clone());
        let may_act = fence.clone();
        let settings = drain::Settings {
            own: own_pod(client, config),
            may_evict: Arc::new(move || may_act.may_act()),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(publishing);
        let rollout = config.rollout();
        Self {
            rollout: Rollout::new(rollout),
            journal: Journal::begin(config.journal.as_ref(), rollout, time::now()),
            index: Index::default(),
            clock: Clock::new(),
            wake_at: None,
            client: client.clone(),
            writer: Writer::new(client.clone(), fence.clone(), metrics.clone()),
            drains: Drains::new(client.clone(), settings, drain_sender),
            drain_events,
            secrets: Secrets::new(client.clone(), secret_sender),
            secret_events,
            pull_secrets: PullSecrets::default(),
            resolver: Arc::new(Resolver::new(config.allow_insecure_registry)),
            events,
            lanes: BTreeMap::new(),
            blocked: Blocked::default(),
            traces: spans.map(Traces::new),
            metrics,
            health,
            tasks,
            outbox,
            inbox,
        }
    }

    /// Decides for ever. Returns only when it cannot go on.
    pub async fn run(mut self, mut pings: Pings, mut scrapes: Scrapes) -> anyhow::Result<()> {
        let mut watches = watch(&self.client, &self.metrics);
        loop {
            tokio::select! {
                Some(message) = self.inbox.recv() => self.take(message),
                watch = watches.next() => match watch {
                    Some(watch) => self.watched(watch),
                    None => bail!("the watches have ended"),
                },
                Some(event) = self.drain_events.recv() => self.drained(&event),
                Some(event) = self.secret_events.recv() => self.secret_seen(&event),
                Some(ping) = pings.recv() => {
                    // Who asked may have given up.
                    let _ = ping.send(());
                }
                Some(scrape) = scrapes.recv() => {
                    let _ = scrape.send(self.snapshot());
                }
                Some(ended) = self.tasks.join_next() => ended.context("a task broke down")?,
                () = sleep(self.clock.until(self.wake_at)) => self.look_at_the_clock(),
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        let pools = self.rollout.figures();
        Snapshot {
            pools: pools.map(|(name, all)| (name.clone(), all)).collect(),
            drains_blocked: self.blocked.counts(),
            queues: vec![
                ("results", self.inbox.len()),
                ("drains", self.drain_events.len()),
                ("secrets", self.secret_events.len()),
                ("lanes", self.lanes.len()),
                ("events", self.events.waiting()),
            ],
        }
    }

    fn look_at_the_clock(&mut self) {
        let now = self.clock.now();
        if self.wake_at.is_some_and(|wake_at| wake_at <= now) {
            self.wake_at = None;
            self.feed(Input::Tick);
        }
    }

    fn watched(&mut self, watch: Watch) {
        let inputs = self.index.watched(watch);
        self.feed_all(inputs);
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Effected(Effected {
                written,
                before,
                effect,
            }) => {
                self.tell_cordon(&written, effect);
                let inputs = self.index.answered(written, before);
                self.feed_all(inputs);
            }
            Message::Lane(Step::Drain(lane)) => self.go_on(*lane),
            Message::Lane(Step::End(end)) => {
                let shown = self.lanes.remove(&end.node).flatten();
                let node = end.node.clone();
                let outdated = match end.outcome {
                    Outcome::Conflict => end.stale,
                    _ => None,
                };
                self.feed(Input::Done {
                    node: end.node,
                    decision: end.id,
                    done: end.done,
                    outcome: end.outcome,
                });
                self.tell_newer(outdated);
                if let Some(waiting) = shown {
                    self.show_waiting(node, waiting);
                }
            }
            Message::Written(asked, stamp, result) => self.written(asked, stamp, result),
            Message::Resolved {
                pool,
                reference,
                result,
            } => {
                self.metrics.resolved(result.is_ok());
                self.feed(Input::Resolved {
                    pool,
                    reference,
                    result,
                });
            }
        }
    }

    fn written(&mut self, asked: Asked, stamp: Stamp, result: Result<Option<Written>, Failure>) {
        let (target, outcome) = (asked.target(), outcome(&result));
        let conflict = outcome == Outcome::Conflict;
        asked.log(&result);
        if let Ok(Some(written)) = result {
            let inputs = self.index.answered(written, vec![stamp.version.clone()]);
            self.feed_all(inputs);
        }
        self.feed(asked.done(outcome));
        self.tell_newer(conflict.then_some((target, stamp)));
    }

    /// After a conflict the newer version must come, even if it differs in nothing that counts.
    fn tell_newer(&mut self, outdated: Option<(Target, Stamp)>) {
        if let Some((target, stale)) = outdated {
            let inputs = self.index.outdated(target, &stale);
            self.feed_all(inputs);
        }
    }

    fn drained(&mut self, event: &DrainEvent) {
        let node = NodeName::from(&*event.node);
        self.blocked.see(&node, &event.report);
        if matches!(event.report, drain::Report::Done { .. }) {
            self.drains.ended(&event.node, event.attempt);
        }
        let about = About::Node(node.clone(), self.index.owner(&node).cloned());
        if let Some(notice) = draining::notice(&event.report, about) {
            self.tell(&notice);
        }
        if let Some(report) = draining::report(&event.report) {
            self.trace_drain(&node, event.attempt, &report);
            self.feed(Input::Drain {
                node,
                attempt: event.attempt,
                report,
            });
        }
    }

    fn secret_seen(&mut self, event: &SecretEvent) {
        let found = event.found.as_ref();
        let result = found.map(ToString::to_string).map_err(ToString::to_string);
        let inputs = self.pull_secrets.see(&event.secret, &result);
        self.feed_all(inputs);
    }

    fn feed_all(&mut self, inputs: Vec<Input>) {
        for input in inputs {
            self.feed(input);
        }
    }

    fn feed(&mut self, input: Input) {
        let named = match &input {
            Input::Pool(pool, view) => {
                let secret = view.as_ref().and_then(|view| view.spec.secret.clone());
                Some((pool.clone(), secret))
            }
            Input::Synced => {
                self.health.set_ready(true);
                tracing::info!("the whole cluster is in view");
                None
            }
            _ => None,
        };
        self.decide(input);
        if let Some((pool, secret)) = named {
            self.name_secret(&pool, secret.as_ref());
        }
    }

    fn name_secret(&mut self, pool: &PoolName, secret: Option<&SecretRef>) {
        let known = self.pull_secrets.name(pool, secret);
        let all = self.pull_secrets.all();
        self.secrets.watch(&all);
        if let Some(input) = known {
            self.decide(input);
        }
    }

    fn decide(&mut self, input: Input) {
        let now = self.clock.now();
        self.journal.input(now, &input);
        let commands = self.rollout.handle(now, input);
        self.journal.commands(&commands);
        // Decisions first: what is shown of a node can wait for its lane.
        let (shown, rest): (Vec<_>, Vec<_>) = commands
            .into_iter()
            .partition(|command| matches!(command, Command::Waiting { .. }));
        for command in rest.into_iter().chain(shown) {
            self.carry_out(command);
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Decide(decision) => {
                let node = self.index.stamp(&Target::Node(decision.node.clone()));
                let bootc_node = self.index.stamp(&Target::BootcNode(decision.node.clone()));
                self.lanes.insert(decision.node.clone(), None);
                let line = Line::of(&decision, self.index.slot_since(&decision.node).is_some());
                self.go_on(Lane::new(decision, line, node, bootc_node));
            }
            Command::Pool { pool, write, what } => self.write_pool(pool, write, &what),
            Command::Waiting { node, waiting } => {
                self.trace_waiting(&node, &waiting);
                self.show_waiting(node, waiting);
            }
            Command::Resolve {
                pool,
                reference,
                secret,
            } => self.resolve(pool, reference, secret),
            Command::Hop {
                node,
                pool,
                hop,
                record,
                trace,
                again,
            } => {
                let (on, way) = (pool.as_ref(), (&hop, &*record));
                self.trace_hop(&node, on, way, trace.as_ref(), again);
                if !again {
                    report::hop(&node, pool.as_ref(), &hop, &record);
                    self.metrics.hop(&hop, &record);
                }
            }
            Command::Notice(notice) => self.tell(&notice),
            Command::WakeAt(wake_at) => self.wake_at = wake_at,
        }
    }

    /// The cordon is the Node's own affair, so its Events are about that.
    fn tell_cordon(&mut self, written: &Written, effect: &str) {
        let (reason, text) = match effect {
            "cordon" => ("Cordoned", "cordoned for its update"),
            "uncordon" => ("Uncordoned", "schedulable again after its update"),
            _ => return,
        };
        let Written::Node(node) = written else { return };
        let name = NodeName::from(node.metadata.name.as_deref().unwrap_or_default());
        let notice = Notice {
            about: About::Node(name.clone(), self.index.owner(&name).cloned()),
            warning: false,
            reason: reason.to_owned(),
            action: "NodeUpdate".to_owned(),
            note: text.to_owned(),
        };
        self.events.tell_on_node(&name, &notice, &self.index);
    }

    fn tell(&mut self, notice: &Notice) {
        self.trace_notice(notice);
        self.events.tell(notice, &self.index);
    }

    fn show_waiting(&mut self, node: NodeName, waiting: Waiting) {
        match self.lanes.get_mut(&node) {
            Some(later) => *later = Some(waiting),
            None => self.write_waiting(node, waiting),
        }
    }

    fn drain(&mut self, node: &NodeName, effect: &Effect) {
        self.blocked.forget(node);
        if let Effect::StartDrain { attempt } = effect {
            let since = self.index.slot_since(node);
            let cordoned = time::moment(since.unwrap_or_else(|| self.clock.now()));
            self.drains.start(node.as_str(), *attempt, cordoned);
        } else {
            self.drains.cancel(node.as_str());
        }
    }
}

/// The pod that this program runs in.
fn own_pod(client: &Client, config: &Config) -> Option<PodName> {
    let name = config.pod.as_deref()?;
    Some(PodName::new(client.default_namespace(), name))
}

impl Asked {
    fn target(&self) -> Target {
        match self {
            Self::Pool { pool, .. } => Target::Pool(pool.clone()),
            Self::Waiting(node) => Target::BootcNode(node.clone()),
        }
    }

    fn done(self, outcome: Outcome) -> Input {
        match self {
            Self::Pool { pool, write } => Input::PoolDone {
                pool,
                write,
                outcome,
            },
            Self::Waiting(node) => Input::WaitingDone { node, outcome },
        }
    }

    fn log(&self, result: &Result<Option<Written>, Failure>) {
        let Err(failure) = result else {
            return;
        };
        match self {
            Self::Pool { pool, .. } => tracing::debug!(%pool, %failure, "a pool was not written"),
            Self::Waiting(node) => tracing::debug!(%node, %failure, "Waiting was not written"),
        }
    }
}
