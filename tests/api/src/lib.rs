//! Helpers of the tests against a real API server.
//!
//! [`suite`] starts one control plane for all tests and installs `deploy/`; [`wait`] looks until
//! something holds.

pub mod suite;
pub mod wait;

pub use suite::{Account, Suite};
