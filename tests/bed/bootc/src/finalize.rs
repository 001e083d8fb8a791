//! What happens at an orderly shutdown and at the boot after it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::deploy::make_backing;
use crate::faults::FinalizeFault;
use crate::host::{Booted, Host, remove_file, touch};
use crate::lock::SysrootLock;
use crate::soft_reboot;
use crate::staged::Staged;
use crate::sysroot::{Deployment, replace};

/// `ostree admin finalize-staged`: makes the staged deployment the first boot
/// entry, unless it is locked. A failure is kept for the next boot to tell.
pub(crate) fn finalize_staged(host: &Host, faults: &FinalizeFault) -> Result<()> {
    if Staged::load(&host.run_ostree())?.is_none() {
        println!("No deployment staged for finalization");
        return Ok(());
    }
    let _lock = SysrootLock::wait_aloud(&host.sysroot().ostree())?;
    std::thread::sleep(Duration::from_secs(faults.hold_seconds));
    let mut booted = host.load()?;
    let Some(staged) = booted.staged.clone() else {
        return Ok(());
    };
    if staged.locked {
        println!("Not finalizing; deployment is locked for finalization");
        return Ok(());
    }
    println!("Finalizing staged deployment");
    let done = match &faults.error {
        Some(text) => Err(anyhow!("{text}")),
        None => finalize(host, &mut booted, &staged.deployment),
    };
    let done = done.context("Finalizing deployment");
    if let Err(e) = &done {
        record_failure(host, &format!("{e:#}"), faults.unrecorded);
    }
    done
}

fn finalize(host: &Host, booted: &mut Booted, new: &Deployment) -> Result<()> {
    // The overlay must not be in use while its upper folder is filled from outside.
    let soft_reboot = soft_reboot::unmount_root(host)?;
    copy_etc(booted, new)?;
    let kept = booted
        .entries
        .iter()
        .enumerate()
        .filter(|(i, e)| *i == booted.index || e.origin.pinned);
    let kept: Vec<_> = kept.map(|(_, e)| e.deployment.clone()).collect();
    booted.state.deployments = std::iter::once(new.clone()).chain(kept).collect();
    booted.sysroot.save(&booted.state)?;
    Staged::remove(&host.run_ostree())?;
    booted.staged = None;
    println!("Finalized deployment");
    println!(
        "Bootloader updated; bootconfig swap: yes; bootversion: boot.1.1, deployment count change: 1"
    );
    touch(&booted.sysroot.root().join("ostree/deploy"))?;
    booted.clean()?;
    if soft_reboot {
        soft_reboot::mount_root(host, &booted.sysroot, &new.id())?;
    }
    println!("Cleanup complete");
    Ok(())
}

/// Lays the running deployment's changes of `/etc` over the new one's. They
/// are the overlay's upper files, so that is a copy of that folder.
fn copy_etc(booted: &Booted, new: &Deployment) -> Result<()> {
    let upper = make_backing(&booted.sysroot, &new.id())?.join("upper");
    let running = booted.running().context("no running deployment")?;
    let changed = booted
        .sysroot
        .backing(&running.deployment.id())
        .join("upper/etc");
    if !changed.exists() {
        println!("Copying /etc changes: 0 modified, 0 removed, 0 added");
        return Ok(());
    }
    let copy = Command::new("cp")
        .arg("-a")
        .arg(&changed)
        .arg(&upper)
        .output()
        .context("Running cp")?;
    if !copy.status.success() {
        bail!(
            "Copying /etc changes: {}",
            String::from_utf8_lossy(&copy.stderr).trim()
        );
    }
    println!(
        "Copying /etc changes: {} modified, 0 removed, 0 added",
        fs::read_dir(&changed)?.count()
    );
    Ok(())
}

fn stamp(host: &Host) -> PathBuf {
    host.path("sysroot/boot/ostree/finalize-failure.stamp")
}

/// A disk that is full takes no stamp: then only the journal knows.
fn record_failure(host: &Host, text: &str, disk_full: bool) {
    if disk_full {
        eprintln!(
            "Failed to write ostree/finalize-failure.stamp: fallocate: No space left on device"
        );
        return;
    }
    let stamp = stamp(host);
    let written = stamp
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .map_err(Into::into);
    if let Err(e) = written.and_then(|()| replace(&stamp, text.as_bytes())) {
        eprintln!("Failed to write ostree/finalize-failure.stamp: {e:#}");
    }
}

/// `ostree admin boot-complete`: takes over from a soft reboot, and fails when
/// the last finalization did.
pub(crate) fn boot_complete(host: &Host) -> Result<()> {
    let next = host.run_ostree().join("nextroot-booted");
    if next.exists() {
        fs::rename(&next, host.booted_file()).context("Renaming nextroot-booted")?;
    }
    let stamp = stamp(host);
    if let Ok(text) = fs::read_to_string(&stamp) {
        remove_file(&stamp)?;
        bail!("ostree-finalize-staged.service failed on previous boot: {text}");
    }
    Ok(())
}
