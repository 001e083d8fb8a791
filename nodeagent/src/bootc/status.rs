//! `bootc status --json`: the parts that are used, read tolerantly.
//!
//! Fields come and go between releases, so everything may be missing and anything may be there
//! besides. Enumerations are kept as strings for the same reason.

use crd::ImageInfo;
use fsm::host::{Deployment, Entry, Host, Image, View};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

/// The document that bootc prints.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Status {
    /// What the host has.
    #[serde(default)]
    pub status: HostStatus,
}

/// What the host has.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HostStatus {
    /// What runs; nothing on a host that is not bootc's, in a container, or as `container` is set.
    pub booted: Option<BootEntry>,
    /// What the next reboot boots.
    pub staged: Option<BootEntry>,
    /// What a rollback boots.
    pub rollback: Option<BootEntry>,
    /// The boot loader has the rollback entry first.
    pub rollback_queued: bool,
    /// The disk is read-only (a live system).
    pub read_only: bool,
}

/// One deployment.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BootEntry {
    /// Its image, unless it was not made from one or was changed locally.
    pub image: Option<ImageStatus>,
    /// Changed on the host in a way that bootc cannot update.
    pub incompatible: bool,
    /// A soft reboot into it would do (says nothing on what is booted).
    pub soft_reboot_capable: bool,
    /// Locked: a reboot does not boot it.
    pub download_only: bool,
    /// Its identity with the ostree backend.
    pub ostree: Option<Ostree>,
    /// Its identity with the composefs backend.
    pub composefs: Option<Composefs>,
}

/// An image on the host.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageStatus {
    /// How it is referred to.
    pub image: ImageReference,
    /// Version label.
    pub version: Option<String>,
    /// When it was built, RFC 3339.
    pub timestamp: Option<String>,
    /// Digest of the platform's manifest.
    pub image_digest: String,
    /// CPU architecture.
    pub architecture: Option<String>,
}

/// How an image is referred to.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageReference {
    /// The pull specification as given.
    pub image: String,
    /// How the signature is verified: a string, or an object that names an ostree remote.
    pub signature: Option<serde_json::Value>,
}

/// An ostree deployment.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ostree {
    /// Checksum of the commit.
    pub checksum: String,
    /// Serial among deployments of this commit.
    pub deploy_serial: u32,
}

/// A composefs deployment.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Composefs {
    /// fs-verity digest of its tree.
    pub verity: String,
}

/// The images as the `BootcNode`'s status has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Images {
    /// What runs.
    pub booted: Option<ImageInfo>,
    /// What is staged.
    pub staged: Option<ImageInfo>,
    /// What a rollback boots.
    pub rollback: Option<ImageInfo>,
}

/// What is said of a host that bootc does not run.
const NOT_BOOTED: &str = "bootc says that it does not run this host (nothing is booted); \
     take the node out of the pool, or install it with bootc";

impl Status {
    /// Reads bootc's answer.
    ///
    /// # Errors
    /// If it is not JSON of this kind.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// What decisions need of it. It does not say whether a soft reboot is prepared.
    #[must_use]
    pub fn host(&self) -> Host {
        let status = &self.status;
        let Some(booted) = &status.booted else {
            return Host::NotBootc(NOT_BOOTED.to_owned());
        };
        Host::Seen(View {
            booted: booted.entry(),
            staged: status.staged.as_ref().map(BootEntry::entry),
            rollback: status.rollback.as_ref().map(BootEntry::entry),
            rollback_queued: status.rollback_queued,
            read_only: status.read_only,
            prepared: false,
        })
    }

    /// What people read of it.
    #[must_use]
    pub fn images(&self) -> Images {
        let info = |entry: &Option<BootEntry>| entry.as_ref().map(BootEntry::info);
        Images {
            booted: info(&self.status.booted),
            staged: info(&self.status.staged),
            rollback: info(&self.status.rollback),
        }
    }
}

impl BootEntry {
    fn entry(&self) -> Entry {
        let image = self.image.as_ref();
        Entry {
            image: image.filter(|_| !self.incompatible).map(|image| Image {
                reference: image.image.image.clone(),
                digest: digest(&image.image_digest),
                sigpolicy: image.image.verifies(),
            }),
            incompatible: self.incompatible,
            locked: self.download_only,
            soft_reboot_capable: self.soft_reboot_capable,
            deployment: self.deployment(),
        }
    }

    fn deployment(&self) -> Option<Deployment> {
        let ostree = self.ostree.as_ref().map(|it| Deployment {
            checksum: it.checksum.clone(),
            serial: it.deploy_serial,
        });
        let composefs = || {
            self.composefs.as_ref().map(|it| Deployment {
                checksum: it.verity.clone(),
                serial: 0,
            })
        };
        ostree.or_else(composefs)
    }

    /// Cut to what the schema admits: one odd label of an image must not make a whole report refused.
    fn info(&self) -> ImageInfo {
        let image = self.image.clone().unwrap_or_default();
        ImageInfo {
            image: cut(&image.image.image, 1024),
            image_digest: cut(&digest(&image.image_digest), 128),
            version: image.version.map(|it| cut(&it, 256)),
            timestamp: image.timestamp.filter(|it| it.parse::<Timestamp>().is_ok()),
            architecture: image.architecture.map(|it| cut(&it, 64)),
            soft_reboot_capable: self.soft_reboot_capable,
            download_only: self.download_only,
            incompatible: self.incompatible,
        }
    }
}

impl ImageReference {
    fn verifies(&self) -> bool {
        let signature = self.signature.as_ref();
        signature.and_then(|it| it.as_str()) == Some("containerPolicy")
    }
}

/// Deployments from before bootc kept manifest digests show bare hex.
fn digest(text: &str) -> String {
    if text.len() == 64 && !text.contains(':') {
        format!("sha256:{text}")
    } else {
        text.to_owned()
    }
}

fn cut(text: &str, bytes: usize) -> String {
    crate::text::head(text, bytes).to_owned()
}
