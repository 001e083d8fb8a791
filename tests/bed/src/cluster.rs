//! A cluster: a control plane, and hosts as its nodes, in a network of its own.
//!
//! One daemon ([`supervisor`]) holds everything: a network namespace without a
//! name, in it a bridge, the control plane, the hosts. Nothing of it is seen in
//! the machine's own network but two ports on the loopback address: the API
//! server's, and the shared registry's. When the daemon dies, everything does.

pub mod control;
mod dns;
mod forward;
pub(crate) mod hosts;
pub mod network;
pub mod state;
pub mod supervisor;
