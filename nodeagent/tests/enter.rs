//! Entering a host: a PID 1 in namespaces of its own plays its init, and the agent's place is a mount
//! and a UTS namespace apart from it, as in a pod with hostPID. Needs root, as the whole bed does.
//!
//! Each test runs itself once more, as a process in that place.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{path::Path, process::Command, time::Duration};

use nodeagent::host::{CommandError, EnterError, Host};

const SOON: Duration = Duration::from_secs(20);
/// Set in the pod.
const IN_POD: &str = "TEST_RUNS_IN_POD";
/// Set where nothing says that it is a pod.
const OUT_OF_POD: &str = "TEST_RUNS_OUT_OF_POD";
/// systemd's mark that it runs.
const SYSTEMD: &str = "/run/systemd/system";

/// Some other init.
const NO_SYSTEMD: &str = "/run/something-else";

fn is_in_pod() -> bool {
    std::env::var_os(IN_POD).is_some()
}

/// Runs the test of this name in a pod of a host. On the host `/run` has the folder `mark`, and there is
/// a bootc that the pod has not; `through` is what the pod's process is started by.
fn run_in_pod(test: &str, mark: &str, through: &str) {
    let this = std::env::current_exe().unwrap();
    let this = this.display();
    let pod = format!(
        "set -e; umount -l /usr/local/sbin; umount -l /run; hostname the-pod
         {through} {this} --exact {test} --nocapture"
    );
    let host = format!(
        r#"set -e; mount -t tmpfs none /run; mkdir -p /run/bin {mark}; hostname the-host
         echo '#!/bin/sh' > /run/bin/bootc
         echo 'echo I am bootc on $(cat /proc/sys/kernel/hostname), container=${{container-unset}}' >> /run/bin/bootc
         chmod +x /run/bin/bootc; mount --bind /run/bin /usr/local/sbin
         unshare --mount --uts sh -c "$POD""#
    );
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--pid", "--fork", "--mount", "--uts", "--mount-proc"])
        .args(["sh", "-c", &host])
        .env("POD", pod)
        .env(IN_POD, "1")
        .env("KUBERNETES_SERVICE_HOST", "10.0.0.1")
        .env("container", "oci");
    assert_passes(&mut unshare);
}

/// Runs a command that runs one test, and sees that it did run.
fn assert_passes(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let passed = output.status.success() && said.contains("1 passed");
    assert!(passed, "{said}");
}

#[tokio::test]
async fn a_pod_enters_its_host() {
    if !is_in_pod() {
        return run_in_pod("a_pod_enters_its_host", SYSTEMD, "");
    }
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(hostname.trim(), "the-pod");
    assert!(!Path::new("/run/bin/bootc").exists());
    let host = Host::enter(false).unwrap();
    assert!(host.path("run/bin/bootc").exists());
    assert!(host.boot_id().unwrap().len() > 30);
    let output = host.run(&["bootc"], SOON).await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.trim(), "I am bootc on the-host, container=unset");
    // Looked for on the host, not in the pod.
    let missing = host.run(&["no-such-program"], SOON).await;
    assert!(matches!(missing, Err(CommandError::Missing(_))));
}

#[test]
fn an_init_that_is_not_systemd_is_left_alone() {
    if !is_in_pod() {
        return run_in_pod("an_init_that_is_not_systemd_is_left_alone", NO_SYSTEMD, "");
    }
    assert!(matches!(Host::enter(false), Err(EnterError::NotSystemd)));
}

#[test]
fn a_pod_without_host_pid_is_told() {
    if !is_in_pod() {
        let own_pids = "unshare --pid --fork --mount-proc";
        return run_in_pod("a_pod_without_host_pid_is_told", SYSTEMD, own_pids);
    }
    assert!(matches!(Host::enter(false), Err(EnterError::NoHostPid)));
}

#[test]
fn outside_a_pod_nothing_is_entered_unasked() {
    if std::env::var_os(OUT_OF_POD).is_some() {
        assert!(matches!(Host::enter(false), Err(EnterError::NotInPod)));
        return;
    }
    // These tests may themselves run in a pod.
    let this = std::env::current_exe().unwrap();
    let mut again = Command::new(this);
    again
        .args(["--exact", "outside_a_pod_nothing_is_entered_unasked"])
        .arg("--nocapture")
        .env(OUT_OF_POD, "1")
        .env_remove("KUBERNETES_SERVICE_HOST");
    assert_passes(&mut again);
}
