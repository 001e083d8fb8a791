//! The recorded situations of the real bootc, driven on the stand-in: same
//! command, same exit code, texts, status and trace.

use crate::image::retag;
use crate::rig::Rig;
use bed_bootc::faults::{BootFault, Faults, FinalizeFault, PullFault, Release};

fn replay(host: &Rig, names: &[&str]) {
    for name in names {
        host.replay(name);
    }
}

#[test]
fn first_update_is_locked_unlocked_and_booted() {
    let host = Rig::new("A");
    replay(
        &host,
        &[
            "status-only",
            "bad-format-version",
            "switch-B-digest",
            "upgrade-download-only-on-staged-unlocked",
            "switch-B-again-while-locked",
            "upgrade-from-downloaded-locked",
            "upgrade-from-downloaded-unlocked",
            "upgrade-plain-on-staged-unlocked",
            "upgrade-conflict",
            "upgrade-conflict2",
        ],
    );
    host.ok("bootc upgrade --download-only");
    host.reboot();
    host.compare_status("reboot-locked");
    host.ok("bootc switch {B}");
    host.reboot();
    host.compare_status("reboot-unlocked-A-to-B");
    host.compare_status("status-booted-B-rollback-A");
    host.replay("from-downloaded-nothing-staged");
    host.replay("status-human-B");
}

/// B runs, A is the rollback.
fn updated() -> Rig {
    let host = Rig::new("A");
    host.ok("bootc switch {B}");
    host.reboot();
    host
}

#[test]
fn rollback_is_queued_taken_back_and_drops_what_is_staged() {
    let host = updated();
    host.replay("switch-C");
    host.replay("rollback-with-staged");
    host.ok("bootc rollback");
    host.replay("rollback-1");
    host.reboot();
    host.compare_status("reboot-rollback-queued");
}

#[test]
fn failed_pulls_change_nothing() {
    let mut host = updated();
    host.start_protected();
    host.ok("bootc rollback");
    host.reboot();
    replay(
        &host,
        &[
            "switch-missing-tag",
            "switch-missing-repo",
            "switch-missing-digest",
            "upgrade-dlonly-none",
        ],
    );
    host.replay("auth-none");
    host.write("run/ostree/auth.json", &host.auth(false));
    host.write("etc/ostree/auth.json", &host.auth(true));
    host.replay("auth-wrong-run");
    host.write("run/ostree/auth.json", "garbage");
    host.replay_as("auth-run-garbage", |text| {
        text.replace(
            "invalid character 'g' looking for beginning of value",
            "expected value at line 1 column 1",
        )
    });
    host.write("run/ostree/auth.json", "{}");
    host.ok("bootc switch {D}");
    host.write("run/ostree/auth.json", &host.auth(true));
    host.replay("auth-run-right-same-content-other-ref");
    host.ok("ostree admin undeploy 0");

    host.ok("bootc switch REGISTRY/os:B");
    host.ok("bootc switch {B}");
    host.registry.stop();
    host.replay_as("offline-switch-cached-tag", refused);
    host.replay("offline-upgrade-download-only-on-staged-digest");
}

/// A registry that is gone from the loopback does not make the network unreachable.
fn refused(text: &str) -> String {
    text.replace("network is unreachable", "connection refused")
}

#[test]
fn cached_digests_need_no_registry() {
    let mut host = updated();
    host.ok("bootc rollback");
    host.reboot();
    host.registry.stop();
    host.replay("offline-switch-cached-digest");
}

/// `os:stable` runs and has moved from A to B; `os:A` is the rollback.
fn following_a_tag() -> Rig {
    let host = Rig::new("A");
    host.ok("bootc switch REGISTRY/os:stable");
    host.reboot();
    retag(&host.registry, "stable", "B");
    host
}

/// Leaves an image in the store that nobody follows, until the next prune.
fn pull_and_drop(host: &Rig, image: &str) {
    host.ok(&format!("bootc switch {image}"));
    host.ok("ostree admin undeploy 0");
}

#[test]
fn a_moved_tag_is_found_staged_locked_and_replaced() {
    let host = following_a_tag();
    host.replay("check-update-available");
    pull_and_drop(&host, "{B}");
    replay(
        &host,
        &["upgrade-download-only-stages-locked", "check-with-staged"],
    );
    retag(&host.registry, "stable", "C");
    host.replay("upgrade-download-only-newer-than-staged-locked");
}

#[test]
fn an_index_needs_the_registry_to_be_locked_again() {
    let mut host = following_a_tag();
    host.ok("bootc upgrade --check");
    host.ok("bootc switch {index}");
    host.replay("index-upgrade-download-only");
    host.registry.stop();
    host.replay("index-offline-from-downloaded");
    host.fails("bootc upgrade --download-only", 1);
    host.replay_as("index-offline-switch-again-after-other", refused);
}

/// `idx` runs by its index, `os:stable` is the rollback.
fn multi_arch() -> Rig {
    let host = following_a_tag();
    host.ok("bootc upgrade");
    retag(&host.registry, "stable", "C");
    host.ok("bootc upgrade");
    host.ok("bootc switch {index}");
    host.reboot();
    host
}

#[test]
fn policies_and_full_disks_refuse() {
    let host = multi_arch();
    host.compare_status("reboot-index-platform");
    host.replay("sigpolicy-insecure-default");
    host.tell(&Faults {
        pull: PullFault {
            free_bytes: Some(0),
            ..PullFault::default()
        },
        ..Faults::default()
    });
    host.replay("enospc-preflight");
    host.tell(&Faults {
        pull: PullFault {
            full_after_bytes: Some(1),
            ..PullFault::default()
        },
        ..Faults::default()
    });
    host.replay("enospc-during-pull");
    host.replay("enospc-status");
    host.tell(&Faults::default());

    std::fs::write(
        host.path("etc/containers/policy.json"),
        SCOPED_POLICY.replace("REGISTRY", &host.registry.address),
    )
    .unwrap();
    host.ok("bootc switch --enforce-container-sigpolicy {C}");
    assert_eq!(
        host.status()["spec"]["image"]["signature"],
        "containerPolicy"
    );
    host.replay("sigpolicy-dropped-silently");
    std::fs::remove_file(host.path("etc/containers/policy.json")).unwrap();
    host.replay("policy-missing");
}

const SCOPED_POLICY: &str = r#"{"default":[{"type":"reject"}],
    "transports":{"docker":{"REGISTRY":[{"type":"insecureAcceptAnything"}]}}}"#;

/// C runs by its digest, B is the rollback and an old `os:stable` is pinned.
fn pinned() -> Rig {
    let host = multi_arch();
    host.tell(&Faults {
        usr_overlay: true,
        ..Faults::default()
    });
    host.replay("ostree-pin-rollback");
    host.replay("switch-B-with-pinned");
    host.tell(&Faults::default());
    host.reboot();
    host.compare_status("reboot-with-pinned");
    host.replay("switch-C-with-pinned");
    host.reboot();
    host
}

#[test]
fn pinned_deployments_stay_and_ostree_locks_and_unlocks() {
    let host = pinned();
    host.ok("bootc switch {A}");
    host.compare_status("systemd-run-switch");
    host.replay("lock-finalization-by-ostree");
    host.replay("lock-finalization-by-ostree-again");
    host.replay_command("onestep-relock-ostree-unlock", str::to_owned);
    assert!(
        host.ok("ostree admin undeploy 0")
            .starts_with("Deleted deployment ")
    );
    host.ok("bootc rollback");
    host.replay("rollback-undo");
}

/// `os:A` runs over a pinned `os:stable`; both are of one commit, whose newest image is known.
fn back_on_a() -> Rig {
    let host = pinned();
    host.ok("bootc switch REGISTRY/os:A");
    host.reboot();
    host
}

#[test]
fn an_image_that_falls_back_is_still_first() {
    let host = back_on_a();
    host.ok("bootc switch REGISTRY/os:B");
    host.reboot();
    host.compare_status("to-B-before-fallback");
    let b = BootFault {
        image: host.names.digests["B"].clone(),
        entry: 1,
    };
    host.tell(&Faults {
        boot: vec![b],
        ..Faults::default()
    });
    host.reboot();
    host.compare_status("fallback-boot");
    host.replay("fallback-then-switch-desired-again");
    host.ok("ostree admin undeploy 0");
    host.compare_status("fallback-after-undeploy");
    host.ok("bootc rollback");
    assert_eq!(host.status()["status"]["rollbackQueued"], false);
}

#[test]
fn images_without_kernel_or_bound_images_fail() {
    let host = back_on_a();
    host.ok("bootc switch REGISTRY/os:B");
    host.reboot();
    host.ok("bootc rollback");
    host.reboot();
    host.replay("bound-image-missing");
    host.replay("bound-image-missing-retry");
    host.replay("not-bootable-image");
}

#[test]
fn layered_hosts_are_incompatible() {
    let host = back_on_a();
    host.ok("bootc switch {B}");
    host.reboot();
    pull_and_drop(&host, "{A}");
    host.edit_running_origin(|text| format!("{text}[packages]\nrequested=vim;\n"));
    host.replay("incompatible-status");
    // The recorded host had one more image to prune, left by a killed command.
    host.replay_as("incompatible-switch", |text| {
        text.split_inclusive('\n')
            .filter(|l| !l.starts_with("Pruned"))
            .collect()
    });
    host.replay("incompatible-switch-status");
}

#[test]
fn one_step_locks() {
    let host = back_on_a();
    host.ok("bootc switch {B}");
    host.reboot();
    pull_and_drop(&host, "REGISTRY/os:B");
    replay(
        &host,
        &[
            "dl-from-downloaded-none",
            "dl-switch-download-only",
            "dl-switch-download-only-same-again",
            "dl-switch-from-downloaded",
            "dl-switch-download-only-on-staged-unlocked-same",
        ],
    );
    host.ok("bootc switch --download-only {A}");
    replay(
        &host,
        &["dl-switch-plain-same-while-locked", "dl-usage", "dl-usage2"],
    );
    host.ok("ostree admin undeploy 0");
    host.replay("dl-download-only-booted");
}

#[test]
fn a_failed_finalization_is_told_once() {
    let host = pinned();
    for tag in ["C", "A"] {
        host.ok(&format!("bootc switch REGISTRY/os:{tag}"));
        host.reboot();
    }
    host.ok("bootc switch {B}");
    let error = "Preparing deployment backing dir: no";
    host.tell(&Faults {
        finalize: FinalizeFault {
            error: Some(error.to_owned()),
            ..FinalizeFault::default()
        },
        ..Faults::default()
    });
    let finalized = host.reboot();
    assert_eq!(finalized.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&finalized.stderr),
        format!("error: Finalizing deployment: {error}\n")
    );
    let told = host.fails("ostree admin boot-complete", 1);
    assert_eq!(
        told,
        format!(
            "error: ostree-finalize-staged.service failed on previous boot: Finalizing deployment: {error}\n"
        )
    );
    host.ok("ostree admin boot-complete");
    host.compare_status("finalize-failure-stamp");

    let unrecorded = FinalizeFault {
        error: Some("full".to_owned()),
        unrecorded: true,
        ..FinalizeFault::default()
    };
    host.tell(&Faults {
        finalize: unrecorded,
        ..Faults::default()
    });
    host.ok("bootc switch {B}");
    assert_eq!(host.reboot().status.code(), Some(1));
    host.ok("ostree admin boot-complete");
    host.compare_status("finalize-failure-stamp");
}

#[test]
fn containers_and_missing_rights_are_refused() {
    let host = Rig::new("A");
    for name in [
        "container-env-status",
        "container-env-empty-status",
        "container-env-upgrade",
        "container-env-from-downloaded",
        "container-env-rollback",
        "nosysadmin-status",
    ] {
        host.replay_command(name, str::to_owned);
    }
}

#[test]
fn soft_reboots_need_the_same_kernel_and_composefs() {
    let host = Rig::new("cA");
    host.ok("bootc switch {cB}");
    host.reboot();
    host.ok("bootc switch {cA}");
    host.reboot();
    pull_and_drop(&host, "{cB}");
    host.replay("softreboot-auto-other-kernel");
    host.replay("softreboot-required-other-kernel");
    host.tell(&Faults {
        release: Release::V1_16_9,
        ..Faults::default()
    });
    let refused = host.fails("bootc switch --soft-reboot=auto {cB}", 1);
    assert!(refused.starts_with(
        "Deploying...done (0 seconds)\nerror: soft reboot not supported without composefs\nerror: Switching: \
         Switching (ostree): Handling staged soft reboot: Handling soft reboot: Soft reboot staged deployment: "
    ));
}
