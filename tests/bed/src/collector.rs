//! An OpenTelemetry Collector on loopback that writes the spans it gets to a file, and what is read
//! out of that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::parts::{self, Part};
use crate::process::{Daemon, Program};
use crate::wait::Patience;

/// How long it may take to answer.
const STARTS: Patience = Patience {
    at_most: Duration::from_secs(30),
    every: Duration::from_millis(100),
};

/// The phases of an update, in order.
pub const PHASES: [&str; 7] = [
    "stage",
    "wait-for-slot",
    "cordon",
    "drain",
    "reboot",
    "verify",
    "uncordon",
];

/// A running collector. Dropped, it is killed.
#[derive(Debug)]
pub struct Collector {
    program: Program,
    daemon: Option<Daemon>,
    file: PathBuf,
    grpc: u16,
    http: u16,
}

impl Collector {
    /// Starts one that keeps its files in `dir`.
    pub async fn start(dir: &Path) -> Result<Self> {
        let bin = tokio::task::spawn_blocking(|| parts::ensure(&[Part::Collector])).await??;
        let (grpc, http) = (free_port()?, free_port()?);
        let file = dir.join("spans.json");
        let config = dir.join("collector.yaml");
        fs::write(&config, configuration(&file, grpc, http))?;
        let argv = [
            bin.join("collector").into(),
            format!("--config=file:{}", config.display()).into(),
        ];
        let mut collector = Self {
            program: Program {
                name: "collector".to_owned(),
                argv: argv.into(),
                env: Vec::new(),
                dir: dir.to_owned(),
            },
            daemon: None,
            file,
            grpc,
            http,
        };
        collector.start_again().await?;
        Ok(collector)
    }

    /// Starts it again after [`Self::kill`], on the same ports and with the same file.
    pub async fn start_again(&mut self) -> Result<()> {
        self.end_with_a_line()?;
        let mut daemon = self.program.start()?;
        let ports = [self.grpc, self.http];
        STARTS
            .until("the collector takes connections", || {
                let alive = daemon.check();
                async move {
                    alive?;
                    for port in ports {
                        tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
                    }
                    anyhow::Ok(())
                }
            })
            .await?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Of the line at which it was killed half may be there, and the next one would follow on it.
    fn end_with_a_line(&self) -> Result<()> {
        let Ok(text) = fs::read(&self.file) else {
            return Ok(());
        };
        let end = text.iter().rposition(|byte| *byte == b'\n');
        let whole = end.map_or(0, |end| end + 1);
        let file = fs::OpenOptions::new().write(true).open(&self.file)?;
        Ok(file.set_len(whole as u64)?)
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// Lets it run no further: connections stay open and get no answer.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let daemon = self.daemon.as_ref().context("the collector does not run")?;
        daemon.signal(signal)
    }

    /// The endpoint for OTLP over gRPC.
    #[must_use]
    pub fn grpc(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc)
    }

    /// The endpoint for OTLP over HTTP.
    #[must_use]
    pub fn http(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    /// What it got so far.
    pub fn spans(&self) -> Result<Vec<Span>> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        // The last line may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let mut spans = Vec::new();
        for line in whole.lines() {
            let batch: Value = serde_json::from_str(line).context("not a line of spans")?;
            for resource in list(&batch, "resourceSpans") {
                let of = attributes(&resource["resource"]);
                for scope in list(resource, "scopeSpans") {
                    let read = list(scope, "spans").map(|span| Span::read(span, &of));
                    spans.extend(read.collect::<Result<Vec<_>>>()?);
                }
            }
        }
        Ok(spans)
    }
}

fn configuration(file: &Path, grpc: u16, http: u16) -> String {
    format!(
        "receivers:
  otlp:
    protocols:
      grpc: {{ endpoint: '127.0.0.1:{grpc}' }}
      http: {{ endpoint: '127.0.0.1:{http}' }}
exporters:
  file: {{ path: '{}', append: true, flush_interval: 100ms }}
service:
  telemetry: {{ metrics: {{ level: none }} }}
  pipelines:
    traces: {{ receivers: [otlp], exporters: [file] }}
",
        file.display()
    )
}

/// A port that nobody has at this moment.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A span as the collector got it.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Its trace, in hex.
    pub trace: String,
    /// Itself.
    pub id: String,
    /// The span above it; empty at the top.
    pub parent: String,
    /// What was done.
    pub name: String,
    /// When it began, in nanoseconds since the epoch.
    pub start: u64,
    /// When it ended.
    pub end: u64,
    /// Its attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// Names of its events.
    pub events: Vec<String>,
    /// The message of its status, if that is Error.
    pub error: Option<String>,
    /// The attributes of who sent it.
    pub resource: BTreeMap<String, String>,
}

impl Span {
    fn read(span: &Value, resource: &BTreeMap<String, String>) -> Result<Self> {
        let text = |name: &str| span[name].as_str().unwrap_or_default().to_owned();
        let time = |name: &str| -> Result<u64> {
            let value = span[name].as_str().with_context(|| format!("no {name}"))?;
            Ok(value.parse()?)
        };
        let status = &span["status"];
        let message = status["message"].as_str().unwrap_or_default();
        Ok(Self {
            trace: text("traceId"),
            id: text("spanId"),
            parent: text("parentSpanId"),
            name: text("name"),
            start: time("startTimeUnixNano")?,
            end: time("endTimeUnixNano")?,
            attributes: attributes(span),
            events: list(span, "events")
                .filter_map(|event| Some(event["name"].as_str()?.to_owned()))
                .collect(),
            error: (status["code"] == 2).then(|| message.to_owned()),
            resource: resource.clone(),
        })
    }

    /// An attribute, or nothing.
    #[must_use]
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

fn list<'a>(of: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    of[name].as_array().into_iter().flatten()
}

fn attributes(of: &Value) -> BTreeMap<String, String> {
    let pair = |it: &Value| {
        let value = it["value"].as_object()?.values().next()?;
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        Some((it["key"].as_str()?.to_owned(), text))
    };
    list(of, "attributes").filter_map(pair).collect()
}

/// One update of one node: a trace.
#[derive(Clone, Debug)]
pub struct Update {
    /// The whole.
    pub root: Span,
    /// What it consisted of, by start.
    pub phases: Vec<Span>,
    /// All below those.
    pub parts: Vec<Span>,
}

impl Update {
    /// The finished updates of a node, by start. A span that was sent twice counts once, by the
    /// telling that goes further.
    pub fn of(spans: &[Span], node: &str) -> Result<Vec<Self>> {
        let mut known: BTreeMap<(&str, &str), &Span> = BTreeMap::new();
        let ours = |span: &&Span| span.attribute("k8s.node.name") == node;
        for span in spans.iter().filter(ours) {
            let told = known.entry((&span.trace, &span.id)).or_insert(span);
            if span.end > told.end {
                *told = span;
            }
        }
        let roots = known.values().filter(|span| span.parent.is_empty());
        let mut updates = Vec::new();
        for root in roots {
            let of_trace = known.values().filter(|span| span.trace == root.trace);
            updates.push(Self::new(
                root,
                of_trace.map(|span| (*span).clone()).collect(),
            )?);
        }
        updates.sort_by_key(|update| update.root.start);
        Ok(updates)
    }

    fn new(root: &Span, all: Vec<Span>) -> Result<Self> {
        let ids: BTreeSet<_> = all.iter().map(|span| span.id.clone()).collect();
        for span in &all {
            let above = span.id == root.id || ids.contains(&span.parent);
            ensure!(above, "nothing is above {span:#?}");
        }
        let below = all.into_iter().filter(|span| span.id != root.id);
        let (mut phases, mut parts): (Vec<_>, Vec<_>) =
            below.partition(|span| span.parent == root.id);
        phases.sort_by_key(|span| (span.start, span.end));
        parts.sort_by_key(|span| (span.start, span.end));
        Ok(Self {
            root: root.clone(),
            phases,
            parts,
        })
    }

    /// The names of its phases, in order.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.phases.iter().map(|span| span.name.as_str()).collect()
    }

    /// Every phase of that name.
    pub fn phase(&self, name: &str) -> Result<&Span> {
        let found = self.phases.iter().find(|span| span.name == name);
        found.with_context(|| format!("no phase {name} in {:?}", self.names()))
    }

    /// The names of the parts of a phase, in order.
    pub fn parts_of(&self, phase: &str) -> Result<Vec<&str>> {
        let id = &self.phase(phase)?.id;
        let parts = self.parts.iter().filter(|part| part.parent == *id);
        Ok(parts.map(|part| part.name.as_str()).collect())
    }

    /// That everything lies within what it is a part of, and that the phases leave out no more than
    /// a twentieth of the whole.
    pub fn is_whole(&self) -> Result<()> {
        let above = std::iter::once(&self.root).chain(&self.phases);
        let above: BTreeMap<_, _> = above.map(|span| (&span.id, span)).collect();
        for span in self.phases.iter().chain(&self.parts) {
            let over = above.get(&span.parent).context("a part of a part")?;
            let within = span.start >= over.start && span.end <= over.end && span.start <= span.end;
            ensure!(within, "{span:#?} is not within {over:#?}");
        }
        let (mut covered, mut until) = (0, self.root.start);
        for phase in &self.phases {
            covered += phase.end.saturating_sub(phase.start.max(until));
            until = until.max(phase.end);
        }
        let whole = self.root.end - self.root.start;
        if covered * 100 < whole * 95 {
            bail!("the phases cover {covered} of {whole} ns: {self:#?}");
        }
        Ok(())
    }
}
