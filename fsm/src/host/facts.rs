//! What is seen: the host as bootc tells it, the `BootcNode`, the unit that works.

use serde::{Deserialize, Serialize};

use super::{Report, Task};
use crate::Timestamp;

/// The newest that was seen of everything that a decision needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The time of this step.
    pub now: Timestamp,
    /// The boot that runs, as status names it: boot id, `+N` after N soft reboots.
    pub boot: String,
    /// What the `BootcNode` asks for.
    pub wanted: Wanted,
    /// What bootc says of the host.
    pub host: Host,
    /// The unit of ours that runs on the host, if one does.
    pub unit: Option<Unit>,
    /// How far its pull is, where bootc tells.
    pub progress: Option<Progress>,
    /// The registry credentials that we put on the host.
    pub auth: Auth,
    /// When this boot and this agent began.
    pub started: Started,
    /// What this host's tools offer.
    pub can: Can,
    /// The last report that the API server has accepted from us.
    pub reported: Option<Report>,
    /// A random number from 0 to 1000: where in its range the next back-off falls.
    pub jitter: u16,
}

/// What the `BootcNode` asks for. Not knowing is not absence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    /// Not read yet.
    #[default]
    Unknown,
    /// There is no `BootcNode`, or it names no image: nothing is wanted of this host.
    Nothing,
    /// This image.
    Image(Spec),
}

impl Wanted {
    /// The spec, where an image is wanted.
    #[must_use]
    pub fn spec(&self) -> Option<&Spec> {
        match self {
            Self::Image(spec) => Some(spec),
            Self::Unknown | Self::Nothing => None,
        }
    }
}

/// The `BootcNode`'s spec, as far as it concerns the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// `host/repo@sha256:…`
    pub image: String,
    /// `desiredImageState: Booted`.
    pub boot_it: bool,
    /// The boot for which that holds; `None` from an operator that does not say.
    pub approved_boot: Option<String>,
    /// `rebootPolicy: AllowSoftReboot`.
    pub soft_reboot: bool,
    /// Credentials for the registry.
    pub secret: Option<Secret>,
    /// A person asked at this time for another try.
    pub retry: Option<Timestamp>,
}

impl Spec {
    /// The wanted digest.
    #[must_use]
    pub fn digest(&self) -> &str {
        digest_of(&self.image).unwrap_or(&self.image)
    }

    /// May the host be rebooted in `boot`? An approval for another boot is void.
    #[must_use]
    pub fn approves(&self, boot: &str) -> bool {
        self.boot_it && self.approved_boot.as_deref().is_none_or(|it| it == boot)
    }
}

/// A pull secret: where it is and the hash of its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Namespace of the Secret.
    pub namespace: String,
    /// Name of the Secret.
    pub name: String,
    /// Changes when its content does.
    pub hash: String,
}

/// What bootc says of the host.
#[allow(
    clippy::large_enum_variant,
    reason = "there is one of it, and the large one is the rule"
)]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Host {
    /// Not asked yet, or a unit of ours keeps bootc from answering.
    #[default]
    Unknown,
    /// `bootc status` failed; its own words.
    Unreadable(String),
    /// There is no bootc on this host, or it says that it does not run it.
    NotBootc(String),
    /// Its answer.
    Seen(View),
}

impl Host {
    /// The answer, where there is one.
    #[must_use]
    pub fn view(&self) -> Option<&View> {
        match self {
            Self::Seen(view) => Some(view),
            Self::Unknown | Self::Unreadable(_) | Self::NotBootc(_) => None,
        }
    }
}

/// `bootc status`, as far as decisions need it, and what it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// What runs.
    pub booted: Entry,
    /// What the next reboot boots, unless it is locked.
    pub staged: Option<Entry>,
    /// What a rollback boots.
    pub rollback: Option<Entry>,
    /// The boot loader has the rollback entry first: an admin queued it, or the host fell back.
    pub rollback_queued: bool,
    /// The disk cannot be written: nothing can be staged.
    pub read_only: bool,
    /// A root is mounted where systemd looks for one: the next orderly reboot is a soft one into it.
    pub prepared: bool,
}

/// One deployment on the host's disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its image; `None` for one that did not come from a registry or was changed locally.
    pub image: Option<Image>,
    /// Changed on the host in a way that bootc cannot update.
    pub incompatible: bool,
    /// Locked: a reboot does not boot it.
    pub locked: bool,
    /// From what runs, a soft reboot leads into it (same kernel, same arguments).
    pub soft_reboot_capable: bool,
    /// Which deployment it is.
    pub deployment: Option<Deployment>,
}

impl Entry {
    /// Is this the image with `digest`? By its own digest or by the one in its pull specification:
    /// a multi-arch image is wanted by its index and pulled by its platform.
    #[must_use]
    pub fn is(&self, digest: &str) -> bool {
        self.image.as_ref().is_some_and(|image| {
            !digest.is_empty()
                && (image.digest == digest || digest_of(&image.reference) == Some(digest))
        })
    }

    /// Was it pulled by its digest, and not by a tag?
    #[must_use]
    pub fn is_by_digest(&self) -> bool {
        let image = self.image.as_ref();
        image.is_some_and(|image| digest_of(&image.reference).is_some())
    }

    /// How people call it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.image
            .as_ref()
            .map_or("an image without a reference", |image| &image.reference)
    }
}

/// An image on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The pull specification as it was given to bootc.
    pub reference: String,
    /// Digest of the manifest that was pulled: with a multi-arch image the platform's own.
    pub digest: String,
    /// The host verifies this image's signature (`containerPolicy`): a switch must say so again.
    pub sigpolicy: bool,
}

/// Which deployment: of two of the same image, the serial tells them apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Checksum of its commit (ostree) or of its tree (composefs).
    pub checksum: String,
    /// Serial among deployments of the same commit.
    pub serial: u32,
}

/// A unit of ours that runs on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// What it does.
    pub task: Task,
    /// The image that it does it for.
    pub image: String,
}

/// How far a pull is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progress {
    /// Layers come from the registry.
    Pulling {
        /// Bytes that came.
        bytes: u64,
        /// Bytes that are to come in all; 0 where bootc does not know.
        of_bytes: u64,
        /// Layers that came.
        layers: u64,
        /// Layers that are to come in all; 0 where bootc does not know.
        of_layers: u64,
    },
    /// What came is put into the host's store.
    Importing,
    /// The deployment is made.
    Deploying,
}

/// The registry credentials that we put on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Auth {
    /// Not looked yet.
    #[default]
    Unknown,
    /// None of ours.
    Absent,
    /// Ours, of the Secret with this hash.
    Written(String),
}

/// When things began: for the steps of an update that no agent could see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The reboot that led to this boot was asked for, as noted on the host's disk.
    pub asked: Option<Timestamp>,
    /// This boot.
    pub boot: Option<Timestamp>,
    /// This agent.
    pub agent: Timestamp,
}

/// What this host's tools offer, as their `--help` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Can {
    /// How an image is staged so that no reboot boots it by accident.
    pub lock: Lock,
    /// A staged image can be dropped.
    pub unstage: bool,
    /// A soft reboot can be prepared, undone, and told from no reboot afterwards.
    pub soft_reboot: bool,
    /// bootc tells how far a pull is.
    pub progress: bool,
}

/// How an image is staged so that no reboot boots it by accident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lock {
    /// It is not: this bootc cannot.
    #[default]
    No,
    /// `switch`, then `upgrade --download-only`.
    TwoSteps,
    /// `switch --download-only`.
    OneStep,
}

/// What happened since the last step and is told once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// Nothing but what the facts say.
    #[default]
    None,
    /// `BootcNode` and `bootc status` were read again, the former from the API server itself, after
    /// the report `Rebooting` was accepted, and nothing was done in between.
    Confirmed,
    /// The reboot was asked for, and the host said yes.
    RebootAsked,
    /// A task ended and bootc's status was read again since.
    Ended {
        /// What was done.
        task: Task,
        /// For which image (for [`Task::Auth`]: which Secret).
        image: String,
        /// Its own last words, if it failed.
        error: Option<String>,
    },
}

/// The digest that a pull specification names.
pub(super) fn digest_of(reference: &str) -> Option<&str> {
    reference.rsplit_once('@').map(|(_, digest)| digest)
}
