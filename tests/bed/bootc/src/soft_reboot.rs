//! Soft reboots: the next root is mounted at `/run/nextroot`, and systemd
//! turns any `systemctl reboot` into a change of root.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::boot::BootPlan;
use crate::deploy::make_backing;
use crate::host::{Booted, Host, remove_file, touch};
use crate::sysroot::{BASE, Deployment, Sysroot, replace};

/// Whether a soft reboot is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Only if the target can.
    Auto,
    /// Fail if the target cannot.
    Required,
}

/// Prepares a soft reboot into `target` (called `title` in messages).
pub(crate) fn prepare(
    host: &Host,
    booted: &Booted,
    target: &Deployment,
    wish: Wish,
    title: &str,
) -> Result<()> {
    let running = booted.running().map(|e| &e.deployment.boot_checksum);
    if running != Some(&target.boot_checksum) {
        if wish == Wish::Required {
            bail!("Soft reboot was required but {title} deployment is not soft-reboot capable");
        }
        return Ok(());
    }
    let mut capital = title.to_owned();
    if let Some(first) = capital.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    println!("{capital} deployment is soft-reboot capable, preparing for soft-reboot...");
    if is_empty(&booted.sysroot.root().join(BASE)) {
        eprintln!("error: soft reboot not supported without composefs");
        bail!(
            "Soft reboot {title} deployment: Preparing soft reboot: Failed to prepare soft-reboot: \
             Preparing /run/nextroot for a soft-reboot: Child process exited with code 1"
        );
    }
    mount_root(host, &booted.sysroot, &target.id())?;
    replace(
        &host.run_ostree().join("nextroot-booted"),
        BootPlan::of(&target.id()).booted.as_bytes(),
    )?;
    touch(&booted.sysroot.root().join("ostree/deploy"))
}

/// Undoes a prepared soft reboot, if there is one.
pub(crate) fn reset(host: &Host) -> Result<()> {
    unmount_root(host)?;
    remove_file(&host.run_ostree().join("nextroot-booted"))
}

/// Whether the deployment `id` is what a soft reboot would boot.
pub(crate) fn is_target(host: &Host, id: &str) -> bool {
    fs::read_to_string(host.run_ostree().join("nextroot-booted")).is_ok_and(|t| t.trim() == id)
}

/// Mounts a deployment's whole root at `/run/nextroot`, as the bed does at power on.
pub(crate) fn mount_root(host: &Host, sysroot: &Sysroot, id: &str) -> Result<()> {
    make_backing(sysroot, id)?;
    let plan = BootPlan::of(id);
    let at = |p: &Path| sysroot.root().join(p).display().to_string();
    let mut lower: Vec<_> = plan.lowerdirs.iter().map(|p| at(p)).collect();
    lower.push(at(Path::new(BASE)));
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        at(&plan.upper),
        at(&plan.work)
    );
    let root = host.path("run/nextroot");
    fs::create_dir_all(&root).context("Creating /run/nextroot")?;
    mount(
        Some("overlay"),
        &root,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .context("Mounting /run/nextroot")?;
    for (from, to) in [("sysroot", "sysroot"), ("var", "var")] {
        let to = root.join(to);
        fs::create_dir_all(&to)?;
        mount(
            Some(&host.path(from)),
            &to,
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        )
        .with_context(|| format!("Mounting {}", to.display()))?;
        // As a peer of the running root's, its end would take what is mounted
        // below `/sysroot` there along.
        mount(
            None::<&str>,
            &to,
            None::<&str>,
            MsFlags::MS_PRIVATE | MsFlags::MS_REC,
            None::<&str>,
        )?;
    }
    Ok(())
}

/// Unmounts `/run/nextroot`; says whether it was mounted.
pub(crate) fn unmount_root(host: &Host) -> Result<bool> {
    let root = host.path("run/nextroot");
    if is_empty(&root) {
        return Ok(false);
    }
    umount2(&root, MntFlags::MNT_DETACH).context("Unmounting /run/nextroot")?;
    Ok(true)
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).map_or(true, |mut d| d.next().is_none())
}
