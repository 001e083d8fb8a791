//! Shutdowns, power cuts, boots and soft reboots.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use bed_bootc::faults::{BootFault, CommandFault, Faults};
use bed_bootc::sysroot::{BASE, Sysroot};
use serde_json::Value;

use crate::rig::Rig;
use crate::steps::{booted, command_fault, kill, wait_for};

#[test]
fn the_finalizer_waits_for_the_lock_and_a_killed_one_loses_the_update() {
    let host = Rig::new("A");
    host.ok("bootc switch {B}");
    host.tell(&command_fault(
        "bootc status",
        CommandFault {
            hang_seconds: 600,
            hold_lock: true,
            ..Default::default()
        },
    ));
    let holder = host.spawn("bootc status --json");
    wait_for("the lock", || host.path("sysroot/ostree/lock").exists());
    let finalizer = host.sh("timeout 1 ostree admin finalize-staged");
    assert_eq!(finalizer.status.code(), Some(124));
    assert!(
        String::from_utf8_lossy(&finalizer.stdout).starts_with("Waiting for sysroot lock...\n")
    );
    kill(holder);
    host.tell(&Faults::default());
    host.power_on();
    assert_eq!(booted(&host), "1.A");
    assert_eq!(host.status()["status"]["staged"], Value::Null);
}

#[test]
fn a_power_cut_loses_what_is_staged_and_serials_go_on() {
    let host = Rig::new("A");
    host.ok("bootc switch {B}");
    host.power_on();
    assert_eq!(host.status()["status"]["staged"], Value::Null);
    let trees = || {
        fs::read_dir(host.path("sysroot/ostree/deploy/default/deploy"))
            .unwrap()
            .count()
    };
    let with_leftover = trees();
    host.ok("bootc switch {B}");
    assert_eq!(
        host.status()["status"]["staged"]["ostree"]["deploySerial"],
        1
    );
    assert_eq!(
        trees(),
        with_leftover,
        "the tree left behind is gone, the new one is there"
    );
}

#[test]
fn local_changes_of_etc_come_along() {
    let host = Rig::new("A");
    let sysroot = Sysroot::open(&host.path("sysroot")).unwrap();
    let etc = |index: usize| {
        sysroot
            .backing(&sysroot.load().unwrap().deployments[index].id())
            .join("upper/etc")
    };
    fs::create_dir_all(etc(0).join("kubernetes")).unwrap();
    fs::write(etc(0).join("hostname"), "node-1\n").unwrap();
    fs::write(etc(0).join("kubernetes/kubelet.conf"), "token").unwrap();
    let secret = || etc(0).join("kubernetes/kubelet.conf");
    fs::set_permissions(secret(), Permissions::from_mode(0o600)).unwrap();
    host.ok("bootc switch {B}");
    assert!(host.reboot().status.success());
    assert_eq!(
        fs::read_to_string(etc(0).join("hostname")).unwrap(),
        "node-1\n"
    );
    assert_eq!(
        fs::metadata(secret()).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    assert!(
        etc(1).join("hostname").exists(),
        "the old deployment keeps its own"
    );
}

#[test]
fn a_third_image_comes_up() {
    let host = Rig::new("A");
    host.ok("ostree admin pin 0");
    for image in ["{B}", "{C}"] {
        host.ok(&format!("bootc switch {image}"));
        host.reboot();
    }
    host.ok("bootc switch {D}");
    host.tell(&Faults {
        boot: vec![BootFault {
            image: "1.D".to_owned(),
            entry: 2,
        }],
        ..Faults::default()
    });
    host.reboot();
    let status = host.status();
    assert_eq!(booted(&host), "1.A");
    assert_eq!(status["status"]["rollback"]["image"]["version"], "1.D");
    assert_eq!(
        status["status"]["otherDeployments"][0]["image"]["version"],
        "1.C"
    );
    assert_eq!(status["status"]["rollbackQueued"], true);
}

/// A host whose root is composefs, so that it can soft-reboot; its mounts are its own.
fn composefs() -> Rig {
    let mut host = Rig::new("cA");
    host.write(&format!("sysroot/{BASE}/usr/lib/base-file"), "base");
    host.wrap.push_str("unshare -m --propagation private ");
    host
}

/// Prepares a soft reboot and finalises, as the shutdown before it does; answers what the new root holds.
const SOFT_REBOOT: &str = "sh -c 'bootc switch --soft-reboot=required {cB} >/dev/null; \
    ostree admin finalize-staged; cd $BED_ROOT/run/nextroot && cat usr/lib/image-id usr/lib/base-file etc/hostname'";

#[test]
fn a_soft_reboot_keeps_etc_and_looks_like_a_fall_back_until_boot_complete() {
    let host = composefs();
    let sysroot = Sysroot::open(&host.path("sysroot")).unwrap();
    let upper = sysroot
        .backing(&sysroot.load().unwrap().deployments[0].id())
        .join("upper/etc");
    fs::create_dir_all(&upper).unwrap();
    fs::write(upper.join("hostname"), "node-1").unwrap();
    let output = host.ok(SOFT_REBOOT);
    assert!(
        output.ends_with("Cleanup complete\ncBbasenode-1"),
        "{output}"
    );

    let status = host.status();
    assert_eq!(booted(&host), "1.cA");
    assert_eq!(status["status"]["rollback"]["image"]["version"], "1.cB");
    assert_eq!(status["status"]["rollbackQueued"], true);
    host.ok("ostree admin boot-complete");
    assert_eq!(booted(&host), "1.cB");
    assert_eq!(host.status()["status"]["rollbackQueued"], false);
}

#[test]
fn soft_reboots_are_prepared_and_undone_as_recorded() {
    let host = composefs();
    for name in ["c-switch-cB", "c-lock", "c-from-downloaded-softreboot-auto"] {
        host.replay(name);
    }
    host.ok("bootc switch {cK}");
    assert!(
        !host.path("run/ostree/nextroot-booted").exists(),
        "staging undoes a prepared soft reboot"
    );
}

#[test]
fn a_lock_after_the_preparation_breaks_the_host() {
    let host = composefs();
    host.ok("bootc switch --soft-reboot=auto {cB}");
    host.ok("bootc upgrade --download-only");
    assert_eq!(
        host.ok("ostree admin finalize-staged"),
        "Not finalizing; deployment is locked for finalization\n"
    );
    host.ok("ostree admin boot-complete");
    let error = host.fails("bootc status --json", 1);
    assert_eq!(
        error,
        "error: Status: loading sysroot: Unexpected state: /run/ostree-booted found and in / sysroot, \
         but bootloader entry not found\n"
    );
    host.power_on();
    assert_eq!(booted(&host), "1.cA");
}
