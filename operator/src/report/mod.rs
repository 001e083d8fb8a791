//! What people see of a rollout: statuses, Events, and a log line for each hop.

mod events;
pub mod status;

use fsm::{NodeName, PoolName, Record, node::Hop};
use tracing::info;

pub use events::Events;

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
        trace = record.traceparent.as_deref(),
        "{} -> {}", hop.from, hop.to,
    );
}
