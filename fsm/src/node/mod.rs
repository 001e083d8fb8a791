//! One node of the cluster: what is known, what is kept, what follows from both.

pub mod record;

pub use record::{Approval, DrainFault, Hop, Record, Slot, State};
