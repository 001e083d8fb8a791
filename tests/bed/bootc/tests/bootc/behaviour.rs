//! What no single recorded command shows: locks, kills, power cuts, boots,
//! releases, and the faults that a test can tell.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::process::{Child, Output};
use std::time::{Duration, Instant};

use bed_bootc::faults::{BootFault, CommandFault, Faults, PullFault, Release};
use bed_bootc::sysroot::{BASE, Sysroot};
use serde_json::Value;

use crate::image::{self, retag};
use crate::registry::{Kind, Registry};
use crate::rig::Rig;

fn slow(bytes_per_second: u64) -> Faults {
    let pull = PullFault {
        bytes_per_second: Some(bytes_per_second),
        ..PullFault::default()
    };
    Faults {
        pull,
        ..Faults::default()
    }
}

fn command_fault(name: &str, fault: CommandFault) -> Faults {
    Faults {
        commands: BTreeMap::from([(name.to_owned(), fault)]),
        ..Faults::default()
    }
}

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !there() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn blobs(host: &Rig) -> usize {
    fs::read_dir(host.path("sysroot/ostree/repo/blobs/sha256"))
        .unwrap()
        .count()
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn booted(host: &Rig) -> Value {
    host.status()["status"]["booted"]["image"]["version"].clone()
}

#[test]
fn status_waits_silently_for_a_pull_and_ostree_does_not() {
    let host = Rig::new("A");
    let before = blobs(&host);
    host.tell(&slow(1));
    let pull = host.spawn("bootc switch {E}");
    let tmp = host.path("sysroot/ostree/repo/tmp");
    wait_for("the pull", || {
        fs::read_dir(&tmp).is_ok_and(|d| d.count() > 0)
    });
    let status = host.sh("timeout 1 bootc status --json");
    assert_eq!(
        (
            status.status.code(),
            status.stdout.len(),
            status.stderr.len()
        ),
        (Some(124), 0, 0)
    );
    assert!(
        host.ok("timeout 1 ostree admin status --json")
            .contains("\"booted\": true")
    );
    kill(pull);
    assert_eq!(booted(&host), "1.A");
    assert_eq!(blobs(&host), before);
}

#[test]
fn a_killed_pull_goes_on_where_it_was() {
    let host = Rig::new("A");
    host.ok("bootc switch REGISTRY/os:stable");
    host.reboot();
    retag(&host.registry, "stable", "B");
    host.ok("bootc upgrade --check");
    let before = blobs(&host);
    host.tell(&slow(40_000));
    let pull = host.spawn("bootc switch {E}");
    wait_for("the first layer", || blobs(&host) > before);
    kill(pull);
    host.tell(&Faults::default());
    assert_eq!(host.status()["status"]["staged"], Value::Null);
    host.replay("switch-E-resumed-after-kill");
}

#[test]
fn a_second_switch_waits_and_wins() {
    let host = Rig::new("A");
    host.tell(&slow(100_000));
    let first = host.spawn("bootc switch {F}");
    wait_for("the lock", || host.path("sysroot/ostree/lock").exists());
    host.ok("bootc switch {C}");
    let first = first.wait_with_output().unwrap();
    assert!(first.status.success(), "{first:?}");
    assert_eq!(host.status()["status"]["staged"]["image"]["version"], "1.C");
}

#[test]
fn a_registry_that_goes_away_ends_the_pull_and_nothing_is_lost() {
    let mut host = Rig::new("A");
    let before = blobs(&host);
    host.tell(&slow(40_000));
    let pull = host.spawn("bootc switch {E}");
    wait_for("the first layer", || blobs(&host) > before);
    host.registry.stop();
    host.tell(&Faults::default());
    let pull = pull.wait_with_output().unwrap();
    assert_eq!(pull.status.code(), Some(1));
    let expected = "error: Switching: Switching (ostree): Pulling: Importing: ";
    assert!(stderr(&pull).starts_with(expected), "{pull:?}");
    host.registry.resume();
    let resumed = host.ok("bootc switch {E}");
    assert!(
        !resumed.starts_with("layers already present: 2;"),
        "{resumed}"
    );
}

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
fn layers_hide_files_of_lower_ones_and_of_the_base() {
    let host = Rig::new("A");
    let layers: [image::Files<'_>; 3] = [
        &[
            ("usr/lib/modules/1/vmlinuz", "kernel"),
            ("etc/motd", "text"),
            ("opt/a", "1"),
            ("opt/b", "1"),
        ],
        &[("etc/.wh.motd", ""), ("etc/.wh.base", "")],
        &[("opt/.wh..wh..opq", ""), ("opt/c", "1")],
    ];
    image::push(&host.registry, "W", "2026-11-09T10:00:00Z", &layers);
    host.ok("bootc switch REGISTRY/os:W");
    host.reboot();
    let id = fs::read_to_string(host.path("run/ostree-booted")).unwrap();
    let tree = host
        .path("sysroot/ostree/deploy/default/deploy")
        .join(id.trim());
    for hidden in ["etc/motd", "etc/base"] {
        assert!(
            fs::symlink_metadata(tree.join(hidden))
                .unwrap()
                .file_type()
                .is_char_device(),
            "{hidden}"
        );
    }
    let left: Vec<_> = fs::read_dir(tree.join("opt"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["c"]);
    assert_eq!(
        xattr::get(tree.join("opt"), "trusted.overlay.opaque")
            .unwrap()
            .unwrap(),
        b"y"
    );
}

#[test]
fn progress_is_bootcs() {
    let host = Rig::new("A");
    let lines = host.ok("bootc switch --progress-fd 3 {F} 3>&1 1>/dev/null");
    let recorded = include_str!("../fixtures/switch-F-progress.jsonl");
    assert_eq!(shape(&lines), shape(recorded));
    assert_eq!(last_line(&host, &lines), last_line(&host, recorded));
    let file = host.path("file").display().to_string();
    let refused = host.fails(&format!("bootc switch --progress-fd 3 {{C}} 3>{file}"), 1);
    assert!(refused.contains("not a pipe"), "{refused}");
}

/// Each kind of event once, with its keys; layers as many as there are.
fn shape(lines: &str) -> Vec<String> {
    let mut shapes: Vec<String> = Vec::new();
    for line in lines.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let keys: Vec<_> = event.as_object().unwrap().keys().cloned().collect();
        let steps = if event["task"] == "pulling" {
            Value::Null
        } else {
            event["steps"].clone()
        };
        let first = event["subtasks"][0]
            .as_object()
            .map(|t| t.keys().cloned().collect::<Vec<_>>());
        let shape = format!(
            "{} {} {steps} {keys:?} {first:?}",
            event["type"], event["task"]
        );
        if shapes.last() != Some(&shape) {
            shapes.push(shape);
        }
    }
    shapes
}

fn last_line(host: &Rig, lines: &str) -> Value {
    serde_json::from_str(&host.names.common(lines.lines().last().unwrap())).unwrap()
}

#[test]
fn a_release_offers_its_own_flags() {
    let host = Rig::new("A");
    for (release, switch, upgrade) in [
        (Release::V1_11_0, false, false),
        (Release::V1_16_9, false, true),
        (Release::V1_16_10, true, true),
    ] {
        host.tell(&Faults {
            release,
            ..Faults::default()
        });
        for (verb, offered) in [("switch", switch), ("upgrade", upgrade)] {
            for flag in ["--download-only", "--from-downloaded"] {
                assert_eq!(
                    host.ok(&format!("bootc {verb} --help")).contains(flag),
                    offered,
                    "{release:?} {verb} {flag}"
                );
                if !offered {
                    let refused = host.fails(&format!("bootc {verb} {flag}"), 2);
                    assert!(
                        refused.starts_with(&format!("error: unexpected argument '{flag}' found")),
                        "{refused}"
                    );
                }
            }
        }
        assert_eq!(
            host.ok("bootc --version"),
            format!("bootc {}\n", release.name())
        );
    }
    host.tell(&Faults {
        release: Release::V1_11_0,
        ..Faults::default()
    });
    host.ok("bootc switch {B}");
    assert_eq!(host.status()["status"]["staged"].get("downloadOnly"), None);
    assert_eq!(
        host.ok("ostree admin lock-finalization"),
        "Staged deployment is now finalization locked\n"
    );
    host.reboot();
    assert_eq!(booted(&host), "1.A");
}

#[test]
fn told_commands_misbehave() {
    let host = Rig::new("A");
    let garbage = CommandFault {
        stdout: "not json".to_owned(),
        exit: Some(0),
        ..Default::default()
    };
    host.tell(&command_fault("bootc status", garbage));
    assert_eq!(host.ok("bootc status --json"), "not json");

    let failing = CommandFault {
        stderr: "error: Switching: no\n".to_owned(),
        exit: Some(3),
        ..Default::default()
    };
    host.tell(&command_fault("bootc switch", failing.clone()));
    assert_eq!(host.fails("bootc switch {B}", 3), "error: Switching: no\n");
    assert_eq!(host.status()["status"]["staged"], Value::Null);

    host.tell(&command_fault(
        "bootc switch",
        CommandFault {
            after: true,
            ..failing
        },
    ));
    assert!(
        host.fails("bootc switch {B}", 3)
            .ends_with("error: Switching: no\n")
    );
    assert_eq!(host.status()["status"]["staged"]["image"]["version"], "1.B");

    host.tell(&command_fault(
        "bootc status",
        CommandFault {
            hang_seconds: 600,
            ..Default::default()
        },
    ));
    assert_eq!(
        host.sh("timeout 1 bootc status --json").status.code(),
        Some(124)
    );

    host.write("var/lib/bed/faults.json", r#"{"pul":{}}"#);
    let refused = host.fails("bootc status --json", 1);
    assert!(
        refused.contains("faults.json") && refused.contains("unknown field `pul`"),
        "{refused}"
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

#[test]
fn ostree_status_is_ostrees() {
    let host = Rig::new("A");
    host.ok("bootc switch --download-only {B}");
    let status: Value = serde_json::from_str(&host.ok("ostree admin status --json")).unwrap();
    let staged = &status["deployments"][0];
    let yes: Vec<_> = staged
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, v)| **v == Value::Bool(true))
        .map(|(k, _)| k.as_str())
        .collect();
    assert_eq!(yes, ["finalization-locked", "pending", "staged"]);
    assert_eq!(
        (
            &status["deployments"][1]["booted"],
            &status["deployments"][1]["index"]
        ),
        (&true.into(), &1.into())
    );
    let text = host.ok("ostree admin status");
    assert!(
        text.starts_with("  default ")
            && text.contains(".0 (staged)\n")
            && text.contains("\n* default "),
        "{text}"
    );
    assert_eq!(
        host.fails("ostree admin undeploy 1", 1),
        "error: Cannot undeploy currently booted deployment\n"
    );
    assert_eq!(
        host.fails("ostree admin undeploy 5", 1),
        "error: Out of range deployment index 5, expected < 2\n"
    );
}

#[test]
fn hosts_that_are_not_bootcs_say_so() {
    let host = Rig::new("A");
    host.edit_running_origin(|text| text.replace("container-image-reference", "refspec"));
    let status = host.status();
    assert_eq!(
        (&status["spec"]["image"], &status["status"]["type"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(status["status"]["booted"]["image"], Value::Null);
    assert_eq!(status["status"]["booted"]["incompatible"], false);
    fs::remove_file(host.path("run/ostree-booted")).unwrap();
    assert_eq!(host.status()["status"]["booted"], Value::Null);
    host.fails("bootc switch {B}", 1);
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

#[test]
fn rules_of_order_hold_in_the_trace() {
    let host = Rig::new("A");
    let watch = crate::watch::Watch::start(host.root());
    host.ok("bootc switch {B}");
    let trace = watch.stop();
    let at = |line: &str| {
        trace
            .iter()
            .position(|l| l == line)
            .unwrap_or_else(|| panic!("{line} in {trace:?}"))
    };
    let order = [
        at("/sysroot/ostree CREATE lock"),
        at("/run/ostree MOVED_TO staged-deployment"),
        at("/sysroot/ostree/deploy ATTRIB "),
        at("/run MOVED_TO reboot-required"),
        at("/sysroot/ostree/bootc ATTRIB "),
        at("/sysroot/ostree DELETE lock"),
    ];
    assert!(order.is_sorted(), "{trace:?}");
    let text = fs::read_to_string(host.path("run/reboot-required")).unwrap();
    assert_eq!(
        text,
        format!(
            "bootc: Reboot required for image: {}",
            host.names.digests["B"]
        )
    );
}

#[test]
fn https_is_verified_unless_the_registry_is_marked_insecure() {
    let host = Rig::new("A");
    let registry = Registry::start(Kind::Tls);
    let switch = format!("bootc switch {}/os:nope", registry.address);
    let refused = host.fails(&switch, 1);
    assert!(
        refused.contains("pinging container registry") && refused.contains("certificate"),
        "{refused}"
    );
    let unknown = format!(
        "reading manifest nope in {}/os: manifest unknown\n",
        registry.address
    );
    let certificate = format!("etc/containers/certs.d/{}/ca.crt", registry.address);
    host.write(&certificate, &registry.certificate());
    assert!(host.fails(&switch, 1).ends_with(&unknown));
    fs::remove_file(host.path(&certificate)).unwrap();
    let marked = format!(
        "[[registry]]\nlocation = \"{}\"\ninsecure = true\n",
        registry.address
    );
    host.write("etc/containers/registries.conf.d/tls.conf", &marked);
    assert!(host.fails(&switch, 1).ends_with(&unknown));
}
