//! The tables: one object a rule that must be refused, and objects at the edge that must not.
//! A row is a line, so the tables are kept from the formatter.

use serde_json::{Value, json};

use super::{DIGEST, Refused, with};

#[rustfmt::skip]
pub(super) fn pool_specs() -> Vec<Refused> {
    let mut rows = selectors();
    rows.extend(rollouts());
    rows.extend([
        Refused("no_image", "/spec/image", Value::Null, "spec.image: Required value"),
        Refused("no_ref", "/spec/image", json!({}), "spec.image.ref: Required value"),
        Refused("empty_ref", "/spec/image/ref", json!(""), "fully qualified image"),
        Refused("short_ref", "/spec/image/ref", json!("os:1"), "fully qualified image"),
        Refused("ref_without_version", "/spec/image/ref", json!("quay.io/os"), "fully qualified image"),
        Refused("malformed_digest", "/spec/image/ref", json!("quay.io/os@sha256:12"), "fully qualified image"),
        Refused("endless_ref", "/spec/image/ref", json!(format!("quay.io/{}:1", "a".repeat(512))), "may not be more than 512"),
        Refused("unknown_reboot_policy", "/spec/disruption", json!({ "rebootPolicy": "Never" }), "supported values: \"RebootOnly\", \"AllowSoftReboot\""),
        Refused("secret_without_namespace", "/spec/pullSecretRef", json!({ "name": "a" }), "pullSecretRef.namespace: Required value"),
        Refused("secret_without_name", "/spec/pullSecretRef", json!({ "namespace": "a" }), "pullSecretRef.name: Required value"),
        Refused("secret_with_empty_name", "/spec/pullSecretRef", json!({ "name": "", "namespace": "a" }), "should be at least 1 chars long"),
    ]);
    rows
}

#[rustfmt::skip]
fn selectors() -> Vec<Refused> {
    const EMPTY: &str = "an empty selector would take every node";
    let at = "/spec/nodeSelector";
    let labels = "/spec/nodeSelector/matchLabels";
    let expression = |value: Value| json!({ "matchExpressions": [value] });
    vec![
        Refused("no_selector", at, Value::Null, "spec.nodeSelector: Required value"),
        Refused("empty_selector", at, json!({}), EMPTY),
        Refused("empty_labels", at, json!({ "matchLabels": {} }), EMPTY),
        Refused("empty_expressions", at, json!({ "matchExpressions": [] }), EMPTY),
        Refused("unknown_operator", at, expression(json!({ "key": "a", "operator": "Near" })), "Unsupported value: \"Near\""),
        Refused("expression_without_key", at, expression(json!({ "operator": "Exists" })), "key: Required value"),
        Refused("in_without_values", at, expression(json!({ "key": "a", "operator": "In" })), "In and NotIn need values"),
        Refused("in_with_no_values", at, expression(json!({ "key": "a", "operator": "NotIn", "values": [] })), "In and NotIn need values"),
        Refused("exists_with_values", at, expression(json!({ "key": "a", "operator": "Exists", "values": ["b"] })), "Exists and DoesNotExist take none"),
        Refused("bad_expression_key", at, expression(json!({ "key": "bad key!", "operator": "Exists" })), "key in body should match"),
        Refused("bad_expression_value", at, expression(json!({ "key": "a", "operator": "In", "values": ["b c"] })), "should match"),
        Refused("bad_label_key", labels, json!({ "bad key!": "a" }), "every key must be a label key"),
        Refused("empty_label_key", labels, json!({ "": "a" }), "every key must be a label key"),
        Refused("long_label_key", labels, json!({ "a".repeat(64): "a" }), "every key must be a label key"),
        Refused("long_label_prefix", labels, json!({ format!("{}/a", "a".repeat(254)): "a" }), "every key must be a label key"),
        Refused("bad_label_value", labels, json!({ "a": "b c" }), "should match"),
        Refused("long_label_value", labels, json!({ "a": "b".repeat(64) }), "may not be more than 63"),
        Refused("too_many_labels", labels, labels_of(33), "must have at most 32 items"),
    ]
}

#[rustfmt::skip]
fn rollouts() -> Vec<Refused> {
    const UNAVAILABLE: &str = "a count of nodes from 0, or a percentage";
    const STAGING: &str = "a count of nodes from 1, or a percentage";
    let field = |name: &str, value: Value| json!({ name: value });
    let unavailable = |value: Value| field("maxUnavailable", value);
    let staging = |value: Value| field("maxConcurrentStaging", value);
    let at = "/spec/rollout";
    vec![
        Refused("unavailable_negative", at, unavailable(json!(-1)), UNAVAILABLE),
        Refused("unavailable_beyond_int32", at, unavailable(json!(2_147_483_648_u32)), UNAVAILABLE),
        Refused("unavailable_over_all", at, unavailable(json!("101%")), UNAVAILABLE),
        Refused("unavailable_negative_percent", at, unavailable(json!("-5%")), UNAVAILABLE),
        Refused("unavailable_number_as_string", at, unavailable(json!("5")), UNAVAILABLE),
        Refused("unavailable_empty", at, unavailable(json!("")), UNAVAILABLE),
        Refused("unavailable_words", at, unavailable(json!("half")), UNAVAILABLE),
        Refused("unavailable_fraction", at, unavailable(json!(1.5)), "must be of type"),
        Refused("unavailable_bool", at, unavailable(json!(true)), "must be of type"),
        Refused("staging_zero", at, staging(json!(0)), STAGING),
        Refused("staging_zero_percent", at, staging(json!("0%")), STAGING),
        Refused("staging_over_all", at, staging(json!("101%")), STAGING),
        Refused("paused_as_string", at, field("paused", json!("yes")), "must be of type boolean"),
        Refused("drain_timeout_negative", at, field("drainTimeoutSeconds", json!(-1)), "greater than or equal to 0"),
        Refused("drain_timeout_as_string", at, field("drainTimeoutSeconds", json!("5m")), "must be of type integer"),
        Refused("reboot_timeout_zero", at, field("rebootTimeoutSeconds", json!(0)), "greater than or equal to 1"),
        Refused("min_ready_negative", at, field("minReadySeconds", json!(-1)), "greater than or equal to 0"),
    ]
}

#[rustfmt::skip]
pub(super) fn node_specs() -> Vec<Refused> {
    const PINNED: &str = "an image by digest";
    let image = "/spec/desiredImage";
    vec![
        Refused("image_by_tag", image, json!("quay.io/os:1"), PINNED),
        Refused("image_by_short_digest", image, json!("quay.io/os@sha256:12"), PINNED),
        Refused("image_without_host", image, json!(format!("os@{DIGEST}")), PINNED),
        Refused("image_empty", image, json!(""), PINNED),
        Refused("unknown_state", "/spec/desiredImageState", json!("Later"), "supported values: \"Staged\", \"Booted\""),
        Refused("unknown_reboot_policy", "/spec/rebootPolicy", json!("Never"), "supported values: \"RebootOnly\", \"AllowSoftReboot\""),
        Refused("approval_for_no_boot", "/spec/approvedBoot", json!(""), "should be at least 1 chars long"),
        Refused("endless_boot", "/spec/approvedBoot", json!("a".repeat(129)), "may not be more than 128"),
        Refused("endless_hash", "/spec/pullSecretHash", json!("a".repeat(129)), "may not be more than 128"),
        Refused("secret_without_namespace", "/spec/pullSecretRef", json!({ "name": "a" }), "pullSecretRef.namespace: Required value"),
    ]
}

fn condition(type_: &str) -> Value {
    json!({
        "type": type_, "status": "True", "reason": "Testing", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

#[rustfmt::skip]
fn conditions() -> Vec<Refused> {
    let at = "/status/conditions";
    let one = |field: &str, value: Value| json!([with(condition("Idle"), field, value)]);
    let many = (0..17).map(|n| condition(&format!("C{n}")));
    vec![
        Refused("condition_twice", at, json!([condition("Idle"), condition("Idle")]), "Duplicate value"),
        Refused("condition_unknown_status", at, one("/status", json!("Maybe")), "Unsupported value: \"Maybe\""),
        Refused("condition_without_reason", at, one("/reason", Value::Null), "reason: Required value"),
        Refused("condition_bad_reason", at, one("/reason", json!("two words")), "reason in body should match"),
        Refused("condition_without_time", at, one("/lastTransitionTime", Value::Null), "lastTransitionTime: Required value"),
        Refused("condition_endless_message", at, one("/message", json!("a".repeat(32769))), "may not be more than 32768"),
        Refused("too_many_conditions", at, many.collect(), "must have at most 16 items"),
    ]
}

#[rustfmt::skip]
pub(super) fn pool_statuses() -> Vec<Refused> {
    let mut rows = conditions();
    rows.extend([
        Refused("malformed_target", "/status/targetDigest", json!("sha256:12"), "should match"),
        Refused("malformed_deployed", "/status/deployedDigest", json!("latest"), "should match"),
        Refused("negative_count", "/status/nodeCount", json!(-1), "greater than or equal to 0"),
        Refused("no_time", "/status/nextTagResolutionTime", json!("soon"), "must be of type date-time"),
    ]);
    rows
}

#[rustfmt::skip]
pub(super) fn node_statuses() -> Vec<Refused> {
    let steps = vec![json!({ "name": "Staging" }); 33];
    let mut rows = conditions();
    rows.extend([
        Refused("endless_image", "/status/booted", json!({ "image": "a".repeat(1025) }), "may not be more than 1024"),
        Refused("no_timestamp", "/status/staged", json!({ "timestamp": "yesterday" }), "must be of type date-time"),
        Refused("endless_boot", "/status/boot", json!("a".repeat(129)), "may not be more than 128"),
        Refused("too_many_steps", "/status/steps", json!(steps), "must have at most 32 items"),
        Refused("negative_serial", "/status/lastAttempt", json!({ "rollback": { "serial": -1 } }), "greater than or equal to 0"),
    ]);
    rows
}

fn labels_of(count: usize) -> Value {
    let label = |n: usize| (format!("bootc.dev/{n}"), json!("x".repeat(63)));
    Value::Object((0..count).map(label).collect())
}

#[rustfmt::skip]
pub(super) fn legal_pools() -> Vec<(&'static str, &'static str, Value)> {
    let rollout = |field: &str, value: Value| json!({ field: value });
    let longest_key = format!("{}/{}", "a".repeat(253), "A".repeat(63));
    let values = vec!["v".repeat(63); 256];
    let expression = json!({ "key": longest_key, "operator": "NotIn", "values": values });
    vec![
        ("smallest", "/metadata/name", json!("smallest")),
        ("unavailable_none", "/spec/rollout", rollout("maxUnavailable", json!(0))),
        ("unavailable_no_percent", "/spec/rollout", rollout("maxUnavailable", json!("0%"))),
        ("unavailable_all", "/spec/rollout", rollout("maxUnavailable", json!("100%"))),
        ("unavailable_most", "/spec/rollout", rollout("maxUnavailable", json!(i32::MAX))),
        ("drain_for_ever", "/spec/rollout", rollout("drainTimeoutSeconds", json!(0))),
        ("rollout_null", "/spec/rollout", Value::Null),
        ("expressions_only", "/spec/nodeSelector", json!({ "matchExpressions": [{ "key": "a", "operator": "DoesNotExist" }] })),
        ("empty_label_value", "/spec/nodeSelector", json!({ "matchLabels": { "a": "" } })),
        ("longest_label_key", "/spec/nodeSelector", json!({ "matchLabels": { longest_key.clone(): "" } })),
        ("every_label", "/spec/nodeSelector", json!({ "matchLabels": labels_of(32) })),
        ("every_expression", "/spec/nodeSelector", json!({ "matchExpressions": vec![expression; 32] })),
        ("tag_and_digest", "/spec/image/ref", json!(format!("quay.io/os:1@{DIGEST}"))),
    ]
}

#[rustfmt::skip]
pub(super) fn legal_nodes() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        ("smallest", "/spec", json!({})),
        ("pinned", "/spec", json!({ "desiredImage": format!("10.88.0.2:5000/os@{DIGEST}") })),
        ("soft_boot", "/spec", json!({ "approvedBoot": "8d3f0e5c-91d5-4b6d-8f4e-0c1f6a7f5d11+3" })),
    ]
}

#[rustfmt::skip]
pub(super) fn references() -> Vec<String> {
    let names = [
        "",
        "os",
        "org/os",
        "quay.io/os",
        "quay.io:443/os",
        "registry:5000/a/b/c",
        "registry/os",
        "localhost/os",
        "localhost:5000/os",
        "10.88.0.2:5000/os",
        "[::1]:5000/os",
        "[::1]/os",
        "[]/os",
        "[::1]:/os",
        "quay.io:/os",
        "quay.io:123456/os",
        "-quay.io/os",
        "quay-.io/os",
        "quay..io/os",
        "Quay.IO/os",
        "quay.io/Os",
        "quay.io/a//b",
        "quay.io/",
        "quay.io/a_b",
        "quay.io/a__b",
        "quay.io/a___b",
        "quay.io/a--b",
        "quay.io/a.-b",
        "quay.io/a..b",
        "quay.io/-a",
        "quay.io/a-",
        "https://quay.io/os",
        "quay.io/os os",
        "quay.io/os\n",
        "quay.io/ös",
        "user@quay.io/os",
    ];
    let versions = [
        String::new(),
        ":".into(),
        ":1".into(),
        ":V_1.x-y".into(),
        ":-1".into(),
        ":.1".into(),
        ":1:2".into(),
        format!(":{}", "a".repeat(128)),
        format!(":{}", "a".repeat(129)),
        format!("@{DIGEST}"),
        format!(":1@{DIGEST}"),
        format!(":@{DIGEST}"),
        format!("@{}", DIGEST.to_uppercase()),
        format!("@{DIGEST}0"),
        format!("@{DIGEST}@{DIGEST}"),
        "@".into(),
        "@sha256:".into(),
        "@sha512:12".into(),
        ":1\n".into(),
    ];
    let all = names.iter().flat_map(|name| {
        versions
            .iter()
            .map(move |version| format!("{name}{version}"))
    });
    all.collect()
}
