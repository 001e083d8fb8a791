//! What the API server refuses by itself: rules (CEL), limits, and hand-written schemas for
//! Kubernetes' own types where their stock schema lets too much through.
//!
//! Messages are for the person at `kubectl apply`: a CEL rule with a sentence is used where a
//! `pattern` would answer with a regular expression.

use schemars::{Schema, SchemaGenerator, json_schema};

use crate::image::MAX_REF_LENGTH;

const IMAGE_REF: &str = concat!(
    r"^(?:(?:",
    r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)+",
    r"|localhost|\[[a-fA-F0-9:]+\])(?::[0-9]{1,5})?",
    r"|[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?:[0-9]{1,5})",
    r"(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)+",
    r"(?::[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}(?:@sha256:[a-f0-9]{64})?|@sha256:[a-f0-9]{64})$",
);
const PINNED_IMAGE: &str = "^[^/@ ]+/[^@ ]+@sha256:[a-f0-9]{64}$";
const SELECTS_SOMETHING: &str = "(has(self.matchLabels) && self.matchLabels.size() > 0) || \
    (has(self.matchExpressions) && self.matchExpressions.size() > 0)";
const LABEL_VALUE: &str = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
/// A label key: an optional DNS name and `/`, then at most 63 characters.
const LABEL_KEY: &str =
    r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$";
/// 253 of the prefix, the slash, 63 of the name.
const LABEL_KEY_LENGTH: u32 = 317;

/// `image.ref`: fully qualified, with a tag, a digest or both. The same rules as
/// [`crate::ImageRef`]'s parser; a test runs both on one table.
#[must_use]
pub fn image_ref(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": MAX_REF_LENGTH,
        "x-kubernetes-validations": [{
            "rule": format!("self.matches(r'{IMAGE_REF}')"),
            "message": "must be a fully qualified image: host/repository:tag, \
                        host/repository@sha256:<64 hex digits>, or both",
        }],
    })
}

/// A desired image, always by digest; may be left out.
#[must_use]
pub fn optional_pinned_image(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "nullable": true,
        "maxLength": MAX_REF_LENGTH,
        "x-kubernetes-validations": [{
            "rule": format!("self.matches(r'{PINNED_IMAGE}')"),
            "message": "must be an image by digest: host/repository@sha256:<64 hex digits>",
        }],
    })
}

/// A digest that may be left out.
#[must_use]
pub fn optional_digest(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "nullable": true,
        "maxLength": 71,
        "pattern": "^sha256:[a-f0-9]{64}$",
    })
}

/// Takes the defaults out of a status: a missing field says that its writer does not know it, and
/// the API server must not fill it in.
pub fn without_defaults(schema: &mut Schema) {
    let properties = schema.get_mut("properties").and_then(|p| p.as_object_mut());
    for property in properties.into_iter().flat_map(serde_json::Map::values_mut) {
        if let Some(property) = property.as_object_mut() {
            property.remove("default");
        }
    }
}

/// `metav1.LabelSelector` as a pool takes it: never empty (it would select the control plane too),
/// known operators, well-formed keys and values. The stock schema has none of this.
#[must_use]
pub fn node_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": {
                "description": "Labels that a node must have, with these values.",
                "type": "object",
                "maxProperties": 32,
                "additionalProperties": label_value(),
                "x-kubernetes-validations": [{
                    "rule": format!("self.all(key, key.size() <= {LABEL_KEY_LENGTH} && key.matches(r'{LABEL_KEY}'))"),
                    "message": "every key must be a label key: [prefix/]name, letters, digits, '-', '_' and '.'",
                }],
            },
            "matchExpressions": {
                "description": "What must hold of a node's labels; all of it.",
                "type": "array",
                "maxItems": 32,
                "x-kubernetes-list-type": "atomic",
                "items": requirement(),
            },
        },
        "x-kubernetes-validations": [{
            "rule": SELECTS_SOMETHING,
            "message": "must not be empty: an empty selector would take every node, the control plane too",
        }],
    })
}

fn label_value() -> Schema {
    json_schema!({ "type": "string", "maxLength": 63, "pattern": LABEL_VALUE })
}

fn requirement() -> Schema {
    json_schema!({
        "type": "object",
        "required": ["key", "operator"],
        "properties": {
            "key": {
                "description": "The label that it is about.",
                "type": "string",
                "maxLength": LABEL_KEY_LENGTH,
                "pattern": LABEL_KEY,
            },
            "operator": {
                "description": "What must hold of it.",
                "type": "string",
                "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
            },
            "values": {
                "description": "The values that In and NotIn compare with.",
                "type": "array",
                "maxItems": 256,
                "x-kubernetes-list-type": "atomic",
                "items": label_value(),
            },
        },
        "x-kubernetes-validations": [{
            "rule": "self.operator in ['In', 'NotIn'] ? has(self.values) && self.values.size() > 0 \
                     : !has(self.values) || self.values.size() == 0",
            "message": "In and NotIn need values; Exists and DoesNotExist take none",
        }],
    })
}

/// A count of nodes from 0, or `"0%"` to `"100%"`.
#[must_use]
pub fn amount(_: &mut SchemaGenerator) -> Schema {
    amount_from(0, "^(100|[1-9]?[0-9])%$")
}

/// A count of nodes from 1, or `"1%"` to `"100%"`; may be left out.
#[must_use]
pub fn optional_amount_from_one(_: &mut SchemaGenerator) -> Schema {
    let mut schema = amount_from(1, "^(100|[1-9][0-9]?)%$");
    schema.insert("nullable".into(), true.into());
    schema
}

fn amount_from(least: u32, percent: &str) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        // Said outright: kube marks every optional int-or-string as nullable, and null is no amount.
        "nullable": false,
        "maxLength": 16,
        "x-kubernetes-validations": [{
            "rule": format!(
                "type(self) == int ? self >= {least} && self <= {} : self.matches(r'{percent}')",
                i32::MAX
            ),
            "message": format!("must be a count of nodes from {least}, or a percentage from \"{least}%\" to \"100%\""),
        }],
    })
}

/// Conditions, merged by type, with `metav1.Condition`'s own limits.
#[must_use]
pub fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": {
                    "type": "string",
                    "maxLength": 316,
                    "pattern": "^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                "reason": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "message": { "type": "string", "maxLength": 32768 },
                "lastTransitionTime": { "type": "string", "format": "date-time" },
                "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0 },
            },
        },
    })
}

/// A time (RFC 3339) that may be left out.
#[must_use]
pub fn optional_time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time", "nullable": true })
}
