//! Helpers of the tests against a real API server.
//!
//! [`suite`] starts one control plane for all tests and installs `deploy/`; [`hosts`] makes nodes
//! and pods that no kubelet runs, [`fleet`] a pool with played agents; [`wait`] looks until something holds.

pub mod counted;
pub mod fleet;
pub mod gate;
pub mod hosts;
pub mod kubelet;
pub mod operator;
pub mod registry;
pub mod secrecy;
pub mod suite;
pub mod wait;
pub mod webhook;

pub use fleet::Fleet;
pub use suite::{Account, Suite};
