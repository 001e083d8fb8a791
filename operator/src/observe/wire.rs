//! The objects as they come over the wire, cut down to the fields in use: a Node has kilobytes of
//! images and addresses that no decision looks at.
//!
//! The parts of our own kinds are decoded one by one ([`Part`]). A status of a stranger's shape then
//! costs that status and not the object, let alone the stream: a guard around the whole object would
//! lose its spec and annotations as well. A Node has the shape that the API server gives it, and is
//! read without that detour: there are many, and they change often. It comes by way of
//! [`protobuf`](crate::protobuf), which hands on what `node` looks at and no more: another
//! field is to be named there first.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{
    api::core::v1,
    apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time},
};
use kube::{Resource, core::ObjectMeta};
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};

/// A Node.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = "v1::Node")]
pub struct Node {
    /// Name, labels, our annotations and the version.
    #[serde(deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// What is wanted of it.
    #[serde(default)]
    pub spec: NodeSpec,
    /// What the kubelet says.
    #[serde(default)]
    pub status: NodeStatus,
}

/// The part of a Node's spec that is looked at.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct NodeSpec {
    /// Cordoned.
    #[serde(default)]
    pub unschedulable: bool,
}

/// The part of a Node's status that is looked at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Among them Ready.
    #[serde(default)]
    pub conditions: Vec<NodeCondition>,
    /// Which boot this is.
    #[serde(default)]
    pub node_info: NodeInfo,
}

impl NodeStatus {
    /// The condition Ready.
    #[must_use]
    pub fn ready(&self) -> Option<&NodeCondition> {
        let mut all = self.conditions.iter();
        all.find(|condition| condition.r#type == ConditionType::Ready)
    }
}

/// A condition of a Node.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeCondition {
    /// Its name.
    pub r#type: ConditionType,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// When the status last changed.
    #[serde(default)]
    pub last_transition_time: Option<Time>,
}

impl NodeCondition {
    /// Its status is True.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.status == ConditionStatus::True
    }
}

/// The name of a Node's condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(field_identifier)]
pub enum ConditionType {
    /// The one that is looked at.
    Ready,
    /// Any other.
    #[serde(other)]
    Other,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(field_identifier)]
pub enum ConditionStatus {
    /// It does.
    True,
    /// False, or Unknown.
    #[serde(other)]
    Other,
}

/// What the kubelet says about its host.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct NodeInfo {
    /// The kernel's boot id.
    #[serde(default, rename = "bootID")]
    pub boot_id: String,
}

/// A `BootcNode`.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = "crd::BootcNode")]
pub struct BootcNode {
    /// Name, owner, our annotations and the version.
    #[serde(deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// What the agent is told.
    #[serde(default)]
    pub spec: Part<crd::BootcNodeSpec>,
    /// What the agent says.
    #[serde(default)]
    pub status: Part<crd::BootcNodeStatus>,
}

/// A `BootcNodePool`.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = "crd::BootcNodePool")]
pub struct Pool {
    /// Name, finalizers, our annotation and the version.
    #[serde(deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// What people ask for.
    #[serde(default)]
    pub spec: Part<crd::BootcNodePoolSpec>,
    /// The status as it stands.
    #[serde(default)]
    pub status: Part<crd::BootcNodePoolStatus>,
}

/// Metadata as far as anybody looks at them. The `managedFields` of an object are trees of small
/// texts, and to read them would be most of the work of reading it.
fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let meta = Metadata::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: meta.name,
        uid: meta.uid,
        resource_version: meta.resource_version,
        generation: meta.generation,
        deletion_timestamp: meta.deletion_timestamp,
        labels: meta.labels,
        annotations: meta.annotations.map(|ours| ours.0),
        finalizers: meta.finalizers,
        owner_references: meta.owner_references,
        ..ObjectMeta::default()
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<OurAnnotations>,
    finalizers: Option<Vec<String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

/// Annotations with [`PREFIX`](crd::names::PREFIX). Others are passed over while they are read: there
/// are many, and some are long.
struct OurAnnotations(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for OurAnnotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OursOf)
    }
}

/// Reads a map of annotations.
struct OursOf;

impl<'de> Visitor<'de> for OursOf {
    type Value = OurAnnotations;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("annotations")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut ours = BTreeMap::new();
        while let Some(name) = map.next_key_seed(OurName)? {
            match name {
                Some(name) => {
                    ours.insert(name, map.next_value()?);
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(OurAnnotations(ours))
    }
}

/// Reads the name of an annotation, if it is one of ours.
struct OurName;

impl<'de> DeserializeSeed<'de> for OurName {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for OurName {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of an annotation")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(name
            .starts_with(crd::names::PREFIX)
            .then(|| name.to_owned()))
    }
}

/// The condition of a type.
#[must_use]
pub fn condition_of<'a>(conditions: &'a [Condition], name: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == name)
}

/// A part of an object, decoded by itself.
#[derive(Clone, Debug, Default)]
pub enum Part<T> {
    /// It is not there.
    #[default]
    Missing,
    /// It is what it should be.
    Is(T),
    /// It has another shape; why.
    Odd(String),
}

impl<T> Part<T> {
    /// The part where it is there and has the right shape.
    pub fn get(&self) -> Option<&T> {
        match self {
            Self::Is(part) => Some(part),
            Self::Missing | Self::Odd(_) => None,
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Part<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        if value.is_null() {
            return Ok(Self::Missing);
        }
        Ok(match serde_json::from_value(value) {
            Ok(part) => Self::Is(part),
            Err(error) => Self::Odd(error.to_string()),
        })
    }
}

/// An object of one of the three kinds that are watched.
pub trait Watched:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send
{
}

impl Watched for Node {}
impl Watched for BootcNode {}
impl Watched for Pool {}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_part_of_another_shape_leaves_the_rest_readable() {
        let node: BootcNode = serde_json::from_value(json!({
            "metadata": { "name": "w1", "annotations": { "bootc.dev/rollout": "{" } },
            "spec": { "desiredImage": "r/os@sha256:1" },
            "status": { "booted": 5 },
        }))
        .unwrap();
        assert_eq!(node.metadata.name.as_deref(), Some("w1"));
        assert!(node.spec.get().is_some());
        assert!(matches!(node.status, Part::Odd(_)));
    }

    #[test]
    fn only_our_annotations_are_kept() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {
                "name": "w1",
                "annotations": { "bootc.dev/cordoned-by": "p", "other": "x" },
                "managedFields": [{ "manager": "kubelet" }],
            },
        }))
        .unwrap();
        let annotations = node.metadata.annotations.unwrap();
        assert_eq!(
            annotations.keys().collect::<Vec<_>>(),
            ["bootc.dev/cordoned-by"]
        );
        assert_eq!(node.metadata.managed_fields, None);
        assert!(node.status.conditions.is_empty());
    }
}
