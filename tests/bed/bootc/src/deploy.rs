//! Turning a stored image into a bootable tree beside the others.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::origin::{ImageRef, Origin};
use crate::store::{Store, hex};
use crate::sysroot::{Deployment, Sysroot, rel_backing};
use crate::unpack::unpack;

/// Unpacks the stored image `digest` into a new tree with its origin beside
/// it. The tree is nobody's until it is recorded somewhere.
pub(crate) fn deploy(
    sysroot: &Sysroot,
    store: &Store,
    base: &Path,
    image: &ImageRef,
    digest: &str,
) -> Result<Deployment> {
    let manifest = store.manifest(digest)?;
    let info = store.info(digest, &manifest)?;
    let checksum = commit_of(digest);
    let serial = next_serial(sysroot, &checksum)?;
    let tree = sysroot.tree(&format!("{checksum}.{serial}"));
    fs::create_dir_all(&tree).with_context(|| format!("Creating {}", tree.display()))?;
    for layer in manifest.layers() {
        unpack(store.open(layer.digest().as_ref())?, &tree)?;
    }
    let boot_checksum = boot_checksum(&[&tree, base])
        .context("Initializing deployment")
        .context("Staging deployment")
        .context("Writing deployment")?;
    Origin::create(&tree, image)?;
    Ok(Deployment {
        checksum,
        serial,
        boot_checksum,
        image: info,
    })
}

/// The overlay folders of a deployment's root, made at finalization as ostree does.
pub(crate) fn make_backing(sysroot: &Sysroot, id: &str) -> Result<PathBuf> {
    let backing = sysroot.backing(id);
    for name in ["upper", "work"] {
        fs::create_dir_all(backing.join(name))
            .map_err(|e| anyhow::anyhow!("mkdirat({}): {}", rel_backing(id).display(), plain(&e)))
            .context("Creating backing dir")
            .context("Preparing deployment backing dir")?;
    }
    Ok(backing)
}

/// Removes a deployment's files.
pub(crate) fn remove(sysroot: &Sysroot, id: &str) -> Result<()> {
    let tree = sysroot.tree(id);
    ignore_missing(fs::remove_file(Origin::path(&tree)))?;
    ignore_missing(fs::remove_dir_all(&tree))
        .with_context(|| format!("Removing {}", tree.display()))?;
    ignore_missing(fs::remove_dir_all(sysroot.backing(id)))
}

/// All trees on the disk, recorded or left behind.
pub(crate) fn on_disk(sysroot: &Sysroot) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    let dir = sysroot.trees();
    for entry in fs::read_dir(&dir).with_context(|| format!("Reading {}", dir.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            ids.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(ids)
}

/// Equal images make equal commits: the merge commit's metadata holds the manifest's digest.
pub(crate) fn commit_of(digest: &str) -> String {
    hex(&Sha256::digest(format!("ostree merge commit of {digest}")))
}

/// One more than the highest of this commit on the disk, counting trees that nobody owns any more.
fn next_serial(sysroot: &Sysroot, checksum: &str) -> Result<u32> {
    let ids = on_disk(sysroot)?;
    let serials = ids.iter().filter_map(|id| {
        id.strip_prefix(checksum)?
            .strip_prefix('.')?
            .parse::<u32>()
            .ok()
    });
    Ok(serials.max().map_or(0, |highest| highest + 1))
}

/// Hash over kernel and initramfs in the first of the trees that has a kernel.
fn boot_checksum(trees: &[&Path]) -> Result<String> {
    for tree in trees {
        let Ok(modules) = fs::read_dir(tree.join("usr/lib/modules")) else {
            continue;
        };
        for version in modules {
            let version = version?.path();
            let Ok(kernel) = fs::read(version.join("vmlinuz")) else {
                continue;
            };
            let initramfs = fs::read(version.join("initramfs.img")).unwrap_or_default();
            return Ok(hex(&Sha256::new()
                .chain_update(kernel)
                .chain_update(initramfs)
                .finalize()));
        }
    }
    anyhow::bail!("Failed to find kernel in /usr/lib/modules, /usr/lib/ostree-boot or /boot")
}

/// The system's words without Rust's "(os error N)".
pub(crate) fn plain(e: &io::Error) -> String {
    e.raw_os_error().map_or_else(
        || e.to_string(),
        |n| nix::errno::Errno::from_raw(n).desc().to_owned(),
    )
}

fn ignore_missing(result: io::Result<()>) -> Result<()> {
    match result {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}
