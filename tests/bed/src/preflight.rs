//! What must be so before anything is built or started.

use anyhow::{Context as _, Result, ensure};
use nix::sys::statvfs::statvfs;
use nix::unistd::Uid;

use crate::paths;

/// Room for the programs that are built, and for a few clusters.
const ROOM: u64 = 4 << 30;

/// Are we root, and is there room on the disk?
pub fn check() -> Result<()> {
    ensure!(
        Uid::effective().is_root(),
        "hosts are made of namespaces and mounts: run this as root"
    );
    let dir = paths::target();
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let disk = statvfs(&dir).with_context(|| format!("cannot look at {}", dir.display()))?;
    let free = disk.blocks_available() * disk.fragment_size();
    ensure!(
        enough(free),
        "only {} MiB are free in {}, and the bed needs {}: make room, or name a larger disk by CARGO_TARGET_DIR",
        free >> 20,
        dir.display(),
        ROOM >> 20
    );
    Ok(())
}

fn enough(free: u64) -> bool {
    free >= ROOM
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nearly_full_disk_is_too_small() {
        assert!(enough(ROOM));
        assert!(!enough(ROOM - 1));
    }
}
