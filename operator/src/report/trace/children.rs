//! What a phase consists of: the agent's steps, and the pods that a drain waited for.

use std::collections::BTreeMap;

use fsm::{NodeName, State, Timestamp, input::BlockedPod, view::StepView};

use super::{
    Told,
    span::{Context, Span},
};

/// Pods of one drain that get a span; more are left out.
const PODS: usize = 100;
/// A step that began so long before its phase belongs to another one. (Clocks of hosts differ.)
const SKEW: i64 = 60_000;

/// The agent's name of a step, the phase that it is a part of, and the span's name.
const STEPS: [(&str, State, &str); 5] = [
    ("Staging", State::Staging, "pull"),
    ("Unlocking", State::Rebooting, "unlock"),
    ("Stopping", State::Rebooting, "down"),
    ("Booting", State::Rebooting, "boot"),
    ("Returning", State::Rebooting, "agent-back"),
];

/// The steps of the phase that a hop ends, within its bounds.
pub(super) fn steps(
    context: Context,
    parent: u64,
    told: &Told<'_>,
    start: Timestamp,
    end: Timestamp,
) -> Vec<Span> {
    let of_phase = |step: &StepView| {
        let (_, _, name) = STEPS
            .iter()
            .find(|(known, state, _)| *known == step.name && *state == told.hop.from)?;
        let (from, to) = (step.start, step.end.unwrap_or(end));
        let belongs = from.0 >= start.0 - SKEW && from <= end && to >= start;
        let (from, to) = (from.clamp(start, end), to.clamp(start, end));
        belongs.then(|| context.span(parent, (*name, *name), told.node, from, to))
    };
    told.steps.iter().filter_map(of_phase).collect()
}

/// A pod that a drain waits for.
#[derive(Debug)]
pub(super) struct Waited {
    name: String,
    since: Timestamp,
    /// What held it up, if something did.
    why: Option<String>,
}

/// The pods that the drain of a node waits for.
#[derive(Debug, Default)]
pub(super) struct Pods {
    waited: BTreeMap<String, Waited>,
    told: usize,
}

impl Pods {
    /// Takes the pods that are waited for now; answers those that are not any more.
    pub(super) fn see(&mut self, pods: &[BlockedPod], at: Timestamp) -> Vec<Waited> {
        let mut before = std::mem::take(&mut self.waited);
        for pod in pods {
            let known = before.remove(&pod.pod);
            if known.is_none() && self.told >= PODS {
                continue;
            }
            self.told += usize::from(known.is_none());
            let (since, why) = known.map_or((at, None), |known| (known.since, known.why));
            let waited = Waited {
                name: pod.pod.clone(),
                since,
                why: pod.why.clone().or(why),
            };
            self.waited.insert(pod.pod.clone(), waited);
        }
        before.into_values().collect()
    }

    /// The drain is over; answers those that were still waited for.
    pub(super) fn end(&mut self) -> Vec<Waited> {
        std::mem::take(self).waited.into_values().collect()
    }
}

/// The span of a pod that is gone.
pub(super) fn pod(
    context: Context,
    drain: u64,
    node: &NodeName,
    waited: &Waited,
    end: Timestamp,
) -> Span {
    let name = ("wait-for-pod", waited.name.as_str());
    let mut span = context.span(drain, name, node, waited.since, end);
    if let Some((namespace, name)) = waited.name.split_once('/') {
        span.attributes
            .push(("k8s.namespace.name", namespace.into()));
        span.attributes.push(("k8s.pod.name", name.into()));
    }
    let why = waited.why.as_deref().unwrap_or("shutting down");
    span.attributes.push(("bootc.pod.waits_for", why.into()));
    span
}
