//! A host's disk: where things lie on it and which deployments it holds.
//!
//! The folders carry the names that ostree gives them, so that whoever watches
//! them sees what he would see on a real host. What ostree keeps in boot
//! loader entries and commits is one JSON file here, replaced atomically.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// The only stateroot (ostree's word for one operating system's state).
pub const STATEROOT: &str = "default";

/// Where the bed's base tree is mounted within a running host's sysroot: the
/// lowest layer of every root, needed to look for a kernel and to prepare a
/// soft reboot. Empty on a host whose root cannot soft-reboot.
pub const BASE: &str = "ostree/bed-base";

/// One bootable tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    /// The ostree commit, 64 hex digits; equal images have equal commits.
    pub checksum: String,
    /// Tells deployments of one commit apart.
    pub serial: u32,
    /// Hash over kernel and initramfs: a soft reboot needs it unchanged.
    pub boot_checksum: String,
    /// The image as it was pulled.
    pub image: ImageInfo,
}

impl Deployment {
    /// `<checksum>.<serial>`, the name of its folder.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}.{}", self.checksum, self.serial)
    }
}

/// What is known of an image, whatever reference it was pulled by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageInfo {
    /// Digest of the platform's manifest, also when an index was asked for.
    pub digest: String,
    /// Label `org.opencontainers.image.version`, or `version`.
    pub version: Option<String>,
    /// Creation time, RFC 3339.
    pub timestamp: Option<String>,
    /// Go's name of the architecture, such as `amd64`.
    pub architecture: String,
}

/// What the disk holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// In boot order: the first is what the boot loader tries first.
    pub deployments: Vec<Deployment>,
    /// Pullspec (`transport:reference`) to manifest digest, of every image in the store.
    pub images: BTreeMap<String, String>,
    /// The newest image seen by a check, by the commit that was checked for.
    /// It belongs to the commit and not to a reference, and is never cleared.
    pub cached_updates: BTreeMap<String, ImageInfo>,
}

/// A sysroot, mounted anywhere: `/sysroot` within the host, the disk's folder outside.
#[derive(Clone, Debug)]
pub struct Sysroot {
    root: PathBuf,
}

impl Sysroot {
    /// Opens an installed disk.
    pub fn open(root: &Path) -> Result<Self> {
        let sysroot = Self::at(root);
        if !sysroot.state_file().exists() {
            bail!(
                "{} is not installed: no {}",
                root.display(),
                sysroot.state_file().display()
            );
        }
        Ok(sysroot)
    }

    /// The disk at `root`, installed or not.
    pub(crate) fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Where the disk is mounted.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `ostree/`, home of the lock file.
    #[must_use]
    pub fn ostree(&self) -> PathBuf {
        self.root.join("ostree")
    }

    /// `ostree/repo/`, the store of blobs.
    #[must_use]
    pub fn repo(&self) -> PathBuf {
        self.root.join("ostree/repo")
    }

    /// `ostree/deploy/default/deploy/`, the folder of trees.
    #[must_use]
    pub fn trees(&self) -> PathBuf {
        self.root.join(rel_trees())
    }

    /// The tree of one deployment.
    #[must_use]
    pub fn tree(&self, id: &str) -> PathBuf {
        self.trees().join(id)
    }

    /// The host's `/var`, shared by all deployments.
    #[must_use]
    pub fn var(&self) -> PathBuf {
        self.root.join(rel_var())
    }

    /// A deployment's overlay folders (`upper`, `work`).
    #[must_use]
    pub fn backing(&self, id: &str) -> PathBuf {
        self.root.join(rel_backing(id))
    }

    /// Reads what the disk holds.
    pub fn load(&self) -> Result<State> {
        let path = self.state_file();
        let text = fs::read(&path).with_context(|| format!("Reading {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("Parsing {}", path.display()))
    }

    /// Replaces what the disk holds, in one step.
    pub fn save(&self, state: &State) -> Result<()> {
        replace(&self.state_file(), &serde_json::to_vec_pretty(state)?)
    }

    fn state_file(&self) -> PathBuf {
        self.root.join("ostree/bed-deployments.json")
    }
}

pub(crate) fn rel_trees() -> PathBuf {
    Path::new("ostree/deploy").join(STATEROOT).join("deploy")
}

pub(crate) fn rel_var() -> PathBuf {
    Path::new("ostree/deploy").join(STATEROOT).join("var")
}

pub(crate) fn rel_backing(id: &str) -> PathBuf {
    Path::new("ostree/deploy")
        .join(STATEROOT)
        .join("backing")
        .join(id)
}

/// Writes a temporary file beside `path` and renames it over it, so that a
/// reader sees the old content or the new, and a kill leaves one of them. The
/// machine below the bed does not lose its power, so nothing is synced.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix("tmp.").tempfile_in(dir)?;
        file.write_all(content)?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("Writing {}", path.display()))
}
