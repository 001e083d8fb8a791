//! The operator: how decisions of `fsm` are carried out on the cluster's side.
//!
//! Data goes one way: a watch, a timer or a result becomes an input ([`observe`]), the one task
//! that owns the rollout folds it ([`shell`]), and what comes out is written ([`apply`]) or shown
//! ([`report`]). No rule of a rollout lives here.

pub mod apply;
pub mod args;
mod client;
mod config;
pub mod drain;
pub mod health;
pub mod journal;
pub mod lease;
pub mod observe;
pub mod program;
pub mod protobuf;
pub mod registry;
pub mod report;
pub mod roots;
mod run;
mod scrape;
pub mod secrets;
mod server;
pub mod shell;
pub mod words;

pub use client::connect;
pub use config::Config;
pub use run::run;
