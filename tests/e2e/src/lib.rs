//! Whole clusters through the `bink` command line: real bootc VMs where there
//! are some, the bed's hosts elsewhere.
//!
//! [`Env::new`] is the one entry: it makes a cluster with the operator on it,
//! and dropping it takes everything down.

mod bink;
mod build;
mod env;
pub mod images;
mod install;
mod programs;
pub mod rights;
pub mod view;
pub mod wait;
pub mod workload;

pub use bink::{Bink, Output};
pub use env::{Config, Env, Forward, is_ready};
pub use programs::Programs;
