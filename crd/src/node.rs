//! `BootcNode`: one node's wanted image (spec, by the operator) and what its host says (status, by
//! the agent). Named after its Node and owned by its pool.
// Each printcolumn repeats its keys; clippy takes them for doubled attributes.
#![allow(clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{RebootPolicy, SecretRef, image::digest_of, schema};

/// What the operator tells the agent.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "node.bootc.dev",
    version = "v1alpha1",
    kind = "BootcNode",
    plural = "bootcnodes",
    shortname = "bn",
    doc = "The bootc host behind one node: the image it shall run and the images it has. Made by the operator.",
    status = "BootcNodeStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(
        name = "Pool",
        type_ = "string",
        json_path = r#".metadata.ownerReferences[?(@.kind=="BootcNodePool")].name"#
    ),
    printcolumn(
        name = "State",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Idle")].reason"#
    ),
    printcolumn(
        name = "Waiting",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Waiting")].reason"#
    ),
    printcolumn(
        name = "Booted",
        type_ = "string",
        json_path = ".status.booted.imageDigest"
    ),
    printcolumn(
        name = "Staged",
        type_ = "string",
        json_path = ".status.staged.imageDigest"
    ),
    printcolumn(
        name = "Degraded",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Degraded")].status"#
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct BootcNodeSpec {
    /// The image to run, always by digest. Unset while the pool's target is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_pinned_image")]
    pub desired_image: Option<String>,
    /// How far the agent may go with it: stage it, or boot it.
    #[serde(default)]
    pub desired_image_state: DesiredImageState,
    /// Secret for the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secret_ref: Option<SecretRef>,
    /// Hash of that Secret's content: a change tells the agent to fetch it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub pull_secret_hash: Option<String>,
    /// Whether a soft reboot will do.
    #[serde(default)]
    pub reboot_policy: RebootPolicy,
    /// The boot, as the agent's status named it, for which Booted is approved. In any other boot
    /// the approval is void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub approved_boot: Option<String>,
}

/// How far the agent may go.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DesiredImageState {
    /// Pull and deploy the image, locked; do not reboot.
    #[default]
    Staged,
    /// Reboot into the staged image.
    Booted,
    /// A value this version does not know: taken as `Staged`.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// What the agent reports. Every field may be missing: an agent of another version, or the Go
/// daemon, fills in what it knows.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::without_defaults)]
pub struct BootcNodeStatus {
    /// The generation of the spec that this report is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The image that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub booted: Option<ImageInfo>,
    /// The image that is staged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staged: Option<ImageInfo>,
    /// The image that a rollback would boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback: Option<ImageInfo>,
    /// Idle and Degraded by the agent, Waiting by the operator.
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The boot in which this report was made: the kernel's boot id, with +N after N soft reboots.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub boot: Option<String>,
    /// The newest attempt to boot an image, written before the reboot: by it the agent tells
    /// afterwards whether the host was updated or fell back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<LastAttempt>,
    /// Steps of the newest update with their times, for traces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub steps: Vec<Step>,
}

/// One image on the host, as bootc reports it.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::without_defaults)]
pub struct ImageInfo {
    /// The pull specification that the host follows.
    #[schemars(length(max = 1024))]
    pub image: String,
    /// Digest of the manifest that was pulled: with a multi-arch image the platform's own.
    #[schemars(length(max = 128))]
    pub image_digest: String,
    /// Version label of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub version: Option<String>,
    /// When the image was built (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_time")]
    pub timestamp: Option<String>,
    /// CPU architecture of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub architecture: Option<String>,
    /// A soft reboot into it would do.
    pub soft_reboot_capable: bool,
    /// Staged but locked: a reboot does not boot it.
    pub download_only: bool,
    /// Changed on the host in a way that bootc cannot update.
    pub incompatible: bool,
}

impl ImageInfo {
    /// Is this `digest`? Yes if either the image's own digest or the one in its pull
    /// specification is: a multi-arch image is wanted by its index and pulled by its platform.
    #[must_use]
    pub fn matches(&self, digest: &str) -> bool {
        !digest.is_empty()
            && (self.image_digest == digest || digest_of(&self.image) == Some(digest))
    }
}

/// What was tried, as it was just before the reboot.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::without_defaults)]
pub struct LastAttempt {
    /// Digest of the image that was to be booted.
    #[schemars(length(max = 128))]
    pub image_digest: String,
    /// The boot in which the reboot was asked for.
    #[schemars(length(max = 128))]
    pub boot: String,
    /// When, by the host's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_time")]
    pub time: Option<Time>,
    /// The rollback deployment of that moment; unset if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback: Option<DeploymentId>,
    /// The newest `bootc.dev/retry` that was known at that moment: a newer one forgets this attempt,
    /// whatever the clocks say.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_time")]
    pub retry: Option<MicroTime>,
}

/// A deployment on the host's disk.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::without_defaults)]
pub struct DeploymentId {
    /// Checksum of its commit.
    #[schemars(length(max = 128))]
    pub checksum: String,
    /// Its serial among deployments of the same commit.
    #[schemars(range(min = 0))]
    pub serial: i64,
}

/// One step of an update and when it ran.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::without_defaults)]
pub struct Step {
    /// What was done, in the words of the Idle reasons where there is one.
    #[schemars(length(max = 64))]
    pub name: String,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_time")]
    pub start: Option<MicroTime>,
    /// When it ended; unset while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_time")]
    pub end: Option<MicroTime>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn digest(c: char) -> String {
        format!("sha256:{}", c.to_string().repeat(64))
    }

    #[test]
    fn an_image_matches_by_its_own_digest_or_by_its_pullspec() {
        let (index, platform) = (digest('a'), digest('b'));
        let info = ImageInfo {
            image: format!("quay.io/os@{index}"),
            image_digest: platform.clone(),
            ..Default::default()
        };
        assert!(info.matches(&index));
        assert!(info.matches(&platform));
        assert!(!info.matches(&digest('c')));
        assert!(!ImageInfo::default().matches(""));
    }

    #[test]
    fn a_foreign_agents_status_decodes() {
        let status: BootcNodeStatus = serde_json::from_value(json!({
            "booted": { "image": "quay.io/os:1", "imageDigest": digest('a'), "store": "ostree" },
            "conditions": [{
                "type": "Idle", "status": "True", "reason": "Idle", "message": "",
                "lastTransitionTime": "2026-08-01T00:00:00Z",
            }],
            "something": 1,
        }))
        .unwrap();
        assert_eq!(status.conditions.len(), 1);
        assert!(status.booted.unwrap().matches(&digest('a')));
        assert_eq!((status.boot, status.observed_generation), (None, None));
    }

    #[test]
    fn values_of_a_later_version_decode() {
        let spec: BootcNodeSpec = serde_json::from_value(json!({
            "desiredImageState": "Prefetched", "rebootPolicy": "KexecOnly"
        }))
        .unwrap();
        assert_eq!(spec.desired_image_state, DesiredImageState::Unknown);
        assert_eq!(spec.reboot_policy, RebootPolicy::Unknown);
    }
}
