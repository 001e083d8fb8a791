//! The host that a command runs on: its folders, and whether it may run at all.

use std::fs::{self, FileTimes};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::deploy;
use crate::origin::Origin;
use crate::staged::Staged;
use crate::sysroot::{Deployment, State, Sysroot, replace};

/// Environment variable that names another root folder than `/`, for tests.
pub(crate) const ROOT_VARIABLE: &str = "BED_ROOT";

const CAP_SYS_ADMIN: u64 = 1 << 21;

/// One host, by its root folder.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    root: PathBuf,
}

/// A deployment with what its origin says.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) deployment: Deployment,
    pub(crate) origin: Origin,
}

/// All that a booted host knows of itself.
#[derive(Clone, Debug)]
pub(crate) struct Booted {
    pub(crate) sysroot: Sysroot,
    pub(crate) state: State,
    /// The deployments on disk in boot order.
    pub(crate) entries: Vec<Entry>,
    /// Index of the running one in `entries`.
    pub(crate) index: usize,
    pub(crate) staged: Option<Staged>,
}

impl Host {
    /// The host whose `/` is `root`.
    #[must_use]
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The host that this process runs on, or the one named by [`ROOT_VARIABLE`].
    #[must_use]
    pub(crate) fn from_env() -> Self {
        Self::new(std::env::var_os(ROOT_VARIABLE).map_or_else(|| PathBuf::from("/"), PathBuf::from))
    }

    /// A path of the host.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    pub(crate) fn run_ostree(&self) -> PathBuf {
        self.path("run/ostree")
    }

    /// Tells which deployment runs; missing on a host that is not bootc's.
    pub(crate) fn booted_file(&self) -> PathBuf {
        self.path("run/ostree-booted")
    }

    pub(crate) fn is_bootc(&self) -> bool {
        self.booted_file().exists()
    }

    pub(crate) fn sysroot(&self) -> Sysroot {
        Sysroot::at(&self.path("sysroot"))
    }

    /// Whether bootc would take this for the inside of a container. The
    /// variable counts even when it is empty.
    pub(crate) fn in_container(&self) -> bool {
        std::env::var_os("container").is_some()
            || self.path("run/.containerenv").exists()
            || self.path(".dockerenv").exists()
    }

    /// Reads the state of the running host.
    pub(crate) fn load(&self) -> Result<Booted> {
        let sysroot = self.sysroot();
        let state = sysroot.load()?;
        let id = fs::read_to_string(self.booted_file()).context("Reading /run/ostree-booted")?;
        let mut entries = Vec::new();
        for deployment in &state.deployments {
            let origin = Origin::load(&sysroot.tree(&deployment.id()))?;
            entries.push(Entry {
                deployment: deployment.clone(),
                origin,
            });
        }
        let running = entries.iter().position(|e| e.deployment.id() == id.trim());
        let index = running.context(
            "loading sysroot: Unexpected state: /run/ostree-booted found and in / sysroot, but bootloader entry not found",
        )?;
        let staged = Staged::load(&self.run_ostree())?;
        Ok(Booted {
            sysroot,
            state,
            entries,
            index,
            staged,
        })
    }

    /// Tells reboot managers that `digest` waits for a reboot.
    pub(crate) fn require_reboot(&self, digest: &str) -> Result<()> {
        let text = format!("bootc: Reboot required for image: {digest}");
        replace(&self.path("run/reboot-required"), text.as_bytes())
    }
}

impl Booted {
    pub(crate) fn running(&self) -> Option<&Entry> {
        self.entries.get(self.index)
    }

    /// The staged deployment as an entry.
    pub(crate) fn staged_entry(&self) -> Result<Option<Entry>> {
        let Some(staged) = &self.staged else {
            return Ok(None);
        };
        let deployment = staged.deployment.clone();
        let origin = Origin::load(&self.sysroot.tree(&deployment.id()))?;
        Ok(Some(Entry { deployment, origin }))
    }

    /// Index of the first deployment that does not run.
    pub(crate) fn rollback(&self) -> Option<usize> {
        (0..self.entries.len()).find(|i| *i != self.index)
    }

    /// Whether the boot loader's first entry is not the one that runs: a
    /// rollback is queued, or the host fell back.
    pub(crate) fn rollback_queued(&self) -> bool {
        self.rollback().is_some_and(|i| i < self.index)
    }

    /// Removes trees that neither the disk's record nor /run names.
    pub(crate) fn clean(&self) -> Result<()> {
        let staged = self.staged.as_ref().map(|s| s.deployment.id());
        for id in deploy::on_disk(&self.sysroot)? {
            let known =
                self.state.deployments.iter().any(|d| d.id() == id) || staged.as_ref() == Some(&id);
            if !known {
                deploy::remove(&self.sysroot, &id)?;
            }
        }
        Ok(())
    }
}

/// bootc's demand on its caller.
pub(crate) fn require_privilege() -> Result<()> {
    if !geteuid().is_root() {
        bail!("Querying root privilege: This command must be executed as the root user");
    }
    let status = fs::read_to_string("/proc/self/status").context("Reading /proc/self/status")?;
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let effective = u64::from_str_radix(effective.unwrap_or("0").trim(), 16).unwrap_or(0);
    if effective & CAP_SYS_ADMIN == 0 {
        bail!(
            "Querying root privilege: This command requires full root privileges (CAP_SYS_ADMIN)"
        );
    }
    Ok(())
}

/// Gives a folder new times: how ostree and bootc tell watchers of a change.
/// It must be both of them, or inotify reports a modification instead of new attributes.
pub(crate) fn touch(dir: &Path) -> Result<()> {
    let now = SystemTime::now();
    let times = FileTimes::new().set_accessed(now).set_modified(now);
    fs::File::open(dir)
        .and_then(|f| f.set_times(times))
        .with_context(|| format!("Touching {}", dir.display()))
}

/// Removes a file that may be missing.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(e).with_context(|| format!("Removing {}", path.display()))
        }
        _ => Ok(()),
    }
}
