//! The Go parts of the bed: Kubernetes, the registry, containerd, runc, the
//! network plugins, the small workloads, a collector of telemetry and linters,
//! built once into `<target>/bed/bin`.
//!
//! A part is keyed by its sources, its flags and the compiler; while the key
//! holds nothing is built. One process builds at a time, the others wait.

mod go;
mod recipe;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

pub use recipe::Part;

use crate::{paths, progress};

/// Builds what is missing of the parts and answers where the programs are.
///
/// It blocks, for minutes when it builds Kubernetes for the first time.
pub fn ensure(parts: &[Part]) -> Result<PathBuf> {
    let bin = paths::bin()?;
    let go = go::Toolchain::find()?;
    if parts
        .iter()
        .try_fold(true, |all, part| anyhow::Ok(all && is_built(*part, &go)?))?
    {
        return Ok(bin);
    }
    let mut waiting = progress::Step::quiet("waiting for another build of the parts");
    let lock = fs::File::create(bin.join(".lock")).context("cannot make the lock of the parts")?;
    while let Err(fs::TryLockError::WouldBlock) = lock.try_lock() {
        waiting.tick("");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    for part in parts {
        if !is_built(*part, &go)? {
            go::build(*part, &go)?;
        }
    }
    Ok(bin)
}

fn is_built(part: Part, go: &go::Toolchain) -> Result<bool> {
    let recipe = part.recipe();
    let stamp = fs::read_to_string(stamp(part)?).unwrap_or_default();
    let bin = paths::bin()?;
    Ok(stamp == recipe.key(go.version())? && recipe.programs().all(|name| bin.join(name).exists()))
}

/// Where the key of a finished build is kept.
fn stamp(part: Part) -> Result<PathBuf> {
    let dir = paths::bin()?.join(".keys");
    fs::create_dir_all(&dir)?;
    Ok(dir.join(part.recipe().source))
}
