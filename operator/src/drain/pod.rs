//! What a drain needs to know of a pod, and the rules for which pods leave a node.
//!
//! Pure: the wire type holds only the fields in use, [`Pod`] is the plain data made of it, and
//! [`Pod::place`] is the one place that says which pods are evicted and which are left alone.

use std::{fmt, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Pod as FullPod, Toleration},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use kube::{Resource, ResourceExt};
use serde::{Deserialize, de::IgnoredAny};

/// The taint that the cordon puts on a node.
const CORDON_TAINT: &str = "node.kubernetes.io/unschedulable";
/// The kubelet's annotation on the API server's copy of a static pod.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// A pod on the wire, with the fields that a drain reads and no others.
#[derive(Resource, Clone, Debug, Default, Deserialize)]
#[resource(inherit = FullPod)]
pub(super) struct PodView {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: SpecView,
    #[serde(default)]
    status: StatusView,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SpecView {
    tolerations: Vec<Toleration>,
    volumes: Vec<VolumeView>,
    readiness_gates: Vec<IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct VolumeView {
    empty_dir: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct StatusView {
    phase: String,
    conditions: Vec<ConditionView>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ConditionView {
    r#type: String,
    status: String,
}

impl StatusView {
    fn condition(&self, name: &str) -> Option<&str> {
        let found = self.conditions.iter().find(|it| it.r#type == name);
        found.map(|it| it.status.as_str())
    }
}

impl PodView {
    /// A kubelet calls a pod ready as soon as its containers and its readiness gates are: without
    /// gates, only the controller of nodes that no longer report sets the two apart.
    fn is_silenced(&self) -> bool {
        self.spec.readiness_gates.is_empty()
            && self.status.condition("ContainersReady") == Some("True")
            && self.status.condition("Ready") == Some("False")
    }
}

/// A pod's namespace and name, shown as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name; a later pod may have it again.
    pub name: Arc<str>,
}

impl PodName {
    /// The name of the pod `namespace/name`.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What makes a pod the pod that it is: one of the same name with another UID is another pod.
pub(super) type Uid = Arc<str>;

/// A pod on a draining node, as plain data.
#[derive(Clone, Debug, PartialEq)]
// Each flag is a fact of its own, read in one match.
#[allow(clippy::struct_excessive_bools)]
pub(super) struct Pod {
    pub(super) name: PodName,
    pub(super) uid: Uid,
    /// Set by the API server, in whole seconds.
    pub(super) created: Option<Timestamp>,
    /// The UID of the controller that would replace it; a bare pod has none.
    pub(super) controller: Option<Uid>,
    pub(super) daemon: bool,
    pub(super) mirror: bool,
    pub(super) finished: bool,
    pub(super) empty_dir: bool,
    pub(super) tolerates_cordon: bool,
    /// Kubernetes has taken its readiness away, since its node was silent; its containers were ready
    /// when their kubelet last spoke.
    pub(super) silenced: bool,
    pub(super) terminating: Option<Terminating>,
}

/// A pod that has been told to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terminating {
    /// How long it may take to stop, in seconds.
    pub(super) grace: i64,
    pub(super) finalizers: Vec<String>,
}

/// What a drain does with a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It stays: `DaemonSet`, mirror and finished pods, as `kubectl drain` has them.
    Left,
    /// It must be gone before the node is drained.
    Leaves,
    /// It tolerates the cordon and came after it: evicted once, since its replacement may come
    /// back for ever.
    CameBack,
}

impl Pod {
    /// The plain data of a pod; nothing for one without a UID, which no API server sends.
    pub(super) fn read(view: &PodView) -> Option<Self> {
        let meta = &view.metadata;
        let controller = meta
            .owner_references
            .iter()
            .flatten()
            .find(|o| o.controller == Some(true));
        Some(Self {
            name: PodName::new(meta.namespace.as_deref()?, meta.name.as_deref()?),
            uid: meta.uid.as_deref()?.into(),
            created: meta.creation_timestamp.as_ref().map(|time| time.0),
            controller: controller.map(|owner| owner.uid.as_str().into()),
            daemon: controller.is_some_and(|owner| owner.kind == "DaemonSet"),
            mirror: view.annotations().contains_key(MIRROR),
            finished: matches!(view.status.phase.as_str(), "Succeeded" | "Failed"),
            empty_dir: view
                .spec
                .volumes
                .iter()
                .any(|volume| volume.empty_dir.is_some()),
            tolerates_cordon: view.spec.tolerations.iter().any(tolerates_cordon),
            silenced: view.is_silenced(),
            terminating: meta.deletion_timestamp.is_some().then(|| Terminating {
                grace: meta.deletion_grace_period_seconds.unwrap_or(0),
                finalizers: meta.finalizers.clone().unwrap_or_default(),
            }),
        })
    }

    /// What a drain of a node that was cordoned at `cordoned` does with this pod.
    pub(super) fn place(&self, cordoned: Timestamp) -> Place {
        if self.daemon || self.mirror || self.finished {
            Place::Left
        } else if self.tolerates_cordon && self.came_after(cordoned) {
            Place::CameBack
        } else {
            Place::Leaves
        }
    }

    /// A pod of the cordon's own second counts as a later one: its creation has whole seconds.
    fn came_after(&self, cordoned: Timestamp) -> bool {
        self.created
            .is_some_and(|created| created.as_second() >= cordoned.as_second())
    }

    /// Pods that replace one another: those of one controller, or the pod alone.
    pub(super) fn family(&self) -> &Uid {
        self.controller.as_ref().unwrap_or(&self.uid)
    }
}

/// Whether a toleration matches the cordon's taint, whose value is empty.
fn tolerates_cordon(toleration: &Toleration) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (key, operator) = (text(&toleration.key), text(&toleration.operator));
    let key_fits = key == CORDON_TAINT || (key.is_empty() && operator == "Exists");
    let effect_fits = matches!(text(&toleration.effect).as_str(), "" | "NoSchedule");
    let value_fits = match operator.as_str() {
        "Exists" => true,
        "" | "Equal" => text(&toleration.value).is_empty(),
        _ => false,
    };
    key_fits && effect_fits && value_fits
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::{Value, json};

    pub(crate) const CORDONED: &str = "2026-01-01T12:00:00.7Z";

    /// A pod of a `ReplicaSet`, from before the cordon, with `change` merged over it.
    pub(crate) fn pod(name: &str, change: Value) -> Pod {
        let mut whole = json!({
            "metadata": {
                "namespace": "shop", "name": name, "uid": format!("uid-{name}"),
                "creationTimestamp": "2026-01-01T11:00:00Z",
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web",
                                     "uid": "uid-web", "controller": true}],
            },
            "spec": {"nodeName": "w1", "containers": []},
            "status": {"phase": "Running"},
        });
        merge(&mut whole, change);
        Pod::read(&serde_json::from_value(whole).unwrap()).unwrap()
    }

    fn merge(into: &mut Value, from: Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                for (key, value) in from {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, from) => *into = from,
        }
    }

    fn owner(kind: &str, controller: bool) -> Value {
        json!({"metadata": {"ownerReferences": [
            {"apiVersion": "v1", "kind": kind, "name": "o", "uid": "o", "controller": controller}]}})
    }

    fn late(tolerations: &Value) -> Value {
        json!({"metadata": {"creationTimestamp": "2026-01-01T12:00:00Z"},
               "spec": {"tolerations": tolerations}})
    }

    #[test]
    fn which_pods_leave_a_node() {
        let exists = json!([{"operator": "Exists"}]);
        let keyed = json!([{"key": CORDON_TAINT, "operator": "Exists", "effect": "NoSchedule"}]);
        let equal = json!([{"key": CORDON_TAINT, "value": ""}]);
        let no_execute = json!([{"operator": "Exists", "effect": "NoExecute"}]);
        let valued = json!([{"key": CORDON_TAINT, "value": "yes"}]);
        let greater = json!([{"key": CORDON_TAINT, "operator": "Gt", "value": "3"}]);
        let foreign = json!([{"key": "dedicated", "operator": "Exists"}]);
        let rows = [
            ("an ordinary pod", json!({}), Place::Leaves),
            ("a DaemonSet's pod", owner("DaemonSet", true), Place::Left),
            (
                "one that a DaemonSet owns but does not control",
                owner("DaemonSet", false),
                Place::Leaves,
            ),
            (
                "a node's static pod",
                json!({"metadata": {"annotations": {MIRROR: "h"}}}),
                Place::Left,
            ),
            (
                "succeeded",
                json!({"status": {"phase": "Succeeded"}}),
                Place::Left,
            ),
            (
                "failed",
                json!({"status": {"phase": "Failed"}}),
                Place::Left,
            ),
            (
                "unknown phase",
                json!({"status": {"phase": "Unknown"}}),
                Place::Leaves,
            ),
            (
                "no status yet",
                json!({"status": {"phase": ""}}),
                Place::Leaves,
            ),
            (
                "bare",
                json!({"metadata": {"ownerReferences": null}}),
                Place::Leaves,
            ),
            (
                "emptyDir",
                json!({"spec": {"volumes": [{"name": "d", "emptyDir": {}}]}}),
                Place::Leaves,
            ),
            (
                "tolerant, from before",
                json!({"spec": {"tolerations": exists}}),
                Place::Leaves,
            ),
            ("tolerant of all, late", late(&exists), Place::CameBack),
            ("tolerant by key, late", late(&keyed), Place::CameBack),
            (
                "tolerant by empty value, late",
                late(&equal),
                Place::CameBack,
            ),
            (
                "tolerant of NoExecute, late",
                late(&no_execute),
                Place::Leaves,
            ),
            (
                "tolerant of another value, late",
                late(&valued),
                Place::Leaves,
            ),
            (
                "tolerant by another operator, late",
                late(&greater),
                Place::Leaves,
            ),
            (
                "tolerant of another taint, late",
                late(&foreign),
                Place::Leaves,
            ),
            ("late, not tolerant", late(&json!([])), Place::Leaves),
        ];
        let cordoned = CORDONED.parse().unwrap();
        for (what, change, wanted) in rows {
            assert_eq!(pod("a", change).place(cordoned), wanted, "{what}");
        }
    }

    #[test]
    fn a_terminating_pod_says_how_long_it_may_take() {
        let going = pod(
            "a",
            json!({"metadata": {"deletionTimestamp": "2026-01-01T12:01:00Z",
                    "deletionGracePeriodSeconds": 45, "finalizers": ["x.io/f"]}}),
        );
        let wanted = Terminating {
            grace: 45,
            finalizers: vec!["x.io/f".to_owned()],
        };
        assert_eq!(going.terminating, Some(wanted));
        assert_eq!(pod("a", json!({})).terminating, None);
    }

    #[test]
    fn a_pod_of_a_silent_node_is_told_from_one_that_is_not_ready() {
        let status = |ready, containers| {
            json!({"status": {"conditions": [
                {"type": "Ready", "status": ready}, {"type": "ContainersReady", "status": containers}]}})
        };
        assert!(pod("a", status("False", "True")).silenced);
        assert!(!pod("a", status("True", "True")).silenced);
        assert!(!pod("a", status("False", "False")).silenced);
        assert!(!pod("a", json!({})).silenced);
        let mut gated = status("False", "True");
        gated["spec"] = json!({"readinessGates": [{"conditionType": "example.com/lb"}]});
        assert!(!pod("a", gated).silenced);
    }

    #[test]
    fn an_empty_dir_of_any_shape_is_seen() {
        for value in [json!({}), json!({"medium": "Memory", "sizeLimit": "1Gi"})] {
            let spec =
                json!({"spec": {"volumes": [{"name": "c", "configMap": {}}, {"emptyDir": value}]}});
            assert!(pod("a", spec).empty_dir);
        }
        let other = json!({"spec": {"volumes": [{"name": "c", "hostPath": {"path": "/"}}]}});
        assert!(!pod("a", other).empty_dir);
    }
}
