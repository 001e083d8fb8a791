//! What a host is told to be: a release, a misbehaving command, no bootc host at all.

use std::fs;

use bed_bootc::faults::{CommandFault, Faults, Release};
use serde_json::Value;

use crate::rig::Rig;
use crate::steps::{booted, command_fault};

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
