//! Helpers of the tests against a real API server.
//!
//! [`suite`] starts one control plane for all tests and installs `deploy/`; [`hosts`] makes nodes
//! and pods that no kubelet runs; [`wait`] looks until something holds.

pub mod counted;
pub mod hosts;
pub mod kubelet;
pub mod suite;
pub mod wait;

pub use suite::{Account, Suite};
