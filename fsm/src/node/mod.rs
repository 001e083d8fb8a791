//! One node of the cluster: what is known, what is kept, what follows from both.

pub mod effects;
pub mod event;
pub mod facts;
pub mod health;
mod machine;
pub mod rebuild;
pub mod record;
mod trace;
pub mod waiting;

pub use event::Event;
pub use facts::{Drain, DrainStage, Facts, Limits, Wanted};
pub use machine::{handle, step};
pub use record::{Approval, DrainFault, Hop, Mark, Record, Slot, State, Trace};
