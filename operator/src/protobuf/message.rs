//! The messages, with the fields that are read: those that are not named here are skipped by their
//! length. Numbers and names are those of `generated.proto` in k8s.io/api and k8s.io/apimachinery;
//! both are part of the API and do not change.

use std::borrow::Cow;

use k8s_openapi::jiff::Timestamp;
use prost::{Message, bytes::Bytes};
use serde::{Serialize, Serializer, ser::SerializeMap as _};
use tower::BoxError;

/// What every object of its own begins with.
const MAGIC: &[u8] = b"k8s\0";
/// The JSON of a Node has about so many bytes.
const ABOUT: usize = 1024;
/// The one condition of a Node that is read.
const READY: &[u8] = b"Ready";

/// An object with its kind.
#[derive(Clone, PartialEq, Message)]
struct Unknown {
    #[prost(message, required, tag = "1")]
    type_meta: TypeMeta,
    #[prost(bytes = "bytes", tag = "2")]
    raw: Bytes,
}

// Texts of what comes often are left where they are: with a copy of each, most of the time would go
// into allocating them.
#[derive(Clone, PartialEq, Eq, Hash, Message, Serialize)]
#[serde(rename_all = "camelCase")]
struct TypeMeta {
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(serialize_with = "text")]
    api_version: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    #[serde(serialize_with = "text")]
    kind: Bytes,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
struct WatchEvent {
    #[prost(bytes = "bytes", tag = "1")]
    r#type: Bytes,
    #[prost(message, required, tag = "2")]
    object: RawExtension,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
struct RawExtension {
    #[prost(bytes = "bytes", tag = "1")]
    raw: Bytes,
}

#[derive(Clone, PartialEq, Message, Serialize)]
struct NodeList {
    #[prost(message, required, tag = "1")]
    metadata: ListMeta,
    #[prost(message, repeated, tag = "2")]
    items: Vec<Node>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message, Serialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    #[prost(string, tag = "2")]
    resource_version: String,
    #[prost(string, tag = "3")]
    r#continue: String,
    #[prost(int64, optional, tag = "4")]
    remaining_item_count: Option<i64>,
}

#[derive(Clone, PartialEq, Message, Serialize)]
struct Node {
    #[prost(message, required, tag = "1")]
    metadata: ObjectMeta,
    #[prost(message, required, tag = "2")]
    spec: NodeSpec,
    #[prost(message, required, tag = "3")]
    status: NodeStatus,
}

#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectMeta {
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(serialize_with = "text")]
    name: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    #[serde(serialize_with = "text")]
    uid: Bytes,
    #[prost(bytes = "bytes", tag = "6")]
    #[serde(serialize_with = "text")]
    resource_version: Bytes,
    #[prost(message, repeated, tag = "11")]
    #[serde(serialize_with = "map")]
    labels: Vec<Entry>,
    #[prost(message, repeated, tag = "12")]
    #[serde(serialize_with = "map_of_ours")]
    annotations: Vec<Entry>,
}

/// An entry of a map from text to text.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
struct Entry {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, Eq, Hash, Message, Serialize)]
struct NodeSpec {
    #[prost(bool, tag = "4")]
    unschedulable: bool,
}

#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeStatus {
    #[prost(message, repeated, tag = "4")]
    #[serde(serialize_with = "ready")]
    conditions: Vec<NodeCondition>,
    #[prost(message, required, tag = "7")]
    node_info: NodeInfo,
}

#[derive(Clone, PartialEq, Eq, Hash, Message, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeCondition {
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(serialize_with = "text")]
    r#type: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    #[serde(serialize_with = "text")]
    status: Bytes,
    #[prost(message, optional, tag = "4")]
    last_transition_time: Option<Time>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message, Serialize)]
struct NodeInfo {
    #[prost(bytes = "bytes", tag = "3")]
    #[serde(rename = "bootID", serialize_with = "text")]
    boot_id: Bytes,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
struct Time {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

// Whoever may write a Node may write nonsense into it. As in the API server's own JSON that is handed on
// as far as it can be said: an error here would end the watch on all Nodes, again and again.

impl Serialize for Time {
    /// No time is written as one without seconds.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match Timestamp::new(self.seconds, self.nanos) {
            Ok(at) if *self != Self::default() => serializer.collect_str(&at),
            _ => serializer.serialize_none(),
        }
    }
}

fn utf8(bytes: &Bytes) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn text<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&utf8(bytes))
}

fn map<S: Serializer>(entries: &[Entry], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    for entry in entries {
        map.serialize_entry(&utf8(&entry.key), &utf8(&entry.value))?;
    }
    map.end()
}

/// The entries with [`PREFIX`](crd::names::PREFIX).
fn map_of_ours<S: Serializer>(entries: &[Entry], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    for entry in entries {
        if entry.key.starts_with(crd::names::PREFIX.as_bytes()) {
            map.serialize_entry(&utf8(&entry.key), &utf8(&entry.value))?;
        }
    }
    map.end()
}

fn ready<S: Serializer>(all: &[NodeCondition], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(all.iter().filter(|condition| *condition.r#type == *READY))
}

/// What is said instead of an object when a request or a watch fails.
#[derive(Clone, PartialEq, Message, Serialize)]
#[expect(clippy::struct_field_names, reason = "the API's name")]
struct Status {
    #[prost(string, tag = "2")]
    status: String,
    #[prost(string, tag = "3")]
    message: String,
    #[prost(string, tag = "4")]
    reason: String,
    #[prost(message, optional, tag = "5")]
    details: Option<StatusDetails>,
    #[prost(int32, tag = "6")]
    code: i32,
}

#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusDetails {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    group: String,
    #[prost(string, tag = "3")]
    kind: String,
    #[prost(message, repeated, tag = "4")]
    causes: Vec<StatusCause>,
    #[prost(int32, tag = "5")]
    retry_after_seconds: i32,
    #[prost(string, tag = "6")]
    uid: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Message, Serialize)]
struct StatusCause {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(string, tag = "3")]
    field: String,
}

/// An object of any of the kinds that are read.
#[derive(Serialize)]
#[serde(untagged)]
enum Object {
    Node(Node),
    Nodes(NodeList),
    Status(Status),
}

#[derive(Serialize)]
struct WithKind {
    #[serde(flatten)]
    type_meta: TypeMeta,
    #[serde(flatten)]
    object: Object,
}

#[derive(Serialize)]
struct Event {
    #[serde(serialize_with = "text")]
    r#type: Bytes,
    object: WithKind,
}

/// The JSON of an object.
pub(super) fn object(bytes: Bytes) -> Result<Vec<u8>, BoxError> {
    json(&read(bytes)?)
}

/// The JSON of an event of a watch.
pub(super) fn event(bytes: Bytes) -> Result<Vec<u8>, BoxError> {
    let event = WatchEvent::decode(bytes)?;
    json(&Event {
        object: read(event.object.raw)?,
        r#type: event.r#type,
    })
}

fn json(object: &impl Serialize) -> Result<Vec<u8>, BoxError> {
    let mut json = Vec::with_capacity(ABOUT);
    serde_json::to_writer(&mut json, object)?;
    Ok(json)
}

fn read(mut bytes: Bytes) -> Result<WithKind, BoxError> {
    if !bytes.starts_with(MAGIC) {
        return Err("the API server's answer is no object in protobuf".into());
    }
    let Unknown { type_meta, raw } = Unknown::decode(bytes.split_off(MAGIC.len()))?;
    let object = match &*type_meta.kind {
        b"Node" => Object::Node(Node::decode(raw)?),
        b"NodeList" => Object::Nodes(NodeList::decode(raw)?),
        b"Status" => Object::Status(Status::decode(raw)?),
        kind => {
            let kind = String::from_utf8_lossy(kind);
            return Err(format!("the API server answers with a {kind}, not a Node").into());
        }
    };
    Ok(WithKind { type_meta, object })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::observe::wire;

    /// A Node with a field of each kind that is skipped.
    #[derive(Clone, PartialEq, Message)]
    struct WholeNode {
        #[prost(message, required, tag = "1")]
        metadata: ObjectMeta,
        #[prost(message, required, tag = "2")]
        spec: WholeSpec,
        #[prost(message, required, tag = "3")]
        status: WholeStatus,
    }

    #[derive(Clone, PartialEq, Message)]
    struct WholeSpec {
        #[prost(string, tag = "3")]
        provider_id: String,
        #[prost(bool, tag = "4")]
        unschedulable: bool,
    }

    #[derive(Clone, PartialEq, Message)]
    struct WholeStatus {
        #[prost(string, tag = "3")]
        phase: String,
        #[prost(message, repeated, tag = "4")]
        conditions: Vec<NodeCondition>,
        #[prost(message, required, tag = "7")]
        node_info: NodeInfo,
        #[prost(string, repeated, tag = "8")]
        images: Vec<String>,
    }

    fn kind(kind: &'static str, raw: &impl Message) -> Vec<u8> {
        let type_meta = TypeMeta {
            api_version: "v1".into(),
            kind: kind.into(),
        };
        let raw = raw.encode_to_vec().into();
        [MAGIC, &Unknown { type_meta, raw }.encode_to_vec()].concat()
    }

    fn metadata(name: &str) -> ObjectMeta {
        let entry = |key: &'static str, value: &'static str| Entry {
            key: key.into(),
            value: value.into(),
        };
        ObjectMeta {
            name: name.to_owned().into(),
            uid: "u1".into(),
            resource_version: "7".into(),
            labels: vec![entry("role", "worker")],
            annotations: vec![entry("bootc.dev/cordoned-by", "p"), entry("other", "x")],
        }
    }

    fn condition(name: &'static str, status: &'static str) -> NodeCondition {
        NodeCondition {
            r#type: name.into(),
            status: status.into(),
            last_transition_time: Some(Time {
                seconds: 1_767_225_601,
                nanos: 0,
            }),
        }
    }

    /// A Node as the API server sends it.
    pub(in crate::protobuf) fn node(name: &str) -> Vec<u8> {
        let node = WholeNode {
            metadata: metadata(name),
            spec: WholeSpec {
                provider_id: "cloud:///1".into(),
                unschedulable: true,
            },
            status: WholeStatus {
                phase: "Running".into(),
                conditions: vec![
                    condition("DiskPressure", "False"),
                    condition("Ready", "True"),
                ],
                node_info: NodeInfo {
                    boot_id: "b1".into(),
                },
                images: vec!["registry.example.com/os".into(); 50],
            },
        };
        kind("Node", &node)
    }

    /// A page of Nodes.
    pub(in crate::protobuf) fn list(names: &[&str]) -> Vec<u8> {
        let metadata = ListMeta {
            resource_version: "7".into(),
            r#continue: "there".into(),
            remaining_item_count: Some(3),
        };
        let node = |name: &&str| Node {
            metadata: self::metadata(name),
            ..Node::default()
        };
        let items = names.iter().map(node).collect();
        kind("NodeList", &NodeList { metadata, items })
    }

    /// A refusal with this code and reason.
    pub(in crate::protobuf) fn refusal(code: i32, reason: &str) -> Vec<u8> {
        let status = Status {
            status: "Failure".into(),
            message: "its words".into(),
            reason: reason.into(),
            details: Some(StatusDetails {
                retry_after_seconds: 3,
                ..StatusDetails::default()
            }),
            code,
        };
        kind("Status", &status)
    }

    /// An event of a watch.
    pub(in crate::protobuf) fn event(kind: &'static str, object: &[u8]) -> Vec<u8> {
        let raw = Bytes::copy_from_slice(object);
        let event = WatchEvent {
            r#type: kind.into(),
            object: RawExtension { raw },
        };
        event.encode_to_vec()
    }

    /// One bad Node must not keep the others from being read.
    #[test]
    fn what_cannot_be_said_is_handed_on_as_far_as_it_can() {
        let ready = |last_transition_time| NodeCondition {
            last_transition_time,
            ..condition("Ready", "False")
        };
        let never = Time {
            seconds: i64::MAX,
            nanos: 0,
        };
        for time in [None, Some(Time::default()), Some(never)] {
            let bad = Node {
                metadata: ObjectMeta {
                    labels: vec![Entry {
                        key: "role".into(),
                        value: Bytes::from_static(b"w\xff"),
                    }],
                    ..metadata("w1")
                },
                status: NodeStatus {
                    conditions: vec![ready(time)],
                    node_info: NodeInfo {
                        boot_id: Bytes::from_static(b"\xc3"),
                    },
                },
                ..Node::default()
            };
            let json = object(kind("Node", &bad).into()).unwrap();
            let node: wire::Node = serde_json::from_slice(&json).unwrap();
            assert_eq!(node.status.ready().unwrap().last_transition_time, None);
            assert_eq!(node.status.node_info.boot_id, "\u{fffd}");
            assert_eq!(node.metadata.labels.unwrap()["role"], "w\u{fffd}");
        }
    }

    #[test]
    fn all_that_is_read_of_a_node_is_handed_on() {
        let json = object(node("w1").into()).unwrap();
        let node: wire::Node = serde_json::from_slice(&json).unwrap();
        let meta = node.metadata;
        assert_eq!(meta.name.as_deref(), Some("w1"));
        assert_eq!(meta.uid.as_deref(), Some("u1"));
        assert_eq!(meta.resource_version.as_deref(), Some("7"));
        assert_eq!(meta.labels.unwrap()["role"], "worker");
        let annotations = meta.annotations.unwrap();
        assert_eq!(annotations.len(), 1);
        assert_eq!(annotations["bootc.dev/cordoned-by"], "p");
        assert!(node.spec.unschedulable);
        let ready = node.status.ready().unwrap();
        assert!(ready.holds());
        let since = ready.last_transition_time.as_ref().unwrap();
        assert_eq!(since.0.to_string(), "2026-01-01T00:00:01Z");
        assert_eq!(node.status.node_info.boot_id, "b1");
    }
}
