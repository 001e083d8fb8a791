//! Where the bed keeps its things: everything below `<target>/bed`.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The root of the repository that this library was built from.
#[must_use]
pub fn project() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Cargo's target directory: `CARGO_TARGET_DIR`, or else `target` in the
/// project's root.
#[must_use]
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) if !dir.is_empty() => project().join(dir),
        _ => project().join("target"),
    }
}

/// The bed's own directory, made when it is missing.
pub fn bed() -> Result<PathBuf> {
    made(target().join("bed"))
}

/// The sources of the Go parts.
#[must_use]
pub fn part_sources() -> PathBuf {
    project().join("tests/bed/parts")
}

/// The programs built from the Go parts.
pub fn bin() -> Result<PathBuf> {
    made(bed()?.join("bin"))
}

/// State of what runs now, one directory for each owner. See [`crate::run_dir`].
pub fn run() -> Result<PathBuf> {
    made(bed()?.join("run"))
}

fn made(dir: PathBuf) -> Result<PathBuf> {
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}
