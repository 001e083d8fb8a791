//! The stand-in against a real registry: a host's root in a temporary folder,
//! and the outputs that the real bootc gave in the same situations.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod boots;
mod fixture;
mod image;
mod pulls;
#[allow(dead_code, reason = "shared with the tests on a host")]
mod registry;
mod rig;
mod situations;
mod steps;
mod told;
mod watch;
