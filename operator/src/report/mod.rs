//! What people see of a rollout: statuses, Events, and a log line for each hop.

mod blocked;
mod events;
mod metrics;
mod series;
mod snapshot;
pub mod status;
pub mod trace;

use fsm::{NodeName, PoolName, Record, State, node::Hop};
use tracing::info;

pub use blocked::Blocked;
pub use events::Events;
pub use metrics::{Metrics, Scrapes, Told};
pub use snapshot::Snapshot;

/// Where the deciding task tells what happens.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// What is counted.
    pub metrics: Metrics,
    /// Where spans go, if they are wanted.
    pub spans: Option<trace::Spans>,
}

/// The phase of an update that a node is in by its state, as metrics and spans name it.
#[must_use]
pub fn phase(state: State) -> Option<&'static str> {
    Some(match state {
        State::Staging => "stage",
        State::Staged => "wait-for-slot",
        State::Cordoned => "cordon",
        State::Draining => "drain",
        State::Rebooting => "reboot",
        State::Verifying => "verify",
        State::Idle | State::Leaving => return None,
    })
}

/// One line for a node's way from one state to another.
pub fn hop(node: &NodeName, pool: Option<&PoolName>, hop: &Hop, record: &Record) {
    info!(
        %node,
        pool = pool.map(PoolName::as_str),
        from = %hop.from,
        to = %hop.to,
        cause = hop.cause,
        after_seconds = hop.at.since(hop.since) / 1000,
        image = record.image.as_ref().map(fsm::Image::as_str),
        trace = record.traceparent.as_deref().and_then(trace_id),
        "{} -> {}", hop.from, hop.to,
    );
}

/// The trace's own id in a W3C trace context, by which a log line finds its trace.
fn trace_id(parent: &str) -> Option<&str> {
    parent.split('-').nth(1)
}
