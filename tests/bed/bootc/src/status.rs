//! `bootc status`: the document that everybody reads.

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use crate::faults::{Faults, Release};
use crate::host::{Booted, Entry};
use crate::origin::ImageRef;
use crate::sysroot::{ImageInfo, STATEROOT};

/// What a host says of itself. Fields in the JSON's own order: sorted.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Document {
    api_version: &'static str,
    kind: &'static str,
    metadata: Value,
    pub(crate) spec: Spec,
    pub(crate) status: Status,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Spec {
    pub(crate) boot_order: BootOrder,
    pub(crate) image: Option<ImageRef>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum BootOrder {
    #[default]
    Default,
    Rollback,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    pub(crate) booted: Option<BootEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    other_deployments: Vec<BootEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_only: Option<bool>,
    pub(crate) rollback: Option<BootEntry>,
    rollback_queued: bool,
    pub(crate) staged: Option<BootEntry>,
    #[serde(rename = "type")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usr_overlay: Option<Value>,
}

impl Status {
    /// All empty, with the keys that `release` knows.
    fn known_to(release: Release, read_only: bool, usr_overlay: bool) -> Self {
        let newer = release > Release::V1_11_0;
        let overlay = json!({"accessMode": "readWrite", "persistence": "transient"});
        Self {
            read_only: newer.then_some(read_only),
            usr_overlay: newer.then_some(if usr_overlay { overlay } else { Value::Null }),
            ..Self::default()
        }
    }
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BootEntry {
    cached_update: Option<ImageStatus>,
    composefs: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    download_only: Option<bool>,
    pub(crate) image: Option<ImageStatus>,
    pub(crate) incompatible: bool,
    ostree: Value,
    pinned: bool,
    soft_reboot_capable: bool,
    store: &'static str,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImageStatus {
    pub(crate) architecture: String,
    pub(crate) image: ImageRef,
    pub(crate) image_digest: String,
    pub(crate) timestamp: Option<String>,
    pub(crate) version: Option<String>,
}

impl Document {
    fn new(spec: Spec, status: Status) -> Self {
        Self {
            api_version: "org.containers.bootc/v1",
            kind: "BootcHost",
            metadata: json!({"name": "host"}),
            spec,
            status,
        }
    }

    /// What a host says that is not bootc's, or that takes itself for a container.
    pub(crate) fn null(release: Release) -> Self {
        Self::new(Spec::default(), Status::known_to(release, false, false))
    }

    pub(crate) fn of(host: &Booted, faults: &Faults) -> Result<Self> {
        let view = View { host, faults };
        let rollback = host.rollback();
        let mut status = Status {
            rollback_queued: host.rollback_queued(),
            staged: host.staged_entry()?.map(|e| view.entry(&e, true)),
            ..Status::known_to(faults.release, faults.read_only, faults.usr_overlay)
        };
        for (index, entry) in host.entries.iter().enumerate() {
            let shown = view.entry(entry, false);
            if index == host.index {
                status.kind = shown.image.is_some().then_some("bootcHost");
                status.booted = Some(shown);
            } else if Some(index) == rollback {
                status.rollback = Some(shown);
            } else {
                status.other_deployments.push(shown);
            }
        }
        let followed = status
            .staged
            .as_ref()
            .or(status.booted.as_ref())
            .and_then(|e| e.image.clone());
        let boot_order = if host.rollback_queued() {
            BootOrder::Rollback
        } else {
            BootOrder::Default
        };
        let spec = followed.map_or_else(Spec::default, |i| Spec {
            boot_order,
            image: Some(i.image),
        });
        Ok(Self::new(spec, status))
    }

    /// `--booted`: the other entries are left out, but not those of `otherDeployments`.
    pub(crate) fn only_booted(&mut self) {
        self.status.staged = None;
        self.status.rollback = None;
    }
}

struct View<'a> {
    host: &'a Booted,
    faults: &'a Faults,
}

impl View<'_> {
    fn entry(&self, entry: &Entry, staged: bool) -> BootEntry {
        let Entry { deployment, origin } = entry;
        let followed = origin.image.as_ref().filter(|_| !origin.incompatible);
        let show = |info: &ImageInfo| followed.map(|image| ImageStatus::new(info, image));
        let locked = staged && self.host.staged.as_ref().is_some_and(|s| s.locked);
        let running = self.host.running().map(|e| &e.deployment.boot_checksum);
        BootEntry {
            cached_update: self
                .host
                .state
                .cached_updates
                .get(&deployment.checksum)
                .and_then(show),
            composefs: None,
            download_only: (self.faults.release > Release::V1_11_0).then_some(locked),
            image: show(&deployment.image),
            incompatible: origin.incompatible,
            ostree: json!({
                "checksum": deployment.checksum,
                "deploySerial": deployment.serial,
                "stateroot": STATEROOT,
            }),
            pinned: origin.pinned,
            soft_reboot_capable: running == Some(&deployment.boot_checksum),
            store: "ostreeContainer",
        }
    }
}

impl ImageStatus {
    fn new(info: &ImageInfo, image: &ImageRef) -> Self {
        Self {
            architecture: info.architecture.clone(),
            image: image.clone(),
            image_digest: info.digest.clone(),
            timestamp: info.timestamp.clone(),
            version: info.version.clone(),
        }
    }
}

/// The form for people, on a terminal.
pub(crate) fn human(document: &Document) -> String {
    let status = &document.status;
    if status.booted.is_none() {
        return "System is not deployed via bootc.\n".to_owned();
    }
    let entries = [
        ("  Staged", &status.staged),
        ("● Booted", &status.booted),
        ("  Rollback", &status.rollback),
    ];
    let shown = entries
        .into_iter()
        .filter_map(|(title, entry)| Some(human_entry(title, entry.as_ref()?)));
    shown.collect::<Vec<_>>().join("\n")
}

fn human_entry(title: &str, entry: &BootEntry) -> String {
    let Some(image) = &entry.image else {
        return format!("{title} ostree\n");
    };
    let title = format!("{title} image");
    let width = title.chars().count();
    let version = image.version.as_deref().unwrap_or("-");
    let time = image
        .timestamp
        .as_deref()
        .map_or_else(String::new, |t| format!(" ({t})"));
    format!(
        "{title}: {}\n{:>width$}: {} ({})\n{:>width$}: {version}{time}\n",
        image.image.image, "Digest", image.image_digest, image.architecture, "Version"
    )
}
