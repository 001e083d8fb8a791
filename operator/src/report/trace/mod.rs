//! A node's hops become the spans of its update: `rollout` with one child a phase, and below those
//! what the agent and the drain have to say. Pure.
//!
//! A span is made when it ends, with its true start and end, and its id follows from the trace, its
//! name and its start (of a drain from its number: parts of it are sent before it ends). What is
//! remembered here only adds to that: after a restart, spans of the phases that end from then on are
//! the same, but for what happened before in the phase under way.

mod children;
mod export;
mod span;

use std::collections::BTreeMap;

use fsm::{
    Image, NodeName, PoolName, Record, State, Timestamp,
    command::Notice,
    node::{Hop, Trace},
    view::{StepView, Waiting},
};

use super::phase;
use children::Pods;
pub use export::{Export, Settings, Spans};
use span::Context;
pub use span::{Attribute, Mark, Span, Value};

/// Marks of one phase; more are left out.
const MARKS: usize = 32;
/// A cordon shows within this time, in milliseconds, unless nobody looked: the operator had ended.
const CORDON_SHOWS: i64 = 5_000;

/// A hop, with what belongs to it.
#[derive(Clone, Debug)]
pub struct Told<'a> {
    /// The node.
    pub node: &'a NodeName,
    /// Its pool.
    pub pool: Option<&'a PoolName>,
    /// From where to where.
    pub hop: &'a Hop,
    /// The record after it.
    pub record: &'a Record,
    /// The update that the node was on before it.
    pub trace: Option<&'a Trace>,
    /// It was told before, perhaps.
    pub again: bool,
    /// The agent's steps as last reported.
    pub steps: &'a [StepView],
    /// Now: after the writes that belong to the hop.
    pub now: Timestamp,
}

/// What is remembered of the nodes that are on their way.
#[derive(Debug, Default)]
pub struct Tracks {
    nodes: BTreeMap<NodeName, Track>,
}

/// Of one node, about the phase under way.
#[derive(Debug, Default)]
struct Track {
    came: Option<Came>,
    marks: Vec<Mark>,
    /// What was wrong last.
    trouble: Option<String>,
    pods: Pods,
}

/// How a node came into its state.
#[derive(Clone, Copy, Debug)]
struct Came {
    state: State,
    /// When that was seen.
    seen: Timestamp,
    /// When it truly was: no later.
    at: Timestamp,
    /// It was told again: another process saw it.
    again: bool,
}

impl Tracks {
    /// The spans that a hop ends.
    pub fn hop(&mut self, told: &Told<'_>) -> Vec<Span> {
        let track = self.nodes.entry(told.node.clone()).or_default();
        let spans = track.hop(told).unwrap_or_default();
        if matches!(told.hop.to, State::Idle | State::Leaving) {
            self.nodes.remove(told.node);
        }
        spans
    }

    /// Notes what people are told of a node while it is on its way.
    pub fn notice(&mut self, node: &NodeName, notice: &Notice, at: Timestamp) {
        let Some(track) = self.nodes.get_mut(node) else {
            return;
        };
        if notice.warning {
            track.trouble = Some(notice.note.clone());
        }
        if notice.warning || notice.action != "NodeUpdate" {
            let message = ("bootc.message", Value::from(notice.note.as_str()));
            track.mark(at, &notice.reason, vec![message]);
        }
    }

    /// Notes what a node is shown to wait for.
    pub fn waiting(&mut self, node: &NodeName, waiting: &Waiting, at: Timestamp) {
        let track = self.nodes.get_mut(node);
        let Some(track) = track.filter(|_| waiting.waiting) else {
            return;
        };
        let attributes = vec![
            ("bootc.waiting.reason", waiting.reason.as_str().into()),
            ("bootc.message", waiting.message.as_str().into()),
        ];
        track.mark(at, "waiting", attributes);
    }

    /// Takes the pods that the drain of a node waits for; the spans of those that are gone.
    pub fn pods(
        &mut self,
        node: &NodeName,
        record: &Record,
        pods: &[fsm::input::BlockedPod],
        at: Timestamp,
    ) -> Vec<Span> {
        let context = record.trace().as_ref().and_then(Context::of);
        let Some(context) = context.filter(|_| record.state == State::Draining) else {
            return Vec::new();
        };
        let drain = context.drain(record.attempt);
        let track = self.nodes.entry(node.clone()).or_default();
        let gone = track.pods.see(pods, at);
        let span = |pod| children::pod(context, drain, node, pod, at);
        gone.iter().map(span).collect()
    }
}

impl Track {
    fn mark(&mut self, at: Timestamp, name: &str, attributes: Vec<Attribute>) {
        if self.marks.len() < MARKS {
            let name = name.to_owned();
            self.marks.push(Mark {
                at,
                name,
                attributes,
            });
        }
    }

    fn hop(&mut self, told: &Told<'_>) -> Option<Vec<Span>> {
        let (start, end) = self.bounds(told);
        self.came = Some(Came {
            state: told.hop.to,
            seen: told.hop.at,
            at: end,
            again: told.again,
        });
        let trouble = self.trouble.take();
        let marks = std::mem::take(&mut self.marks);
        let pods = self.pods.end();
        let trace = told.trace?;
        let context = Context::of(trace)?;
        let mut spans = Vec::new();
        let error = error(told.hop, trouble);
        if let Some(name) = phase(told.hop.from) {
            let id = match told.hop.from {
                State::Draining => context.drain(attempt(told)),
                _ => context.id(name, told.hop.since),
            };
            let span = context.span(context.root, (name, name), told.node, start, end);
            let all = children::steps(context, id, told, start, end);
            spans.extend(all);
            let pod = |pod| children::pod(context, id, told.node, pod, end);
            spans.extend(pods.iter().map(pod));
            spans.push(Span {
                id,
                marks,
                error: error.clone(),
                attributes: phase_attributes(span.attributes, told),
                ..span
            });
        } else if let Some(room) = wait_for_room(context, trace, told) {
            spans.push(room);
        }
        if let Some(root) = root(context, trace, told, error) {
            spans.extend(uncordon(context, told, root.end));
            spans.push(root);
        }
        Some(spans)
    }

    /// The true start and end of the phase that a hop ends. The agent knows better than the operator
    /// when the image was staged and when the host was back.
    fn bounds(&self, told: &Told<'_>) -> (Timestamp, Timestamp) {
        let hop = told.hop;
        let came = |came: &Came| (came.state, came.seen) == (hop.from, hop.since);
        let came = self.came.filter(came);
        let start = came.map_or(hop.since, |came| came.at);
        let step = match (hop.from, hop.to) {
            // After a restart nobody knows when the cordon was there; it is, as soon as it is asked
            // for, and what the drain did since then belongs to it. A third process, which is only told
            // of both, knows it by the time that it took.
            (State::Cordoned, State::Draining)
                if came.is_none_or(|came| came.again)
                    && (!told.again || hop.at.since(start) > CORDON_SHOWS) =>
            {
                return (start, start);
            }
            (State::Staging, State::Staged) => "Staging",
            (State::Rebooting, State::Verifying) => "Returning",
            _ => return (start, hop.at),
        };
        let ended = told.steps.iter().find(|it| it.name == step);
        let ended = ended.and_then(|step| step.end);
        let within = |at: &Timestamp| *at >= start && *at <= hop.at;
        (start, ended.filter(within).unwrap_or(hop.at))
    }
}

fn phase_attributes(mut attributes: Vec<Attribute>, told: &Told<'_>) -> Vec<Attribute> {
    attributes.extend(pool(told));
    attributes.push(("bootc.state", told.hop.from.to_string().as_str().into()));
    attributes.push(("bootc.cause", told.hop.cause.as_str().into()));
    if told.hop.from == State::Draining {
        let attempt = Value::Number(attempt(told).into());
        attributes.push(("bootc.drain.attempt", attempt));
    }
    attributes
}

/// The number of the drain that a hop ends: the record after it may have the next one's.
fn attempt(told: &Told<'_>) -> u32 {
    let next = u32::from(told.hop.to == State::Cordoned);
    told.record.attempt.saturating_sub(next)
}

fn pool(told: &Told<'_>) -> Option<Attribute> {
    let pool = told.pool?;
    Some(("bootc.pool", pool.as_str().into()))
}

/// The whole update, once it is over.
fn root(context: Context, trace: &Trace, told: &Told<'_>, error: Option<String>) -> Option<Span> {
    let hop = told.hop;
    let outcome = match hop.to {
        State::Leaving => "left",
        _ if hop.begins_update() && hop.from != State::Idle => "superseded",
        State::Idle => "updated",
        _ => return None,
    };
    let end = if told.again {
        hop.at
    } else {
        told.now.max(hop.at)
    };
    let name = ("rollout", "rollout");
    let span = context.span(0, name, told.node, trace.began, end);
    let mut attributes = span.attributes;
    attributes.extend(pool(told));
    attributes.push(("k8s.node.uid", told.record.node_uid.as_str().into()));
    attributes.push(("bootc.outcome", outcome.into()));
    attributes.extend(trace.image.iter().flat_map(image));
    Some(Span {
        id: context.root,
        attributes,
        error: error.filter(|_| outcome != "updated"),
        ..span
    })
}

fn image(image: &Image) -> [Attribute; 3] {
    let text = image.as_str();
    let name = text.split_once('@').map_or(text, |(name, _)| name);
    [
        ("container.image.name", name.into()),
        (
            "container.image.repo_digests",
            Value::Texts(vec![text.to_owned()]),
        ),
        ("oci.manifest.digest", image.digest().into()),
    ]
}

/// From the moment the image was wanted until the node might stage it.
fn wait_for_room(context: Context, trace: &Trace, told: &Told<'_>) -> Option<Span> {
    let waited = told.hop.at.since(trace.began) > 0 && told.hop.from == State::Idle;
    let (name, end) = (("wait-for-room", "wait-for-room"), told.hop.at);
    waited.then(|| context.span(context.root, name, told.node, trace.began, end))
}

/// The last thing done: the node is schedulable again once the hop is told.
fn uncordon(context: Context, told: &Told<'_>, end: Timestamp) -> Option<Span> {
    let ends = (told.hop.from, told.hop.to) == (State::Verifying, State::Idle);
    let (name, start) = (("uncordon", "uncordon"), told.hop.at);
    (ends && end > start).then(|| context.span(context.root, name, told.node, start, end))
}

/// Why a phase had no success, by what ended it.
fn error(hop: &Hop, trouble: Option<String>) -> Option<String> {
    let text = match hop.cause.as_str() {
        "DrainLate" => "the drain took longer than drainTimeoutSeconds",
        "Dead" => "the Node was not Ready for 5 minutes",
        "Contested" => "several pools select the node",
        "CordonLost" => "somebody uncordoned the node",
        "Unstaged" => "the staged image was gone or another one",
        "Returned" => "the node rebooted and still ran the old image",
        "Strayed" => "the node came up with an image that was not asked for",
        _ if hop.begins_update() || hop.to == State::Leaving => return trouble,
        _ => return None,
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests;
