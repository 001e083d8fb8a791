//! `BootcNodePool`: which nodes, which image, how carefully. Written by people.
// Each printcolumn repeats its keys; clippy takes them for doubled attributes.
#![allow(clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::{
    apis::meta::v1::{Condition, LabelSelector, Time},
    util::intstr::IntOrString,
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// What people ask for.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "node.bootc.dev",
    version = "v1alpha1",
    kind = "BootcNodePool",
    plural = "bootcnodepools",
    shortname = "bnp",
    doc = "A set of nodes that run one bootc image; a new image is rolled out over them.",
    status = "BootcNodePoolStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(
        name = "Image-Digest",
        type_ = "string",
        json_path = ".status.targetDigest"
    ),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodeCount"),
    printcolumn(
        name = "Updated",
        type_ = "integer",
        json_path = ".status.updatedCount"
    ),
    printcolumn(
        name = "Updating",
        type_ = "integer",
        json_path = ".status.updatingCount"
    ),
    printcolumn(
        name = "Degraded",
        type_ = "integer",
        json_path = ".status.degradedCount"
    ),
    printcolumn(
        name = "Up-To-Date",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="UpToDate")].status"#
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct BootcNodePoolSpec {
    /// The nodes of this pool. Never empty. A node that two pools select is updated by neither.
    #[schemars(schema_with = "schema::node_selector")]
    pub node_selector: LabelSelector,
    /// The image that every node of the pool shall run.
    pub image: PoolImage,
    /// How the image reaches the nodes.
    #[serde(default)]
    pub rollout: Rollout,
    /// How much a node may be disturbed.
    #[serde(default)]
    pub disruption: Disruption,
    /// Secret (type kubernetes.io/dockerconfigjson) for the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secret_ref: Option<SecretRef>,
}

/// The wanted image.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolImage {
    /// Fully qualified: host/repository:tag, host/repository@sha256:…, or both, where the digest wins.
    #[serde(rename = "ref")]
    #[schemars(schema_with = "schema::image_ref")]
    pub reference: String,
}

/// How the image reaches the nodes.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// How many nodes may be down for the update at once: a count, or a percentage of the pool's
    /// nodes (rounded up). 0 starts no reboot at all.
    #[serde(default = "one")]
    #[schemars(schema_with = "schema::amount")]
    pub max_unavailable: IntOrString,
    /// Staging goes on, but no further node is drained or rebooted.
    #[serde(default)]
    pub paused: bool,
    /// How long a drain may take before the node is uncordoned and tried again later.
    /// Unset or 0: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub drain_timeout_seconds: Option<i64>,
    /// How long a reboot may take before the node counts as degraded. Unset: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub reboot_timeout_seconds: Option<i64>,
    /// How many nodes may pull and stage the image at once: a count or a percentage. Unset: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_amount_from_one")]
    pub max_concurrent_staging: Option<IntOrString>,
    /// How long a rebooted node must be Ready before the next one may go down.
    #[serde(default)]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub min_ready_seconds: i64,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            max_unavailable: one(),
            paused: false,
            drain_timeout_seconds: None,
            reboot_timeout_seconds: None,
            max_concurrent_staging: None,
            min_ready_seconds: 0,
        }
    }
}

fn one() -> IntOrString {
    IntOrString::Int(1)
}

/// How much a node may be disturbed.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disruption {
    /// Whether a soft reboot, which keeps the kernel running, will do where the image allows it.
    #[serde(default)]
    pub reboot_policy: RebootPolicy,
}

/// Which kinds of reboot may apply an image.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RebootPolicy {
    /// Full reboots only.
    #[default]
    RebootOnly,
    /// A soft reboot where the host and the image can do it.
    AllowSoftReboot,
    /// A value this version does not know: taken as `RebootOnly`.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// A Secret by name and namespace.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace; rights are granted in the operator's own.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
}

/// What the operator sees; only it writes here.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = schema::without_defaults)]
pub struct BootcNodePoolStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The digest that the nodes shall run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_digest")]
    pub target_digest: Option<String>,
    /// The digest that every node ran when last all were updated.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_digest")]
    pub deployed_digest: Option<String>,
    /// The target is not the deployed digest.
    pub update_available: bool,
    /// When the tag is resolved again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_time")]
    pub next_tag_resolution_time: Option<Time>,
    /// Nodes of the pool.
    #[schemars(range(min = 0))]
    pub node_count: i64,
    /// Nodes that run the target, hold no slot and are not degraded.
    #[schemars(range(min = 0))]
    pub updated_count: i64,
    /// Nodes on their way, from staging to verifying.
    #[schemars(range(min = 0))]
    pub updating_count: i64,
    /// Nodes that are degraded.
    #[schemars(range(min = 0))]
    pub degraded_count: i64,
    /// `UpToDate` and Degraded.
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
