//! What the operator counts, as `OpenMetrics` text.
//!
//! Two kinds: what happens is counted here where it happens, and what is so (pools, queues) is asked
//! of the deciding task at each scrape, which has it as sums. So a scrape costs the same however many
//! nodes there are, and a pool that is gone leaves no series. The only object that a label names is
//! the pool.

use std::{fmt, sync::Arc};

use fsm::{
    Timestamp,
    input::Outcome,
    node::{Hop, Record, State},
};
use prometheus_client::{
    encoding::text,
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
        info::Info,
    },
    registry::{Registry, Unit},
};
use tokio::sync::{mpsc, oneshot};

use super::snapshot::Snapshot;
use crate::observe::Target;

/// Every name begins with it.
const PREFIX: &str = "bootc";
/// Scrapes that wait for the deciding task; more are turned away.
const WAITING: usize = 4;
/// Upper bounds of durations, in seconds: a cordon takes less than one, a pull minutes, the wait for
/// a slot may take days.
const SECONDS: [f64; 14] = [
    0.5, 1.0, 2.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14_400.0, 86_400.0,
];

type Labels<const N: usize> = [(&'static str, &'static str); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;

/// The deciding task's end: each sender received is to be answered at once.
pub type Scrapes = mpsc::Receiver<oneshot::Sender<Snapshot>>;

/// What is counted. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Metrics(Arc<Counted>);

struct Counted {
    registry: Registry,
    scrapes: mpsc::Sender<oneshot::Sender<Snapshot>>,
    writes: Counters<2>,
    resolutions: Counters<1>,
    watch_restarts: Counters<1>,
    events: Counters<1>,
    spans: Counters<1>,
    phases: Family<Labels<1>, Histogram, Durations>,
    updates: Histogram,
    lease_held: Gauge,
}

/// Makes a histogram of durations.
#[derive(Clone)]
struct Durations;

impl MetricConstructor<Histogram> for Durations {
    fn new_metric(&self) -> Histogram {
        Histogram::new(SECONDS)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// What became of an Event or a span that was to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It arrived.
    Sent,
    /// Its receiver did not take it.
    Failed,
    /// There was no room for it in the queue.
    Dropped,
}

impl Told {
    const ALL: [Self; 3] = [Self::Sent, Self::Failed, Self::Dropped];

    fn label(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

impl Metrics {
    /// Counts nothing yet. The deciding task answers what comes out of the other end.
    #[must_use]
    pub fn new() -> (Self, Scrapes) {
        let (scrapes, receiver) = mpsc::channel(WAITING);
        (Self(Arc::new(Counted::new(scrapes))), receiver)
    }

    /// A write to an object ended.
    pub fn wrote(&self, target: &Target, outcome: &Outcome) {
        let kind = kind(target);
        self.0
            .writes
            .get_or_create(&[("kind", kind), ("result", result(outcome))])
            .inc();
    }

    /// A registry was asked for a tag's digest.
    pub fn resolved(&self, ok: bool) {
        let result = if ok { "ok" } else { "error" };
        self.0
            .resolutions
            .get_or_create(&[("result", result)])
            .inc();
    }

    /// A watch broke off, or was refused, and is taken up again.
    pub fn watch_restarted(&self, kind: &'static str) {
        self.0.watch_restarts.get_or_create(&[("kind", kind)]).inc();
    }

    /// Events were written, or not.
    pub fn events(&self, told: Told) {
        let labels = [("result", told.label())];
        self.0.events.get_or_create(&labels).inc();
    }

    /// Spans were exported, or not.
    pub fn spans(&self, told: Told, count: usize) {
        let labels = [("result", told.label())];
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.0.spans.get_or_create(&labels).inc_by(count);
    }

    #[cfg(test)]
    pub(super) fn count_of_spans(&self, told: Told) -> u64 {
        let labels = [("result", told.label())];
        self.0.spans.get_or_create(&labels).get()
    }

    /// A node left a state.
    pub fn hop(&self, hop: &Hop, record: &Record) {
        if let Some(phase) = super::phase(hop.from) {
            let family = &self.0.phases;
            let histogram = family.get_or_create(&[("phase", phase)]);
            histogram.observe(seconds(hop.at.since(hop.since)));
        }
        if (hop.from, hop.to) == (State::Verifying, State::Idle) && !record.began.is_zero() {
            self.0.updates.observe(seconds(hop.at.since(record.began)));
        }
    }

    /// Says whether this replica may act.
    pub fn set_lease_held(&self, held: bool) {
        self.0.lease_held.set(held.into());
    }

    /// Everything as text; `None` if the deciding task has no time for it.
    pub(crate) async fn text(&self, decides: bool) -> Option<String> {
        let snapshot = if decides {
            let (answer, answered) = oneshot::channel();
            self.0.scrapes.try_send(answer).ok()?;
            Some(answered.await.ok()?)
        } else {
            None
        };
        self.render(snapshot).ok()
    }

    /// What is counted, and what is so at this moment, as text.
    pub fn render(&self, snapshot: Option<Snapshot>) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode_registry(&mut text, &self.0.registry)?;
        if let Some(snapshot) = snapshot {
            let mut registry = Registry::with_prefix(PREFIX);
            registry.register_collector(Box::new(snapshot));
            text::encode_registry(&mut text, &registry)?;
        }
        text::encode_eof(&mut text)?;
        Ok(text)
    }
}

impl Counted {
    fn new(scrapes: mpsc::Sender<oneshot::Sender<Snapshot>>) -> Self {
        let counted = Self {
            registry: Registry::with_prefix(PREFIX),
            scrapes,
            writes: Family::default(),
            resolutions: Family::default(),
            watch_restarts: Family::default(),
            events: Family::default(),
            spans: Family::default(),
            phases: Family::new_with_constructor(Durations),
            updates: Durations.new_metric(),
            lease_held: Gauge::default(),
        };
        counted.begin_at_zero();
        counted.registered()
    }

    /// Series that are there from the start: a rate needs a zero to rise from.
    fn begin_at_zero(&self) {
        for kind in KINDS {
            for result in RESULTS {
                let labels = [("kind", kind), ("result", result)];
                drop(self.writes.get_or_create(&labels));
            }
            drop(self.watch_restarts.get_or_create(&[("kind", kind)]));
        }
        for result in ["ok", "error"] {
            drop(self.resolutions.get_or_create(&[("result", result)]));
        }
        for told in Told::ALL {
            drop(self.events.get_or_create(&[("result", told.label())]));
            drop(self.spans.get_or_create(&[("result", told.label())]));
        }
        for state in State::ALL {
            if let Some(phase) = super::phase(state) {
                drop(self.phases.get_or_create(&[("phase", phase)]));
            }
        }
    }

    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register(
            "writes",
            "Writes to Nodes, BootcNodes and pools, by what became of them",
            self.writes.clone(),
        );
        registry.register(
            "tag_resolutions",
            "Questions to registries for the digest of a tag",
            self.resolutions.clone(),
        );
        registry.register(
            "watch_restarts",
            "Watches that broke off or were refused and were taken up again",
            self.watch_restarts.clone(),
        );
        registry.register(
            "events",
            "Events that were to be written",
            self.events.clone(),
        );
        registry.register(
            "spans",
            "Spans that were to be exported; none where no exporter is set up",
            self.spans.clone(),
        );
        registry.register_with_unit(
            "phase_duration",
            "How long nodes were in a phase of their update",
            Unit::Seconds,
            self.phases.clone(),
        );
        registry.register_with_unit(
            "update_duration",
            "How long nodes took from the moment an image was wanted until they ran it and were well",
            Unit::Seconds,
            self.updates.clone(),
        );
        registry.register(
            "lease_held",
            "Whether this replica may act",
            self.lease_held.clone(),
        );
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "What runs here", Info::new(version));
        self
    }
}

const KINDS: [&str; 3] = ["Node", "BootcNode", "BootcNodePool"];
const RESULTS: [&str; 5] = ["ok", "conflict", "gone", "refused", "failed"];

fn kind(target: &Target) -> &'static str {
    let [node, bootc_node, pool] = KINDS;
    match target {
        Target::Node(_) => node,
        Target::BootcNode(_) => bootc_node,
        Target::Pool(_) => pool,
    }
}

fn result(outcome: &Outcome) -> &'static str {
    let [ok, conflict, gone, refused, failed] = RESULTS;
    match outcome {
        Outcome::Ok => ok,
        Outcome::Conflict => conflict,
        Outcome::Gone => gone,
        Outcome::Refused(_) => refused,
        Outcome::Failed(_) => failed,
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds of a rollout are far below 2^52"
)]
fn seconds(millis: i64) -> f64 {
    millis as f64 / 1000.0
}

/// The moment in seconds, as metrics have it.
pub(super) fn unix(at: Timestamp) -> f64 {
    seconds(at.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(from: State, to: State, seconds: i64) -> Hop {
        Hop {
            from,
            since: Timestamp(1000),
            to,
            at: Timestamp(1000 + seconds * 1000),
            cause: String::new(),
        }
    }

    fn value(text: &str, series: &str) -> Option<f64> {
        let line = text.lines().find(|line| line.starts_with(series))?;
        line.rsplit_once(' ')?.1.parse().ok()
    }

    #[test]
    fn what_happens_is_counted_and_every_series_begins_at_zero() {
        let (metrics, _scrapes) = Metrics::new();
        let text = metrics.render(None).unwrap();
        let writes = r#"bootc_writes_total{kind="Node",result="conflict"}"#;
        assert_eq!(value(&text, writes), Some(0.0), "{text}");
        metrics.wrote(&Target::Node("w1".into()), &Outcome::Conflict);
        metrics.resolved(false);
        metrics.set_lease_held(true);
        metrics.spans(Told::Dropped, 3);
        let text = metrics.render(None).unwrap();
        for (series, wanted) in [
            (writes, 1.0),
            (r#"bootc_tag_resolutions_total{result="error"}"#, 1.0),
            (r#"bootc_tag_resolutions_total{result="ok"}"#, 0.0),
            (r#"bootc_spans_total{result="dropped"}"#, 3.0),
            ("bootc_lease_held", 1.0),
        ] {
            assert_eq!(value(&text, series), Some(wanted), "{series} in {text}");
        }
        assert!(text.contains("bootc_build_info{version="), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn a_phase_is_as_long_as_the_node_was_in_it() {
        let (metrics, _scrapes) = Metrics::new();
        let record = Record {
            began: Timestamp(500),
            ..Record::default()
        };
        metrics.hop(&hop(State::Draining, State::Rebooting, 20), &record);
        metrics.hop(&hop(State::Verifying, State::Idle, 3), &record);
        metrics.hop(&hop(State::Idle, State::Staging, 900), &record);
        let text = metrics.render(None).unwrap();
        let sum = |phase| {
            value(
                &text,
                &format!("bootc_phase_duration_seconds_sum{{phase=\"{phase}\"}}"),
            )
        };
        assert_eq!(sum("drain"), Some(20.0), "{text}");
        assert_eq!(sum("verify"), Some(3.0));
        assert_eq!(sum("stage"), Some(0.0), "idle is no phase");
        assert_eq!(value(&text, "bootc_update_duration_seconds_sum"), Some(3.5));
    }

    #[tokio::test]
    async fn a_scrape_waits_for_the_deciding_task_and_not_for_one_that_is_gone() {
        let (metrics, mut scrapes) = Metrics::new();
        let answer = tokio::spawn(async move {
            let asked = scrapes.recv().await;
            asked.is_some_and(|asked| asked.send(Snapshot::default()).is_ok())
        });
        assert!(metrics.text(true).await.is_some());
        assert!(answer.await.unwrap());
        assert!(metrics.text(true).await.is_none(), "the task has ended");
        assert!(metrics.text(false).await.is_some(), "it was never asked");
    }
}
