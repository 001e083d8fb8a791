//! Every part builds, and knows that it is built.
#![allow(missing_docs, clippy::unwrap_used)]

use std::process::Command;

use bed::parts::{self, Part};

/// What a program says when it is asked for its version.
fn says(bin: &std::path::Path, name: &str, argument: &str) -> String {
    let output = Command::new(bin.join(name)).arg(argument).output().unwrap();
    assert!(
        output.status.success(),
        "{name} {argument}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_part_builds_and_knows_its_version() {
    let bin = parts::ensure(&Part::ALL).unwrap();
    for name in ["kube-apiserver", "kubelet"] {
        assert_eq!(says(&bin, name, "--version"), "Kubernetes v1.36.3\n");
    }
    assert!(says(&bin, "containerd", "--version").contains("2.3.7"));
    assert_eq!(
        says(&bin, "collector", "--version"),
        "collector version 0.128.0\n"
    );
    assert!(
        says(&bin, "runc", "--version").contains("libseccomp: 2."),
        "runc has no seccomp"
    );
    for name in [
        "lint/actionlint",
        "lint/kube-score",
        "registry",
        "ctr",
        "containerd-shim-runc-v2",
        "cni/bridge",
        "cni/loopback",
        "cni/host-local",
    ] {
        assert!(bin.join(name).is_file(), "{name} is missing");
    }

    let written = || {
        std::fs::metadata(bin.join("runc"))
            .unwrap()
            .modified()
            .unwrap()
    };
    let before = written();
    parts::ensure(&Part::ALL).unwrap();
    assert_eq!(written(), before, "what was built is built again");
}
