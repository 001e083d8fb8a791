//! The decisions of a rollout, pure: no clock, no cluster, no files, no randomness.
//!
//! The operator feeds a [`Rollout`] with [`Input`]s (what its watches, timers and writes say) and
//! does what the returned [`Command`]s ask for. Inputs are *levels*: each one replaces what was
//! known, so a lost, doubled or reordered one loses no transition. The same inputs give the same
//! commands, so a recorded journal can be replayed.
//!
//! Do not put here: anything that waits, reads a clock or knows Kubernetes' wire types.

pub mod command;
pub mod host;
pub mod image;
pub mod input;
pub mod names;
pub mod node;
pub mod pool;
pub mod rollout;
pub mod time;
pub mod view;

pub use command::Command;
pub use image::{Image, Running};
pub use input::Input;
pub use names::{NodeName, PoolName};
pub use node::{Record, State};
pub use rollout::{Config, Figures, Rollout};
pub use time::Timestamp;
