//! Layers to a tree, with whiteouts turned into those of overlayfs: the tree
//! lies above the bed's base tree and must be able to hide files of it.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path};

use anyhow::{Context, Result};
use flate2::bufread::MultiGzDecoder;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use tar::{Archive, Entry};

const OPAQUE: &str = "trusted.overlay.opaque";

/// Unpacks one layer, compressed or not, over what is in `tree` already.
pub(crate) fn unpack(layer: impl Read, tree: &Path) -> Result<()> {
    let mut reader = BufReader::new(layer);
    let gzip = reader
        .fill_buf()
        .context("Reading layer")?
        .starts_with(&[0x1f, 0x8b]);
    let reader: Box<dyn Read> = if gzip {
        Box::new(MultiGzDecoder::new(reader))
    } else {
        Box::new(reader)
    };
    let mut archive = Archive::new(reader);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.set_unpack_xattrs(true);
    for entry in archive
        .entries()
        .context("ostree-tar: Failed to handle file")?
    {
        let mut entry = entry.context("ostree-tar: Failed to handle file")?;
        let path = entry.path()?.into_owned();
        place(&mut entry, &path, tree)
            .with_context(|| format!("ostree-tar: Failed to import file {}", path.display()))?;
    }
    Ok(())
}

fn place<R: Read>(entry: &mut Entry<'_, R>, path: &Path, tree: &Path) -> Result<()> {
    let inside = path
        .components()
        .all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    anyhow::ensure!(inside, "path leaves the tree");
    let target = tree.join(path);
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    if name == ".wh..wh..opq" {
        return make_opaque(target.parent().unwrap_or(tree));
    }
    if let Some(hidden) = name.strip_prefix(".wh.") {
        return whiteout(&target.with_file_name(hidden));
    }
    let hid = make_way(&target, entry.header().entry_type().is_dir())?;
    entry.unpack_in(tree)?;
    if hid && target.is_dir() {
        xattr::set(&target, OPAQUE, b"y")?;
    }
    Ok(())
}

/// Removes what an entry of another kind would trip over; says whether it was a whiteout.
fn make_way(target: &Path, by_dir: bool) -> Result<bool> {
    let Ok(found) = fs::symlink_metadata(target) else {
        return Ok(false);
    };
    let whiteout = found.file_type().is_char_device();
    match (found.is_dir(), by_dir) {
        (true, false) => fs::remove_dir_all(target)?,
        (false, true) => fs::remove_file(target)?,
        _ => {}
    }
    Ok(whiteout)
}

fn make_opaque(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::create_dir_all(dir)?;
    Ok(xattr::set(dir, OPAQUE, b"y")?)
}

fn whiteout(target: &Path) -> Result<()> {
    match fs::symlink_metadata(target) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(target)?,
        Ok(_) => fs::remove_file(target)?,
        Err(_) => {}
    }
    if let Some(dir) = target.parent() {
        fs::create_dir_all(dir)?;
    }
    Ok(mknod(target, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))?)
}
