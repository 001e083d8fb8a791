//! The store of blobs on the disk: manifests, configs and layers by their digest.
//!
//! A blob is written to a temporary file, verified, and renamed, so a killed
//! pull leaves whole blobs and nothing else; the next pull goes on from there.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use oci_spec::image::{Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, Os};
use sha2::{Digest, Sha256};

use crate::deploy::commit_of;
use crate::sysroot::{ImageInfo, State, Sysroot};

/// The blobs of one sysroot.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    blobs: PathBuf,
    tmp: PathBuf,
}

/// What a prune threw away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pruned {
    pub(crate) images: usize,
    pub(crate) layers: usize,
    pub(crate) bytes: u64,
}

impl Store {
    pub(crate) fn of(sysroot: &Sysroot) -> Self {
        let repo = sysroot.repo();
        Self {
            blobs: repo.join("blobs/sha256"),
            tmp: repo.join("tmp"),
        }
    }

    /// Makes the folders and drops what a killed pull left half done.
    pub(crate) fn prepare(&self) -> Result<()> {
        if self.tmp.exists() {
            fs::remove_dir_all(&self.tmp)
                .with_context(|| format!("Clearing {}", self.tmp.display()))?;
        }
        for dir in [&self.blobs, &self.tmp] {
            fs::create_dir_all(dir).with_context(|| format!("Creating {}", dir.display()))?;
        }
        Ok(())
    }

    pub(crate) fn has(&self, digest: &str) -> bool {
        self.path(digest).exists()
    }

    pub(crate) fn open(&self, digest: &str) -> Result<fs::File> {
        let path = self.path(digest);
        fs::File::open(&path).with_context(|| format!("Opening {}", path.display()))
    }

    /// Stores what `reader` gives, if it is what `digest` says. `seen` is told the bytes so far.
    pub(crate) fn put(
        &self,
        digest: &str,
        reader: &mut dyn Read,
        seen: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let mut file =
            tempfile::NamedTempFile::new_in(&self.tmp).context("Creating a temporary file")?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 64 * 1024];
        let mut total = 0;
        loop {
            let n = reader.read(&mut buffer).context("reading blob")?;
            let Some(chunk) = buffer.get(..n).filter(|c| !c.is_empty()) else {
                break;
            };
            hash.update(chunk);
            file.write_all(chunk).context("Writing content object")?;
            total += n as u64;
            seen(total)?;
        }
        let found = sha256_string(hash);
        if found != digest {
            bail!("corrupt blob: expecting {digest} got {found}");
        }
        file.persist(self.path(digest))
            .context("Writing content object")?;
        Ok(())
    }

    pub(crate) fn manifest(&self, digest: &str) -> Result<ImageManifest> {
        ImageManifest::from_reader(self.open(digest)?)
            .with_context(|| format!("Parsing manifest {digest}"))
    }

    /// What is known of an image whose config is here.
    pub(crate) fn info(&self, digest: &str, manifest: &ImageManifest) -> Result<ImageInfo> {
        let config = self.open(manifest.config().digest().as_ref())?;
        let config = ImageConfiguration::from_reader(config).context("Parsing image config")?;
        Ok(image_info(digest, &config))
    }

    /// Drops images that no reference in `keep` names, and the blobs that
    /// neither the rest nor a deployment (in `deployed`, by its image's digest) needs.
    pub(crate) fn prune(
        &self,
        state: &mut State,
        keep: &BTreeSet<String>,
        deployed: &BTreeSet<String>,
    ) -> Result<Pruned> {
        let before = state.images.len();
        state.images.retain(|reference, _| keep.contains(reference));
        let images: BTreeSet<_> = state.images.values().chain(deployed).cloned().collect();
        let commits: BTreeSet<_> = images.iter().map(|d| commit_of(d)).collect();
        state
            .cached_updates
            .retain(|commit, _| commits.contains(commit));
        let pruned = Pruned {
            images: before - state.images.len(),
            ..Pruned::default()
        };
        self.drop_blobs(&self.needed(&images)?, pruned)
    }

    /// All blobs of the given images.
    fn needed(&self, images: &BTreeSet<String>) -> Result<BTreeSet<String>> {
        let mut needed = images.clone();
        for digest in images {
            let manifest = self.manifest(digest)?;
            needed.insert(manifest.config().digest().to_string());
            needed.extend(manifest.layers().iter().map(|l| l.digest().to_string()));
        }
        Ok(needed)
    }

    fn drop_blobs(&self, needed: &BTreeSet<String>, mut pruned: Pruned) -> Result<Pruned> {
        for entry in fs::read_dir(&self.blobs)
            .with_context(|| format!("Reading {}", self.blobs.display()))?
        {
            let entry = entry?;
            if needed.contains(&format!("sha256:{}", entry.file_name().to_string_lossy())) {
                continue;
            }
            if is_layer(&entry.path())? {
                pruned.layers += 1;
                pruned.bytes += entry.metadata()?.len();
            }
            fs::remove_file(entry.path())?;
        }
        Ok(pruned)
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.blobs.join(digest.trim_start_matches("sha256:"))
    }
}

/// Manifests and configs are JSON; layers are tar, mostly compressed.
fn is_layer(path: &Path) -> Result<bool> {
    let mut first = [0];
    let n = fs::File::open(path)?.read(&mut first)?;
    Ok(n == 0 || first != *b"{")
}

/// `sha256:<hex>` of some bytes.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    sha256_string(Sha256::new_with_prefix(bytes))
}

fn sha256_string(hash: Sha256) -> String {
    format!("sha256:{}", hex(&hash.finalize()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

fn image_info(digest: &str, config: &ImageConfiguration) -> ImageInfo {
    let label = |key: &str| config.labels_of_config().and_then(|l| l.get(key)).cloned();
    ImageInfo {
        digest: digest.to_owned(),
        version: label("org.opencontainers.image.version").or_else(|| label("version")),
        timestamp: config.created().clone(),
        architecture: config.architecture().to_string(),
    }
}

/// The manifest for this machine among those of an index.
pub(crate) fn choose_platform(index: &ImageIndex) -> Result<&Descriptor> {
    let fits = |d: &&Descriptor| {
        d.platform()
            .as_ref()
            .is_some_and(|p| *p.os() == Os::Linux && *p.architecture() == Arch::default())
    };
    index.manifests().iter().find(fits).with_context(|| {
        format!(
            "no image found in image index for architecture \"{}\", variant \"\", OS \"linux\"",
            Arch::default()
        )
    })
}
