//! What is stored comes back: the CRDs are established, every field makes the round trip.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use api_tests::Suite;
use crd::{BootcNode, BootcNodePool, BootcNodePoolSpec, PoolImage, Rollout};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};
use kube::{
    Api, CustomResourceExt, Resource, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use libtest_mimic::Trial;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial("stored::crds_are_established", crds_are_established),
        suite.trial("stored::pool_makes_the_round_trip", |suite| async move {
            round_trip::<BootcNodePool>(&Api::all(suite.admin.clone()), full_pool()).await
        }),
        suite.trial("stored::node_makes_the_round_trip", |suite| async move {
            round_trip::<BootcNode>(&Api::all(suite.breaker.clone()), full_node()).await
        }),
        suite.trial("stored::a_pool_gets_its_defaults", a_pool_gets_its_defaults),
        suite.trial(
            "stored::a_status_gets_no_defaults",
            a_status_gets_no_defaults,
        ),
        suite.trial("stored::columns_are_printed", columns_are_printed),
        suite.trial("stored::sides_apply_their_own_conditions", own_conditions),
    ]
}

async fn crds_are_established(suite: Arc<Suite>) -> Result<()> {
    let crds = Api::<CustomResourceDefinition>::all(suite.admin.clone());
    for (name, short) in [("bootcnodepools", "bnp"), ("bootcnodes", "bn")] {
        let crd = crds.get(&format!("{name}.node.bootc.dev")).await?;
        let status = crd.status.context("no status")?;
        for wanted in ["Established", "NamesAccepted"] {
            let conditions = status.conditions.iter().flatten();
            let mut held = conditions.filter(|c| c.type_ == wanted && c.status == "True");
            ensure!(held.next().is_some(), "{name} is not {wanted}");
        }
        // A complaint of the API server about the schema would be a condition of its own.
        let complaints = status.conditions.iter().flatten();
        let mut complaints = complaints.filter(|c| c.type_ == "NonStructuralSchema");
        ensure!(
            complaints.next().is_none(),
            "{name} has no structural schema"
        );
        ensure!(crd.spec.scope == "Cluster");
        suite.kubectl(&["get", short]).await?;
    }
    Ok(())
}

/// Creates the object, writes its status, and wants both back as they were; fails as well if the
/// object leaves out a field that the schema has.
async fn round_trip<K>(api: &Api<K>, object: Value) -> Result<()>
where
    K: Resource<DynamicType = ()>
        + CustomResourceExt
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    every_field_is_there(&K::crd(), &object)?;
    let typed: K = serde_json::from_value(object.clone())?;
    api.create(&PostParams::default(), &typed).await?;
    let name = typed.name_any();
    let patch = Patch::Merge(json!({ "status": object.get("status") }));
    api.patch_status(&name, &PatchParams::default(), &patch)
        .await?;
    let stored = api.get(&name).await?;
    api.delete(&name, &DeleteParams::default()).await?;
    let stored = serde_json::to_value(stored)?;
    for part in ["spec", "status"] {
        let (sent, got) = (object.get(part), stored.get(part));
        ensure!(
            sent == got,
            "{part} was sent as {sent:#?} and came back as {got:#?}"
        );
    }
    Ok(())
}

fn every_field_is_there(crd: &CustomResourceDefinition, object: &Value) -> Result<()> {
    let version = crd.spec.versions.first().context("no version")?;
    let schema = version
        .schema
        .as_ref()
        .and_then(|s| s.open_api_v3_schema.as_ref());
    covers(schema.context("no schema")?, object, "")
}

fn covers(schema: &JSONSchemaProps, value: &Value, path: &str) -> Result<()> {
    for (name, field) in schema.properties.iter().flatten() {
        let path = format!("{path}/{name}");
        let value = value
            .get(name)
            .with_context(|| format!("the test's object leaves out {path}"))?;
        covers(field, value.get(0).unwrap_or(value), &path)?;
    }
    Ok(())
}

fn condition(type_: &str) -> Value {
    json!({
        "type": type_, "status": "False", "reason": "Testing", "message": "as a test",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 3,
    })
}

fn full_pool() -> Value {
    json!({
        "apiVersion": "node.bootc.dev/v1alpha1",
        "kind": "BootcNodePool",
        "metadata": { "name": "round-trip" },
        "spec": {
            "nodeSelector": {
                "matchLabels": { "a": "b" },
                "matchExpressions": [{ "key": "c", "operator": "In", "values": ["d", "e"] }],
            },
            "image": { "ref": format!("quay.io/example/os:1@{DIGEST}") },
            "rollout": {
                "maxUnavailable": "25%",
                "paused": true,
                "drainTimeoutSeconds": 600,
                "rebootTimeoutSeconds": 900,
                "maxConcurrentStaging": 4,
                "minReadySeconds": 30,
            },
            "disruption": { "rebootPolicy": "AllowSoftReboot" },
            "pullSecretRef": { "name": "pull", "namespace": "bootc-operator" },
        },
        "status": {
            "observedGeneration": 3,
            "targetDigest": DIGEST,
            "deployedDigest": DIGEST,
            "updateAvailable": true,
            "nextTagResolutionTime": "2026-01-01T00:05:00Z",
            "nodeCount": 10,
            "updatedCount": 5,
            "updatingCount": 4,
            "degradedCount": 1,
            "conditions": [condition("UpToDate"), condition("Degraded")],
        },
    })
}

fn full_node() -> Value {
    let image = json!({
        "image": format!("quay.io/example/os@{DIGEST}"),
        "imageDigest": DIGEST,
        "version": "1.2.3",
        "timestamp": "2026-01-01T00:00:00Z",
        "architecture": "amd64",
        "softRebootCapable": true,
        "downloadOnly": true,
        "incompatible": true,
    });
    json!({
        "apiVersion": "node.bootc.dev/v1alpha1",
        "kind": "BootcNode",
        "metadata": { "name": "round-trip" },
        "spec": {
            "desiredImage": format!("quay.io/example/os@{DIGEST}"),
            "desiredImageState": "Booted",
            "pullSecretRef": { "name": "pull", "namespace": "bootc-operator" },
            "pullSecretHash": "f00d",
            "rebootPolicy": "AllowSoftReboot",
            "approvedBoot": "8d3f0e5c-91d5-4b6d-8f4e-0c1f6a7f5d11+1",
        },
        "status": {
            "observedGeneration": 3,
            "booted": image,
            "staged": image,
            "rollback": image,
            "boot": "8d3f0e5c-91d5-4b6d-8f4e-0c1f6a7f5d11+1",
            "lastAttempt": {
                "imageDigest": DIGEST,
                "boot": "8d3f0e5c-91d5-4b6d-8f4e-0c1f6a7f5d11",
                "time": "2026-01-01T00:00:00Z",
                "rollback": { "checksum": "abc", "serial": 1 },
                "retry": "2025-12-31T00:00:00.000000Z",
            },
            "steps": [{ "name": "Staging", "start": "2026-01-01T00:00:00.123000Z", "end": "2026-01-01T00:01:00.000000Z" }],
            "conditions": [condition("Idle"), condition("Degraded"), condition("Waiting")],
        },
    })
}

async fn a_pool_gets_its_defaults(suite: Arc<Suite>) -> Result<()> {
    let mut spec = BootcNodePoolSpec {
        image: PoolImage {
            reference: "quay.io/example/os:1".into(),
        },
        ..BootcNodePoolSpec::default()
    };
    spec.node_selector.match_labels = Some([("bootc.dev/none".into(), "here".into())].into());
    let sent = json!({
        "apiVersion": "node.bootc.dev/v1alpha1",
        "kind": "BootcNodePool",
        "metadata": { "name": "defaults" },
        "spec": { "image": { "ref": "quay.io/example/os:1" }, "nodeSelector": spec.node_selector },
    });
    suite
        .kubectl_with(&["create", "-f", "-"], &sent.to_string())
        .await?;
    let stored = suite
        .kubectl(&["get", "bnp", "defaults", "-o", "json"])
        .await?;
    suite.kubectl(&["delete", "bnp", "defaults"]).await?;
    let stored: Value = serde_json::from_str(&stored)?;
    // Defaulted by the API server and decoded by us, it is what our own defaults say.
    ensure!(stored.pointer("/spec/rollout") == Some(&serde_json::to_value(Rollout::default())?));
    let decoded: BootcNodePool = serde_json::from_value(stored)?;
    ensure!(decoded.spec == spec, "{:#?}", decoded.spec);
    Ok(())
}

/// A field that its writer does not know must stay missing.
async fn a_status_gets_no_defaults(suite: Arc<Suite>) -> Result<()> {
    let api = Api::<BootcNode>::all(suite.breaker.clone());
    let node = api_tests::suite::unowned_node("no-defaults");
    api.create(&PostParams::default(), &node).await?;
    let status =
        json!({ "booted": { "image": "quay.io/example/os:1" }, "conditions": [condition("Idle")] });
    let patch = Patch::Merge(json!({ "status": status }));
    api.patch_status("no-defaults", &PatchParams::default(), &patch)
        .await?;
    let stored = suite
        .kubectl(&["get", "bn", "no-defaults", "-o", "json"])
        .await?;
    suite.kubectl(&["delete", "bn", "no-defaults"]).await?;
    let stored: Value = serde_json::from_str(&stored)?;
    ensure!(stored.get("status") == Some(&status), "{stored:#}");
    Ok(())
}

async fn columns_are_printed(suite: Arc<Suite>) -> Result<()> {
    let nodes = Api::<BootcNode>::all(suite.breaker.clone());
    let pools = Api::<BootcNodePool>::all(suite.admin.clone());
    let pool: BootcNodePool = serde_json::from_value(renamed(full_pool(), "columns"))?;
    let pool = pools.create(&PostParams::default(), &pool).await?;
    let mut node: BootcNode = serde_json::from_value(renamed(full_node(), "columns"))?;
    node.metadata.owner_references = pool.controller_owner_ref(&()).map(|owner| vec![owner]);
    nodes.create(&PostParams::default(), &node).await?;
    let status = |full: Value| Patch::Merge(json!({ "status": full.get("status") }));
    let params = PatchParams::default();
    pools
        .patch_status("columns", &params, &status(full_pool()))
        .await?;
    nodes
        .patch_status("columns", &params, &status(full_node()))
        .await?;
    let pool_lines = suite.kubectl(&["get", "bnp", "columns"]).await?;
    let node_lines = suite.kubectl(&["get", "bn", "columns"]).await?;
    pools.delete("columns", &DeleteParams::default()).await?;
    table(
        &pool_lines,
        "NAME IMAGE-DIGEST NODES UPDATED UPDATING DEGRADED UP-TO-DATE AGE",
        &format!("columns {DIGEST} 10 5 4 1 False"),
    )?;
    table(
        &node_lines,
        "NAME POOL STATE WAITING BOOTED STAGED DEGRADED AGE",
        &format!("columns columns Testing Testing {DIGEST} {DIGEST} False"),
    )
}

fn renamed(mut object: Value, name: &str) -> Value {
    if let Some(field) = object.pointer_mut("/metadata/name") {
        *field = json!(name);
    }
    object
}

/// Two lines with these words; the second one's age is not looked at.
fn table(printed: &str, header: &str, row: &str) -> Result<()> {
    let words = |line: &str| {
        line.split_whitespace()
            .map(ToOwned::to_owned)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut lines = printed.lines().map(words);
    ensure!(lines.next().as_deref() == Some(header), "{printed}");
    ensure!(
        lines.next().is_some_and(|line| line.starts_with(row)),
        "{printed}"
    );
    Ok(())
}

/// Agent and operator each apply conditions of their own; neither takes the other's away.
async fn own_conditions(suite: Arc<Suite>) -> Result<()> {
    use crd::names::{FIELD_MANAGER_AGENT, FIELD_MANAGER_OPERATOR};
    let api = Api::<BootcNode>::all(suite.breaker.clone());
    api.create(
        &PostParams::default(),
        &api_tests::suite::unowned_node("own-conditions"),
    )
    .await?;
    let apply = |manager: &'static str, types: &'static [&'static str]| {
        let conditions: Vec<_> = types.iter().map(|type_| condition(type_)).collect();
        let body = json!({
            "apiVersion": "node.bootc.dev/v1alpha1", "kind": "BootcNode",
            "status": { "conditions": conditions },
        });
        let api = api.clone();
        async move {
            let params = PatchParams::apply(manager).force();
            api.patch_status("own-conditions", &params, &Patch::Apply(body))
                .await
        }
    };
    apply(FIELD_MANAGER_AGENT, &["Idle", "Degraded"]).await?;
    apply(FIELD_MANAGER_OPERATOR, &["Waiting"]).await?;
    let both = apply(FIELD_MANAGER_AGENT, &["Idle"]).await?;
    api.delete("own-conditions", &DeleteParams::default())
        .await?;
    let conditions = both.status.context("no status")?.conditions;
    let types: Vec<_> = conditions.iter().map(|c| c.type_.as_str()).collect();
    ensure!(types == ["Idle", "Waiting"], "{types:?}");
    Ok(())
}
