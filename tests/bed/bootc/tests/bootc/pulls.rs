//! Pulls that are slow, killed, cut off or waited for, and what they unpack.

use std::fs;
use std::os::unix::fs::FileTypeExt;

use bed_bootc::faults::Faults;
use serde_json::Value;

use crate::image::{self, retag};
use crate::registry::{Kind, Registry};
use crate::rig::Rig;
use crate::steps::{blobs, booted, kill, slow, wait_for};

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
    host.tell(&slow(4_000));
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
    host.tell(&slow(10_000));
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
    host.tell(&slow(4_000));
    let pull = host.spawn("bootc switch {E}");
    wait_for("the first layer", || blobs(&host) > before);
    host.registry.stop();
    host.tell(&Faults::default());
    let pull = pull.wait_with_output().unwrap();
    assert_eq!(pull.status.code(), Some(1));
    let expected = "error: Switching: Switching (ostree): Pulling: Importing: ";
    assert!(
        String::from_utf8_lossy(&pull.stderr).starts_with(expected),
        "{pull:?}"
    );
    host.registry.resume();
    let resumed = host.ok("bootc switch {E}");
    assert!(
        !resumed.starts_with("layers already present: 2;"),
        "{resumed}"
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
