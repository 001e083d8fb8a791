//! The boot loader: what a disk boots when it is powered on.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::faults::Faults;
use crate::sysroot::{Sysroot, rel_backing, rel_trees, rel_var};

/// One boot. All paths are relative to the sysroot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootPlan {
    /// The deployment to boot, `<checksum>.<serial>`.
    pub deployment: String,
    /// Lower folders of the root, top first, without the bed's base tree below them.
    pub lowerdirs: Vec<PathBuf>,
    /// Upper folder of the root; holds this deployment's own `/etc`.
    pub upper: PathBuf,
    /// Work folder that belongs to `upper`.
    pub work: PathBuf,
    /// The host's `/var`.
    pub var: PathBuf,
    /// What `/run/ostree-booted` must hold: it tells the host which
    /// deployment it runs, as the kernel's command line does on a real one.
    pub booted: String,
}

/// What the disk at `sysroot` boots next: the first deployment, or the one
/// that a told fault makes the boot loader fall back to. To be called once at
/// every power on, outside of the host.
pub fn plan(sysroot: &Path) -> Result<BootPlan> {
    let sysroot = Sysroot::open(sysroot)?;
    let state = sysroot.load()?;
    let faults = Faults::load(&sysroot.var())?;
    let first = state
        .deployments
        .first()
        .context("no deployment on this disk")?;
    let index = faults.boot_entry(&first.image);
    let chosen = state
        .deployments
        .get(index)
        .with_context(|| format!("no boot entry {index} on this disk to fall back to"))?;
    let plan = BootPlan::of(&chosen.id());
    for dir in [&plan.upper, &plan.work, &plan.var] {
        let dir = sysroot.root().join(dir);
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    }
    Ok(plan)
}

impl BootPlan {
    /// How the deployment `id` is booted.
    pub(crate) fn of(id: &str) -> Self {
        Self {
            deployment: id.to_owned(),
            lowerdirs: vec![rel_trees().join(id)],
            upper: rel_backing(id).join("upper"),
            work: rel_backing(id).join("work"),
            var: rel_var(),
            booted: format!("{id}\n"),
        }
    }
}
