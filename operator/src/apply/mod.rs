//! Decisions become writes: one lane a node, effects in order, every request fenced and bounded.

pub mod body;
pub mod lane;
mod outcome;
mod turns;
mod writer;

pub use lane::{Effected, End, Lane, Step};
pub use outcome::{Failure, outcome};
pub use turns::Line;
pub use writer::Writer;
