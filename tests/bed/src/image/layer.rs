//! One layer of an image: a tar file.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use tar::{EntryType, Header};
use walkdir::WalkDir;

/// The mode of what may be run, and of folders.
const RUNNABLE: u32 = 0o755;

/// Files of a layer. Everything belongs to root and dates from 1970; parent
/// folders are added by themselves.
pub struct Layer {
    tar: tar::Builder<Vec<u8>>,
    folders: BTreeSet<PathBuf>,
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layer")
            .field("folders", &self.folders)
            .finish_non_exhaustive()
    }
}

impl Default for Layer {
    fn default() -> Self {
        Self {
            tar: tar::Builder::new(Vec::new()),
            folders: BTreeSet::new(),
        }
    }
}

impl Layer {
    /// An empty layer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file.
    pub fn file(mut self, path: &str, mode: u32, content: impl AsRef<[u8]>) -> Result<Self> {
        self.add(path, EntryType::Regular, mode, content.as_ref(), None)?;
        Ok(self)
    }

    /// Adds a program of this machine.
    pub fn program(self, path: &str, source: &Path) -> Result<Self> {
        let content =
            fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        self.file(path, RUNNABLE, content)
    }

    /// Adds a folder of that mode.
    pub fn folder(mut self, path: &str, mode: u32) -> Result<Self> {
        self.add(path, EntryType::Directory, mode, &[], None)?;
        Ok(self)
    }

    /// Adds a symbolic link.
    pub fn link(mut self, path: &str, target: &str) -> Result<Self> {
        self.add(
            path,
            EntryType::Symlink,
            0o777,
            &[],
            Some(Path::new(target)),
        )?;
        Ok(self)
    }

    /// Adds all that is below a folder of this machine, at `path`.
    pub fn tree(mut self, path: &str, source: &Path) -> Result<Self> {
        for entry in WalkDir::new(source).min_depth(1).sort_by_file_name() {
            let entry = entry.with_context(|| format!("cannot read {}", source.display()))?;
            let name = Path::new(path).join(entry.path().strip_prefix(source)?);
            let name = name
                .to_str()
                .context("an image's file names must be text")?
                .to_owned();
            let mode = entry.metadata()?.permissions().mode() & 0o7777;
            let kind = entry.file_type();
            if kind.is_dir() {
                self.add(&name, EntryType::Directory, mode, &[], None)?;
            } else if kind.is_symlink() {
                self.add(
                    &name,
                    EntryType::Symlink,
                    mode,
                    &[],
                    Some(&fs::read_link(entry.path())?),
                )?;
            } else if kind.is_file() {
                self.add(
                    &name,
                    EntryType::Regular,
                    mode,
                    &fs::read(entry.path())?,
                    None,
                )?;
            } else {
                bail!("{} is no file, folder or link", entry.path().display());
            }
        }
        Ok(self)
    }

    /// The finished tar file.
    pub(super) fn into_tar(self) -> Vec<u8> {
        // Writing into memory cannot fail.
        self.tar.into_inner().unwrap_or_default()
    }

    fn add(
        &mut self,
        path: &str,
        kind: EntryType,
        mode: u32,
        content: &[u8],
        link: Option<&Path>,
    ) -> Result<()> {
        let path = Path::new(path.trim_matches('/'));
        if let Some(parent) = path.parent() {
            self.parents(parent)?;
        }
        if kind == EntryType::Directory {
            self.folders.insert(path.to_path_buf());
        }
        self.append(path, kind, mode, content, link)
    }

    fn parents(&mut self, folder: &Path) -> Result<()> {
        let missing: Vec<PathBuf> = folder
            .ancestors()
            .filter(|part| !part.as_os_str().is_empty() && !self.folders.contains(*part))
            .map(Path::to_path_buf)
            .collect();
        for part in missing.into_iter().rev() {
            self.append(&part, EntryType::Directory, RUNNABLE, &[], None)?;
            self.folders.insert(part);
        }
        Ok(())
    }

    fn append(
        &mut self,
        path: &Path,
        kind: EntryType,
        mode: u32,
        content: &[u8],
        link: Option<&Path>,
    ) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(u64::try_from(content.len())?);
        let added = match link {
            Some(target) => self.tar.append_link(&mut header, path, target),
            None => self.tar.append_data(&mut header, path, content),
        };
        added.with_context(|| format!("cannot add {} to a layer", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(layer: Layer) -> Vec<(String, u32)> {
        let tar = layer.into_tar();
        let mut archive = tar::Archive::new(tar.as_slice());
        let entry = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            let entry = entry.unwrap();
            (
                entry.path().unwrap().display().to_string(),
                entry.header().mode().unwrap(),
            )
        };
        archive.entries().unwrap().map(entry).collect()
    }

    #[test]
    fn parents_come_first_and_once() {
        let layer = Layer::new()
            .file("/usr/lib/a", 0o644, "a")
            .unwrap()
            .link("/usr/lib/b", "a")
            .unwrap();
        let listing: Vec<String> = listing(layer).into_iter().map(|(path, _)| path).collect();
        assert_eq!(listing, ["usr", "usr/lib", "usr/lib/a", "usr/lib/b"]);
    }

    #[test]
    fn a_tree_keeps_modes_and_links() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir(tree.path().join("bin")).unwrap();
        fs::write(tree.path().join("bin/run"), "#!").unwrap();
        fs::set_permissions(
            tree.path().join("bin/run"),
            fs::Permissions::from_mode(0o750),
        )
        .unwrap();
        std::os::unix::fs::symlink("run", tree.path().join("bin/alias")).unwrap();
        let listing = listing(Layer::new().tree("/opt", tree.path()).unwrap());
        let names: Vec<&str> = listing.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(names, ["opt", "opt/bin", "opt/bin/alias", "opt/bin/run"]);
        assert_eq!(listing[3].1, 0o750);
    }
}
