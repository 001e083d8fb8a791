//! How a test tells the stand-in to misbehave: `/var/lib/bed/faults.json`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::sysroot::{ImageInfo, replace};

/// Everything that can be told. Without the file nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Faults {
    /// Images that do not come up.
    pub boot: Vec<BootFault>,
}

/// An image that the boot loader gives up on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BootFault {
    /// The image, by its digest or its version label.
    pub image: String,
    /// Index of the boot entry that comes up instead: 1 is the usual fall-back.
    #[serde(default = "second")]
    pub entry: usize,
}

fn second() -> usize {
    1
}

impl Faults {
    /// The file's place below a host's `/var`.
    #[must_use]
    pub fn path(var: &Path) -> PathBuf {
        var.join("lib/bed/faults.json")
    }

    /// Reads what was told; nothing, where the file is missing. A key that is
    /// not known is an error: a misspelt fault must not pass for a healthy host.
    pub fn load(var: &Path) -> Result<Self> {
        let path = Self::path(var);
        match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).with_context(|| format!("{}", path.display()))
            }
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(e).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Tells a host, from outside or before its first boot.
    pub fn store(&self, var: &Path) -> Result<()> {
        let path = Self::path(var);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        }
        replace(&path, &serde_json::to_vec_pretty(self)?)
    }

    /// The boot entry that comes up when `first` is at the head of the list.
    #[must_use]
    pub fn boot_entry(&self, first: &ImageInfo) -> usize {
        let hit = self.boot.iter().find(|f| {
            f.image == first.digest || first.version.as_deref() == Some(f.image.as_str())
        });
        hit.map_or(0, |f| f.entry)
    }
}
