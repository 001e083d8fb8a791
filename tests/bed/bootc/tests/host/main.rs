//! Updates on a host of the bed: a real systemd stops the finalizer, a real
//! reboot boots what was staged. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with the tests without a host")]
#[path = "../bootc/image.rs"]
mod image;
mod machine;
#[allow(dead_code, reason = "shared with the tests without a host")]
#[path = "../bootc/registry.rs"]
mod registry;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use machine::Machine;

fn main() -> ExitCode {
    if let Some(code) = bed_host::cli::run_as_helper() {
        return code;
    }
    let trial = |name: &str, run: fn()| {
        Trial::test(name, move || {
            run();
            Ok(())
        })
    };
    let trials = vec![
        trial(
            "an_update_is_booted_unless_it_is_locked",
            an_update_is_booted_unless_it_is_locked,
        ),
        trial(
            "a_parked_bootc_loses_the_update",
            a_parked_bootc_loses_the_update,
        ),
        trial("soft_reboots_change_the_root", soft_reboots_change_the_root),
        trial(
            "a_failed_finalization_shows_in_the_next_boot",
            a_failed_finalization_shows_in_the_next_boot,
        ),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn an_update_is_booted_unless_it_is_locked() {
    let mut host = Machine::new("updates");
    host.says("echo kept >/etc/local; rm /etc/motd");
    host.says("bootc switch --download-only 127.0.0.1:5000/os:B");
    host.reboot();
    assert_eq!(host.versions(), ["-", "1.A", "-"]);

    host.says("bootc switch 127.0.0.1:5000/os:B");
    host.reboot();
    assert_eq!(host.versions(), ["-", "1.B", "1.A"]);
    assert_eq!(host.says("cat /usr/lib/image-id /etc/local"), "Bkept");
    assert_eq!(host.says("test -e /etc/motd || echo removed"), "removed");

    host.says("bootc switch 127.0.0.1:5000/os:C");
    host.cut_power();
    assert_eq!(host.versions(), ["-", "1.B", "1.A"]);

    host.says("bootc rollback");
    host.reboot();
    assert_eq!(host.versions(), ["-", "1.A", "1.B"]);
}

/// `--apply` from outside of the host's units keeps the sysroot lock until the
/// finalizer has been given up on.
fn a_parked_bootc_loses_the_update() {
    let mut host = Machine::new("parked");
    host.says(
        "mkdir -p /etc/systemd/system/ostree-finalize-staged.service.d && \
         printf '[Service]\\nTimeoutStopSec=4s\\n' >/etc/systemd/system/ostree-finalize-staged.service.d/short.conf && \
         systemctl daemon-reload",
    );
    let mut parked = host.start("bootc switch --apply 127.0.0.1:5000/os:B");
    host.wait_for_boot();
    parked.kill().unwrap();
    parked.wait().unwrap();
    assert_eq!(host.versions(), ["-", "1.A", "-"]);

    host.says("systemd-run --quiet bootc switch --apply 127.0.0.1:5000/os:B");
    host.wait_for_boot();
    assert_eq!(host.versions(), ["-", "1.B", "1.A"]);
}

fn soft_reboots_change_the_root() {
    let mut host = Machine::new("soft");
    let boot = host.says("cat /proc/sys/kernel/random/boot_id");
    host.says("echo kept >/etc/local; bootc switch --soft-reboot=required 127.0.0.1:5000/os:B");
    host.soft_reboot(1);
    assert_eq!(host.says("cat /proc/sys/kernel/random/boot_id"), boot);
    assert_eq!(host.says("cat /usr/lib/image-id /etc/local"), "Bkept");
    assert_eq!(host.versions(), ["-", "1.B", "1.A"]);

    // The second in a row finds the unit still active that would say what is booted.
    host.says("bootc switch --soft-reboot=required 127.0.0.1:5000/os:C");
    host.soft_reboot(2);
    assert_eq!(host.says("cat /usr/lib/image-id"), "C");
    assert_eq!(host.versions(), ["-", "1.B", "1.C"]);
    host.says("systemctl restart ostree-boot-complete.service");
    assert_eq!(host.versions(), ["-", "1.C", "1.B"]);

    host.cut_power();
    assert_eq!(host.versions(), ["-", "1.C", "1.B"]);
}

fn a_failed_finalization_shows_in_the_next_boot() {
    let mut host = Machine::new("failed");
    host.says(r#"mkdir -p /var/lib/bed && echo '{"finalize":{"error":"told to"}}' >/var/lib/bed/faults.json"#);
    host.says("bootc switch 127.0.0.1:5000/os:B");
    host.says("systemctl reboot");
    host.wait_for_boot();
    assert_eq!(host.versions(), ["-", "1.A", "-"]);
    assert_eq!(
        host.says("systemctl is-failed ostree-boot-complete.service"),
        "failed"
    );
    let journal = host.says("journalctl -b -u ostree-boot-complete.service -o cat");
    assert!(
        journal.contains("failed on previous boot: Finalizing deployment: told to"),
        "{journal}"
    );
}
