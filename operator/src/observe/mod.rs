//! What the operator sees: one watch per kind, cut down to facts.
//!
//! With `report` the only place where an object of Kubernetes becomes or leaves facts. An event
//! that changes none of the facts in use ends here and wakes nobody.

mod bootcnode;
mod claims;
mod index;
mod node;
mod pool;
mod table;
pub mod time;
mod watch;
pub mod wire;

pub use bootcnode::owner;
pub use index::{Index, Target, Watch, Written};
pub use table::Stamp;
pub use watch::{check, watch};

/// The status of a pool as it is read from an object.
#[cfg(test)]
pub(crate) fn pool_status(object: &wire::Pool) -> Option<fsm::view::PoolStatus> {
    pool::Facts::from(object.clone()).view.status
}
