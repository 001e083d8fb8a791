//! `kubectl bootc history`: what happened, from Events, the agent's steps and attempts, and the images
//! that a host has.

use std::io;

use fsm::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::{Api, api::ListParams};
use operator::observe::time::{now, rfc3339, timestamp};
use serde::Serialize;

use crate::{
    Verdict,
    ages::age,
    cli::{History, Plain},
    cluster::{Cluster, Objects},
    model::{Model, condition},
    output::{Colour, Style, json, yaml},
    rows::NodeRow,
    table::{Cell, Table},
    why::Target,
};

/// Events of objects without a namespace are in this one.
const NAMESPACE: &str = "default";
/// The name under which the operator tells Events.
const CONTROLLER: &str = "reportingController=bootc.dev/bootc-operator";

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    pub(crate) time: Option<String>,
    #[serde(skip)]
    pub(crate) at: Option<Timestamp>,
    /// `node/NAME` or `pool/NAME`
    pub(crate) object: String,
    /// event, step, state, attempt, image
    pub(crate) kind: &'static str,
    pub(crate) reason: String,
    pub(crate) text: String,
    pub(crate) warning: bool,
    pub(crate) count: i32,
}

/// Runs the command.
pub(crate) async fn run(cluster: &Cluster, args: &History) -> anyhow::Result<Verdict> {
    let objects = cluster.objects().await?;
    let model = Model::new(&objects, now());
    let target = match &args.target {
        Some(target) => Some(Target::find(&model, target)?),
        None => None,
    };
    let mut entries = Vec::new();
    match events(cluster).await {
        Ok(events) => entries.extend(events.iter().filter_map(of_event)),
        Err(error) => eprintln!("warning: {error:#}; shown without Events"),
    }
    entries.retain(|entry| {
        target
            .as_ref()
            .is_none_or(|target| concerns(&model, target, entry))
    });
    let nodes = match &target {
        Some(Target::Node(node)) => vec![node.clone()],
        Some(Target::Pool(pool)) => model.nodes_of(pool),
        None => objects.bootc.keys().cloned().collect(),
    };
    for node in &nodes {
        entries.extend(of_node(&objects, &model, node));
    }
    entries.sort_by_key(|entry| entry.at);
    let mut out = io::stdout().lock();
    match args.output {
        Plain::Json => json(&mut out, &entries)?,
        Plain::Yaml => yaml(&mut out, &entries)?,
        Plain::Text => table(&entries).print(&mut out, Style::of_stdout(), true)?,
    }
    Ok(Verdict::Good)
}

/// The operator's Events.
pub(crate) async fn events(cluster: &Cluster) -> anyhow::Result<Vec<Event>> {
    let api = Api::<Event>::namespaced(cluster.client.clone(), NAMESPACE);
    let ours = ListParams::default().fields(CONTROLLER);
    Ok(cluster.ask("list Events", api.list(&ours)).await?.items)
}

fn of_event(event: &Event) -> Option<Entry> {
    let regarding = event.regarding.as_ref()?;
    let kind = match regarding.kind.as_deref()? {
        "BootcNodePool" => "pool",
        _ => "node",
    };
    let series = event.series.as_ref();
    let first = event.event_time.as_ref().map(|time| time.0);
    let at = series.map(|series| series.last_observed_time.0).or(first);
    let at = at.map(|at| Timestamp(at.as_millisecond()));
    Some(Entry {
        time: at.map(rfc3339),
        at,
        object: format!("{kind}/{}", regarding.name.as_deref()?),
        kind: "event",
        reason: event.reason.clone().unwrap_or_default(),
        text: event.note.clone().unwrap_or_default(),
        warning: event.type_.as_deref() == Some("Warning"),
        count: series.map_or(1, |series| series.count),
    })
}

/// Is it of the target, or of a node of the pool that is the target?
fn concerns(model: &Model<'_>, target: &Target, entry: &Entry) -> bool {
    let node = entry.object.strip_prefix("node/");
    match target {
        Target::Node(name) => node == Some(name),
        Target::Pool(name) => {
            entry.object == format!("pool/{name}")
                || node.is_some_and(|node| model.nodes_of(name).iter().any(|it| it == node))
        }
    }
}

/// What a `BootcNode` itself keeps of its past.
fn of_node(objects: &Objects, model: &Model<'_>, name: &str) -> Vec<Entry> {
    let entry = |at: Option<Timestamp>, kind, reason: &str, text: String| Entry {
        time: at.map(rfc3339),
        at,
        object: format!("node/{name}"),
        kind,
        reason: reason.to_owned(),
        text,
        warning: false,
        count: 1,
    };
    let Some(node) = objects.bootc.get(name) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    let kept = model.kept(name);
    let image = kept.as_ref().and_then(|kept| kept.image.as_ref());
    let image = image.map(ToString::to_string).unwrap_or_default();
    for mark in kept.iter().flat_map(|kept| &kept.path) {
        let text = format!("{} towards {image}", mark.state);
        all.push(entry(Some(mark.at), "state", &mark.state.to_string(), text));
    }
    let Some(status) = node.status.get() else {
        return all;
    };
    for step in &status.steps {
        let at = |time: &k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime| {
            Timestamp(time.0.as_millisecond())
        };
        let (start, end) = (step.start.as_ref().map(at), step.end.as_ref().map(at));
        let text = match (start, end) {
            (Some(start), Some(end)) => format!("the host took {}", took(end.since(start))),
            _ => "the host is at it".to_owned(),
        };
        all.push(entry(start.or(end), "step", &step.name, text));
    }
    if let Some(attempt) = &status.last_attempt {
        let text = format!(
            "tried to boot {} in boot {}",
            attempt.image_digest, attempt.boot
        );
        let at = attempt.time.as_ref().map(timestamp);
        all.push(entry(at, "attempt", "Attempt", text));
    }
    let degraded = condition(node, crd::names::condition::DEGRADED);
    if let Some(degraded) = degraded.filter(|it| it.status == "True") {
        let at = Some(timestamp(&degraded.last_transition_time));
        all.push(Entry {
            warning: true,
            ..entry(at, "state", &degraded.reason, degraded.message.clone())
        });
    }
    let row = NodeRow::of(model, name);
    for (reason, image) in [
        ("Booted", row.booted),
        ("Staged", row.staged),
        ("Rollback", row.rollback),
    ] {
        if let Some(image) = image {
            let text = format!(
                "{} is {} ({})",
                reason.to_lowercase(),
                image.text(),
                image.image
            );
            all.push(entry(None, "image", reason, text));
        }
    }
    all
}

#[expect(clippy::cast_precision_loss, reason = "no step takes 285,000 years")]
fn took(millis: i64) -> String {
    format!("{:.1} s", millis as f64 / 1000.0)
}

fn table(entries: &[Entry]) -> Table {
    let mut table = Table::new(&["AGE", "TIME", "OBJECT", "KIND", "REASON", "MESSAGE"]);
    table.rows = entries
        .iter()
        .map(|entry| {
            let reason = match entry.count {
                1 => entry.reason.clone(),
                count => format!("{} (x{count})", entry.reason),
            };
            vec![
                entry
                    .at
                    .map_or_else(|| Cell::new("now", Colour::Dim), |at| age(at, now()).into()),
                entry.time.clone().unwrap_or_default().into(),
                entry.object.as_str().into(),
                Cell::new(entry.kind, Colour::Dim),
                if entry.warning {
                    Cell::new(reason, Colour::Warn)
                } else {
                    reason.into()
                },
                entry.text.as_str().into(),
            ]
        })
        .collect();
    table
}
