//! Commands on the host, its files, and the watch on it: with real processes, files and inotify, in a
//! directory that plays the host.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

mod commands;
mod credentials;
#[path = "../played/mod.rs"]
mod played;
mod pulls;
mod steps;
mod watch;

use played::PlayedHost;

const A: &str = "quay.io/os@sha256:aa";
const B: &str = "quay.io/os@sha256:bb";
const SOON: Duration = Duration::from_secs(20);

fn host() -> PlayedHost {
    PlayedHost::booted(A).unwrap()
}

fn sh(script: &str) -> [&str; 3] {
    ["sh", "-c", script]
}
