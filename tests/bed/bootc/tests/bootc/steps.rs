//! Small steps that several tests take.

use std::collections::BTreeMap;
use std::fs;
use std::process::Child;
use std::time::{Duration, Instant};

use bed_bootc::faults::{CommandFault, Faults, PullFault};
use serde_json::Value;

use crate::rig::Rig;

pub(crate) fn slow(bytes_per_second: u64) -> Faults {
    let pull = PullFault {
        bytes_per_second: Some(bytes_per_second),
        ..PullFault::default()
    };
    Faults {
        pull,
        ..Faults::default()
    }
}

pub(crate) fn command_fault(name: &str, fault: CommandFault) -> Faults {
    Faults {
        commands: BTreeMap::from([(name.to_owned(), fault)]),
        ..Faults::default()
    }
}

pub(crate) fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !there() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn blobs(host: &Rig) -> usize {
    fs::read_dir(host.path("sysroot/ostree/repo/blobs/sha256"))
        .unwrap()
        .count()
}

pub(crate) fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

pub(crate) fn booted(host: &Rig) -> Value {
    host.status()["status"]["booted"]["image"]["version"].clone()
}
