//! `--apply`: asks for the reboot and waits to be killed by it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Reboots through a transient unit, then parks with the sysroot lock held,
/// as bootc does: started from a pod, that keeps the finalizer waiting.
pub(crate) fn reboot() -> Result<()> {
    let status = Command::new("systemd-run")
        .args([
            "--quiet",
            "--",
            "systemctl",
            "reboot",
            "--message=Initiated by bootc",
        ])
        .status()
        .context("Initiating reboot: systemd-run")?;
    if !status.success() {
        bail!("Initiating reboot: systemd-run: {status}");
    }
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
