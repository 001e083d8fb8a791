//! The agent: one on each node, it makes the host's bootc do what its `BootcNode` asks for.
//!
//! What to do is decided in [`fsm::host`]; here is how. The [`agent`] feeds it with what the
//! [`api`] server, [`bootc`] and the host's systemd ([`unit`]) say, carries out what it asks for
//! ([`hands`]) and writes what it wants said ([`report`]). One thread, one thing at a time on the
//! host, one watch on one object; nothing else while idle.

pub mod agent;
pub mod api;
pub mod auth;
pub mod bootc;
pub mod hands;
pub mod host;
pub mod report;
pub mod text;
pub mod unit;
pub mod watch;
