//! How a test tells the stand-in what to be and how to misbehave:
//! `/var/lib/bed/faults.json` on the host, read at the start of every command
//! and at every power on.
//!
//! ```json
//! {
//!   "release": "1.16.9",
//!   "readOnly": true,
//!   "usrOverlay": true,
//!   "commands": {
//!     "bootc status": { "stdout": "garbage", "exit": 0 },
//!     "bootc switch": { "after": true, "stderr": "error: Switching: no", "exit": 1 },
//!     "bootc upgrade": { "hangSeconds": 600, "holdLock": true }
//!   },
//!   "pull": { "bytesPerSecond": 100000, "fullAfterBytes": 50000, "freeBytes": 0 },
//!   "finalize": { "holdSeconds": 30, "error": "No space left on device", "unrecorded": true },
//!   "boot": [ { "image": "sha256:…", "entry": 1 } ]
//! }
//! ```
//!
//! Every key is optional. A key that is not known is an error: a misspelt
//! fault must not pass for a healthy host.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::sysroot::{ImageInfo, replace};

/// Everything that can be told. Without the file the stand-in is a healthy
/// bootc of the newest release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Faults {
    /// Whose flags are offered.
    pub release: Release,
    /// `/sysroot` is on a read-only device, as on a live medium: status says so.
    pub read_only: bool,
    /// `/usr` is writable until the next boot (`bootc usr-overlay`): status says so.
    pub usr_overlay: bool,
    /// Commands that misbehave, by `<program> <verb>`: `bootc status`,
    /// `bootc switch`, `bootc upgrade`, `bootc rollback`, `ostree admin status`,
    /// `ostree admin undeploy`, `ostree admin lock-finalization`, …
    pub commands: BTreeMap<String, CommandFault>,
    /// Pulls that are slow or find the disk full.
    pub pull: PullFault,
    /// Finalizations at shutdown that are late or fail.
    pub finalize: FinalizeFault,
    /// Images that do not come up.
    pub boot: Vec<BootFault>,
}

/// A generation of bootc, by the flags that it offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Release {
    /// Before finalization locks: no `--download-only`, no `--from-downloaded`, and
    /// status does not know `downloadOnly`.
    #[serde(rename = "1.11.0")]
    V1_11_0,
    /// `upgrade` can lock and unlock, `switch` cannot.
    #[serde(rename = "1.16.9")]
    V1_16_9,
    /// `switch` stages and locks in one step.
    #[default]
    #[serde(rename = "1.16.10")]
    V1_16_10,
}

impl Release {
    /// As `--version` prints it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V1_11_0 => "1.11.0",
            Self::V1_16_9 => "1.16.9",
            Self::V1_16_10 => "1.16.10",
        }
    }
}

/// What a command does wrong. It prints `stdout` and `stderr` and exits with
/// `exit`; without that it goes on to do its work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CommandFault {
    /// Misbehave after the work is done instead of before.
    pub after: bool,
    /// Sleep so long first.
    pub hang_seconds: u64,
    /// Hold the sysroot lock while sleeping.
    pub hold_lock: bool,
    /// Text for standard output, as it is.
    pub stdout: String,
    /// Text for standard error, as it is.
    pub stderr: String,
    /// Exit code; with 0 and `after` unset the command claims success and did nothing.
    pub exit: Option<u8>,
}

/// What goes wrong while pulling.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PullFault {
    /// Layers come no faster.
    pub bytes_per_second: Option<u64>,
    /// The disk is full once a pull has written so many bytes of layers.
    pub full_after_bytes: Option<u64>,
    /// Free space as the check before a pull sees it.
    pub free_bytes: Option<u64>,
}

/// What goes wrong at an orderly shutdown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FinalizeFault {
    /// Sleep so long before the work: beyond the unit's timeout the update is lost.
    pub hold_seconds: u64,
    /// Fail with this text, kept for the next boot's ostree-boot-complete.
    pub error: Option<String>,
    /// The disk is too full for a failure to be kept: the next boot looks
    /// healthy, and only the journal of the last one knows.
    pub unrecorded: bool,
}

/// An image that the boot loader gives up on while it is first in the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BootFault {
    /// The image, by its digest or its version label.
    pub image: String,
    /// Index of the boot entry that comes up instead: 1 is the usual
    /// fall-back, 2 a third image (a pinned one, say).
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

    /// Reads what was told; nothing, where the file is missing.
    pub fn load(var: &Path) -> Result<Self> {
        let path = Self::path(var);
        match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).with_context(|| format!("Parsing {}", path.display()))
            }
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(e).with_context(|| format!("Reading {}", path.display())),
        }
    }

    /// Tells a host, from outside or before its first boot.
    pub fn store(&self, var: &Path) -> Result<()> {
        let path = Self::path(var);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("Creating {}", dir.display()))?;
        }
        replace(&path, &serde_json::to_vec_pretty(self)?)
    }

    /// The boot entry that comes up when `first` is at the head of the list.
    #[must_use]
    pub fn boot_entry(&self, first: &ImageInfo) -> usize {
        let is_first =
            |f: &&BootFault| f.image == first.digest || Some(&f.image) == first.version.as_ref();
        self.boot.iter().find(is_first).map_or(0, |f| f.entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Faults::load(dir.path()).unwrap(), Faults::default());
        Faults::default().store(dir.path()).unwrap();
        assert_eq!(Faults::load(dir.path()).unwrap(), Faults::default());
        for text in [
            r#"{"pul":{}}"#,
            r#"{"pull":{"speed":1}}"#,
            r#"{"boot":[{"image":"x","entri":1}]}"#,
        ] {
            fs::write(Faults::path(dir.path()), text).unwrap();
            let error = format!("{:#}", Faults::load(dir.path()).unwrap_err());
            assert!(error.contains("unknown field"), "{error}");
        }
    }

    #[test]
    fn the_example_above_is_understood() {
        let text = include_str!("faults.rs");
        let json: String = text
            .lines()
            .skip_while(|l| *l != "//! ```json")
            .skip(1)
            .take_while(|l| *l != "//! ```")
            .map(|l| l.trim_start_matches("//!"))
            .collect();
        let faults: Faults = serde_json::from_str(&json).unwrap();
        assert_eq!(faults.release, Release::V1_16_9);
        assert_eq!(faults.boot[0].entry, 1);
    }

    #[test]
    fn boot_faults_match_digest_or_version() {
        let image = ImageInfo {
            digest: "sha256:d".to_owned(),
            version: Some("D".to_owned()),
            timestamp: None,
            architecture: "amd64".to_owned(),
        };
        let told = |image: &str| Faults {
            boot: vec![BootFault {
                image: image.to_owned(),
                entry: 2,
            }],
            ..Faults::default()
        };
        assert_eq!(told("sha256:d").boot_entry(&image), 2);
        assert_eq!(told("D").boot_entry(&image), 2);
        assert_eq!(told("C").boot_entry(&image), 0);
    }
}
