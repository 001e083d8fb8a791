//! Spans on their way to a collector over OTLP, as the standard variables `OTEL_*` say.
//!
//! Nobody waits for it: the queue is bounded, what finds no room is dropped and counted, and a batch
//! that the collector does not take is tried again until it does or the process ends.

use std::{
    env, fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fsm::Timestamp;
use opentelemetry::{
    Array, InstrumentationScope, KeyValue, StringValue,
    trace::{Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks},
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::span::{Attribute, Span, Value};
use crate::report::{Metrics, Told};

/// Milliseconds for which spans are gathered: with a call for every few spans the calls were most of
/// what tracing costs. Of an operator that is killed meanwhile nothing is missed but pods' spans, since
/// its successor tells the hops again.
const DELAY: usize = 1000;
/// No export takes longer, whatever `OTEL_EXPORTER_OTLP_TIMEOUT` says.
const DEADLINE: Duration = Duration::from_secs(60);
/// Pauses between tries of a batch that was not taken.
const PAUSES: [u64; 5] = [1, 2, 5, 10, 30];

/// How spans are exported; where to is for the exporter to read from the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Spans that wait at most: `OTEL_BSP_MAX_QUEUE_SIZE`.
    pub queue: usize,
    /// Spans sent at once: `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`.
    pub batch: usize,
    /// How long a batch waits to fill up: `OTEL_BSP_SCHEDULE_DELAY`.
    pub delay: Duration,
    /// Names this process.
    pub instance: String,
}

impl Settings {
    /// What the variables of this process ask for; `None` if they ask for no traces.
    #[must_use]
    pub fn of_process(instance: &str) -> Option<Self> {
        Self::of(instance, |name| env::var(name).ok())
    }

    fn of(instance: &str, variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let get = |name| variable(name).filter(|value| !value.trim().is_empty());
        if get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return None;
        }
        let endpoints = [
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        ];
        let wanted = match get("OTEL_TRACES_EXPORTER") {
            Some(exporters) => exporters.split(',').any(|it| it.trim() == "otlp"),
            None => endpoints.iter().any(|name| get(name).is_some()),
        };
        let number = |name, otherwise: usize| {
            let value = get(name).and_then(|value| value.trim().parse().ok());
            value.filter(|value| *value > 0).unwrap_or(otherwise)
        };
        let queue = number("OTEL_BSP_MAX_QUEUE_SIZE", 8192);
        let delay = number("OTEL_BSP_SCHEDULE_DELAY", DELAY);
        wanted.then(|| Self {
            queue,
            batch: number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512).min(queue),
            delay: Duration::from_millis(u64::try_from(delay).unwrap_or_default()),
            instance: instance.to_owned(),
        })
    }
}

/// Where ended spans go.
#[derive(Clone, Debug)]
pub struct Spans {
    queue: mpsc::Sender<SpanData>,
    metrics: Metrics,
}

impl Spans {
    /// Sends spans off; those that find no room are counted and gone.
    pub fn send(&self, spans: Vec<Span>) {
        let finds_no_room = |span| self.queue.try_send(data(span)).is_err();
        let dropped = spans.into_iter().map(finds_no_room);
        let dropped = dropped.filter(|dropped| *dropped).count();
        if dropped > 0 {
            self.metrics.spans(Told::Dropped, dropped);
        }
    }
}

/// The work of sending them.
pub struct Export {
    queue: mpsc::Receiver<SpanData>,
    exporter: SpanExporter,
    settings: Settings,
    metrics: Metrics,
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export")
            .field("exporter", &self.exporter)
            .finish_non_exhaustive()
    }
}

impl Export {
    /// A queue and the work of emptying it. Must be called in a Tokio runtime. `None`, with a log
    /// line, where the environment asks for what cannot be.
    #[must_use]
    pub fn begin(settings: Settings, metrics: &Metrics) -> Option<(Spans, Self)> {
        let mut exporter = match SpanExporter::builder().build() {
            Ok(exporter) => exporter,
            Err(error) => {
                warn!(%error, "no traces: check the variables OTEL_EXPORTER_OTLP_*");
                return None;
            }
        };
        exporter.set_resource(&resource(&settings.instance));
        let (sender, queue) = mpsc::channel(settings.queue);
        info!("sending traces over OTLP");
        let spans = Spans {
            queue: sender,
            metrics: metrics.clone(),
        };
        let metrics = metrics.clone();
        Some((
            spans,
            Self {
                queue,
                exporter,
                settings,
                metrics,
            },
        ))
    }

    /// Sends until every [`Spans`] is dropped and nothing is left.
    pub async fn run(mut self) {
        while let Some(first) = self.queue.recv().await {
            let mut batch = vec![first];
            let fill = async {
                while batch.len() < self.settings.batch {
                    match self.queue.recv().await {
                        Some(span) => batch.push(span),
                        None => break,
                    }
                }
            };
            // What is there by then is sent.
            let _ = timeout(self.settings.delay, fill).await;
            self.send(batch).await;
        }
    }

    async fn send(&self, batch: Vec<SpanData>) {
        for tries in 0.. {
            let sent = timeout(DEADLINE, self.exporter.export(batch.clone())).await;
            let error = match sent {
                Ok(Ok(())) => {
                    if tries > 0 {
                        info!("the collector takes spans again");
                    }
                    return self.metrics.spans(Told::Sent, batch.len());
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {DEADLINE:?}"),
            };
            self.metrics.spans(Told::Failed, batch.len());
            // Said once: the queue keeps what it can, the metrics count.
            if tries == 0 {
                warn!(error, "the collector takes no spans; trying again");
            }
            let pause = PAUSES.get(tries).or(PAUSES.last()).copied();
            sleep(Duration::from_secs(pause.unwrap_or(30))).await;
        }
    }
}

/// Who says it. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win over what is said here.
fn resource(instance: &str) -> Resource {
    let mut ours = vec![
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance.to_owned()),
    ];
    let named = |value: &str| !value.is_empty() && !value.starts_with("unknown_service");
    let detected = Resource::builder().build();
    let name = detected.get(&"service.name".into());
    if !name.is_some_and(|name| named(&name.as_str())) {
        ours.push(KeyValue::new("service.name", "bootc-operator"));
    }
    for (attribute, variable) in [
        ("k8s.pod.name", "POD_NAME"),
        ("k8s.namespace.name", "POD_NAMESPACE"),
    ] {
        if let Some(value) = env::var(variable).ok().filter(|value| !value.is_empty()) {
            ours.push(KeyValue::new(attribute, value));
        }
    }
    ours.retain(|ours| ours.key.as_str() == "service.name" || detected.get(&ours.key).is_none());
    Resource::builder().with_attributes(ours).build()
}

fn data(span: Span) -> SpanData {
    let context = SpanContext::new(
        TraceId::from_bytes(span.trace.to_be_bytes()),
        SpanId::from_bytes(span.id.to_be_bytes()),
        TraceFlags::SAMPLED,
        false,
        TraceState::default(),
    );
    let mut events = SpanEvents::default();
    events.events = span
        .marks
        .into_iter()
        .map(|mark| Event::new(mark.name, time(mark.at), pairs(mark.attributes), 0))
        .collect();
    SpanData {
        span_context: context,
        parent_span_id: SpanId::from_bytes(span.parent.to_be_bytes()),
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: span.name.into(),
        start_time: time(span.start),
        end_time: time(span.end),
        attributes: pairs(span.attributes),
        dropped_attributes_count: 0,
        events,
        links: SpanLinks::default(),
        status: span.error.map_or(Status::Unset, Status::error),
        instrumentation_scope: InstrumentationScope::builder("bootc-operator")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

fn pairs(attributes: Vec<Attribute>) -> Vec<KeyValue> {
    let pair = |(name, value)| match value {
        Value::Text(text) => KeyValue::new(name, text),
        Value::Number(number) => KeyValue::new(name, number),
        Value::Texts(texts) => {
            let texts = texts.into_iter().map(StringValue::from).collect();
            KeyValue::new(name, opentelemetry::Value::Array(Array::String(texts)))
        }
    };
    attributes.into_iter().map(pair).collect()
}

fn time(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(at.0).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Option<Settings> {
        Settings::of("me", |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn traces_are_sent_only_where_the_variables_ask_for_them() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317");
        for (variables, wanted) in [
            (&[][..], false),
            (&[endpoint], true),
            (&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c")], true),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], false),
            (&[endpoint, ("OTEL_SDK_DISABLED", "True")], false),
            (&[endpoint, ("OTEL_SDK_DISABLED", "0")], true),
            (&[endpoint, ("OTEL_TRACES_EXPORTER", "none")], false),
            (&[("OTEL_TRACES_EXPORTER", "console, otlp")], true),
        ] {
            assert_eq!(of(variables).is_some(), wanted, "{variables:?}");
        }
    }

    #[test]
    fn the_variables_of_batches_are_followed_where_they_make_sense() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317");
        let settings = of(&[
            endpoint,
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1000"),
            ("OTEL_BSP_SCHEDULE_DELAY", "x"),
        ])
        .unwrap();
        assert_eq!((settings.queue, settings.batch), (100, 100));
        assert_eq!(settings.delay, Duration::from_secs(1));
    }

    #[test]
    fn what_finds_no_room_is_counted_and_waits_for_nobody() {
        let (metrics, _scrapes) = Metrics::new();
        let (queue, mut receiver) = mpsc::channel(2);
        let spans = Spans {
            queue,
            metrics: metrics.clone(),
        };
        let span = |id| Span {
            trace: 1,
            id,
            parent: 0,
            name: "drain",
            start: Timestamp(1000),
            end: Timestamp(2000),
            attributes: vec![("a", Value::Texts(vec!["b".into()]))],
            marks: Vec::new(),
            error: Some("late".into()),
        };
        spans.send((1..=5).map(span).collect());
        let first = receiver.try_recv().unwrap();
        assert_eq!(first.span_context.span_id(), SpanId::from(1));
        assert_eq!(first.status, Status::error("late"));
        assert_eq!(first.start_time, UNIX_EPOCH + Duration::from_secs(1));
        assert_eq!(metrics.count_of_spans(Told::Dropped), 3);
    }
}
