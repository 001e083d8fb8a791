//! The stand-in against a real registry: a host's root in a temporary folder,
//! and the outputs that the real bootc gave in the same situations.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod behaviour;
mod fixture;
mod image;
mod registry;
mod rig;
mod situations;
mod watch;
