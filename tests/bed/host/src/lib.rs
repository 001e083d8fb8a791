//! One host of the test bed: its disk, its boots, its namespaces.
//!
//! A host is made of namespaces on the machine's kernel. It has a systemd of
//! its own as PID 1, a root that its bootc chose, a network, and a power
//! button; reboot(2) in it is the real one. It is *not* isolated from the
//! machine, so it runs only what the bed trusts.
//!
//! [`base::tree`] and [`layer::Layer`] make what all hosts of a cluster share,
//! [`Host::create`] makes one, `bed_bootc::install` fills its disk, and
//! [`Host::power_on`] starts it. This package knows nothing of a control plane.

pub mod apt;
pub mod base;
mod boot;
mod boots;
mod cgroup;
pub mod cli;
mod config;
mod enter;
mod guard;
mod host;
pub mod ip;
pub mod layer;
mod network;
mod root;
mod supervise;

pub use boots::{Boot, End};
pub use config::{HostConfig, Network, Node};
pub use guard::{Init, assert_bed_host_init};
pub use host::{Host, Power};

/// The name by which this package's processes are called, whatever binary they are.
const HELPER: &str = "bed-host";

/// Bytes as lower-case hex digits.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
