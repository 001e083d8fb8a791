//! The staged deployment and its lock, in `/run/ostree`: lost with the power.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::host::remove_file;
use crate::sysroot::{Deployment, replace};

const FILE: &str = "staged-deployment";
const LOCK: &str = "staged-deployment-locked";

/// What waits for the next orderly shutdown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Staged {
    pub(crate) deployment: Deployment,
    /// Not to be finalised. Set within the file when staged so in one step;
    /// locking later makes a second file as well.
    pub(crate) locked: bool,
}

impl Staged {
    pub(crate) fn load(run_ostree: &Path) -> Result<Option<Self>> {
        let path = run_ostree.join(FILE);
        let text = match fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("Reading {}", path.display()))?,
        };
        let mut staged: Self =
            serde_json::from_slice(&text).with_context(|| format!("Parsing {}", path.display()))?;
        staged.locked |= run_ostree.join(LOCK).exists();
        Ok(Some(staged))
    }

    /// Records a new staged deployment in the place of any other.
    pub(crate) fn store(&self, run_ostree: &Path) -> Result<()> {
        fs::create_dir_all(run_ostree)
            .with_context(|| format!("Creating {}", run_ostree.display()))?;
        replace(&run_ostree.join(FILE), &serde_json::to_vec(self)?)?;
        remove_file(&run_ostree.join(LOCK))
    }

    /// Locks or unlocks what is staged.
    pub(crate) fn set_locked(&self, run_ostree: &Path, locked: bool) -> Result<()> {
        let changed = Self {
            locked,
            ..self.clone()
        };
        changed.store(run_ostree)?;
        if locked {
            let path = run_ostree.join(LOCK);
            fs::File::create(&path).with_context(|| format!("Creating {}", path.display()))?;
        }
        Ok(())
    }

    pub(crate) fn remove(run_ostree: &Path) -> Result<()> {
        remove_file(&run_ostree.join(FILE))?;
        remove_file(&run_ostree.join(LOCK))
    }
}
