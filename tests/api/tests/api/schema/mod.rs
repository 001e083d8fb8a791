//! What the API server refuses by the schema, one object a rule, and what it must let through.

mod tables;

use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use api_tests::Suite;
use crd::{BootcNode, BootcNodePool, ImageRef};
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Something in a field, and words of the answer that a person can act on.
struct Refused(&'static str, &'static str, Value, &'static str);

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for Refused(name, path, value, answer) in tables::pool_specs() {
        trials.push(
            suite.trial(format!("schema::pool_refused::{name}"), move |suite| {
                spec_refused::<BootcNodePool>(suite.admin.clone(), pool(), path, value, answer)
            }),
        );
    }
    for Refused(name, path, value, answer) in tables::node_specs() {
        trials.push(
            suite.trial(format!("schema::node_refused::{name}"), move |suite| {
                spec_refused::<BootcNode>(suite.breaker.clone(), node(), path, value, answer)
            }),
        );
    }
    for Refused(name, path, value, answer) in tables::pool_statuses() {
        trials.push(suite.trial(
            format!("schema::pool_status_refused::{name}"),
            move |suite| {
                status_refused::<BootcNodePool>(
                    suite.admin.clone(),
                    pool(),
                    name,
                    path,
                    value,
                    answer,
                )
            },
        ));
    }
    for Refused(name, path, value, answer) in tables::node_statuses() {
        trials.push(suite.trial(
            format!("schema::node_status_refused::{name}"),
            move |suite| {
                status_refused::<BootcNode>(
                    suite.breaker.clone(),
                    node(),
                    name,
                    path,
                    value,
                    answer,
                )
            },
        ));
    }
    for (name, path, value) in tables::legal_pools() {
        trials.push(
            suite.trial(format!("schema::pool_accepted::{name}"), move |suite| {
                accepted::<BootcNodePool>(suite.admin.clone(), with(pool(), path, value))
            }),
        );
    }
    for (name, path, value) in tables::legal_nodes() {
        trials.push(
            suite.trial(format!("schema::node_accepted::{name}"), move |suite| {
                accepted::<BootcNode>(suite.breaker.clone(), with(node(), path, value))
            }),
        );
    }
    trials.push(suite.trial("schema::image_refs_as_the_parser_has_them", image_refs));
    trials
}

/// The smallest pool.
fn pool() -> Value {
    json!({
        "apiVersion": "node.bootc.dev/v1alpha1",
        "kind": "BootcNodePool",
        "metadata": { "name": "schema" },
        "spec": {
            "nodeSelector": { "matchLabels": { "bootc.dev/none": "here" } },
            "image": { "ref": "quay.io/example/os:1" },
        },
    })
}

/// The smallest node.
fn node() -> Value {
    json!({
        "apiVersion": "node.bootc.dev/v1alpha1",
        "kind": "BootcNode",
        "metadata": { "name": "schema" },
        "spec": {},
    })
}

/// The object with `value` at `path`; `null` takes the field away.
fn with(mut object: Value, path: &str, value: Value) -> Value {
    let (parent, field) = path.rsplit_once('/').unwrap_or(("", path));
    if object.pointer(parent).is_none() {
        object = with(object, parent, json!({}));
    }
    if let Some(fields) = object.pointer_mut(parent).and_then(Value::as_object_mut) {
        if value.is_null() {
            fields.remove(field);
        } else {
            fields.insert(field.to_owned(), value);
        }
    }
    object
}

fn api<K>(client: Client) -> Api<DynamicObject>
where
    K: Resource<DynamicType = ()>,
{
    Api::all_with(client, &ApiResource::erase::<K>(&()))
}

fn dry() -> PostParams {
    PostParams {
        dry_run: true,
        ..PostParams::default()
    }
}

/// Fails unless the outcome is a refusal with these words.
fn refused_with<T: std::fmt::Debug>(outcome: kube::Result<T>, answer: &str) -> Result<()> {
    match outcome {
        Err(kube::Error::Api(status)) if status.is_invalid() => {
            ensure!(
                status.message.contains(answer),
                "refused, but not with {answer:?}: {}",
                status.message
            );
            Ok(())
        }
        other => bail!("not refused as invalid: {other:?}"),
    }
}

async fn spec_refused<K>(
    client: Client,
    object: Value,
    path: &str,
    value: Value,
    answer: &str,
) -> Result<()>
where
    K: Resource<DynamicType = ()>,
{
    let object: DynamicObject = serde_json::from_value(with(object, path, value))?;
    refused_with(api::<K>(client).create(&dry(), &object).await, answer)
}

async fn status_refused<K>(
    client: Client,
    object: Value,
    name: &str,
    path: &str,
    value: Value,
    answer: &str,
) -> Result<()>
where
    K: Resource<DynamicType = ()>,
{
    let name = format!("schema-{}", name.replace('_', "-"));
    let object: DynamicObject =
        serde_json::from_value(with(object, "/metadata/name", json!(name)))?;
    let api = api::<K>(client);
    api.create(&PostParams::default(), &object).await?;
    let change = Patch::Merge(with(json!({}), path, value));
    refused_with(
        api.patch_status(&name, &PatchParams::default(), &change)
            .await,
        answer,
    )?;
    api.delete(&name, &kube::api::DeleteParams::default())
        .await?;
    Ok(())
}

async fn accepted<K>(client: Client, object: Value) -> Result<()>
where
    K: Resource<DynamicType = ()>,
{
    let object: DynamicObject = serde_json::from_value(object)?;
    let stored = api::<K>(client).create(&dry(), &object).await;
    stored.context("refused").map(drop)
}

/// The CEL rule and the parser must be of one mind, or an accepted pool would be `InvalidSpec`.
async fn image_refs(suite: Arc<Suite>) -> Result<()> {
    let pools = api::<BootcNodePool>(suite.admin.clone());
    for reference in tables::references() {
        let parsed = reference.parse::<ImageRef>();
        let object = with(pool(), "/spec/image/ref", json!(reference));
        let stored = pools.create(&dry(), &serde_json::from_value(object)?).await;
        ensure!(
            parsed.is_ok() == stored.is_ok(),
            "{reference:?}: the parser says {parsed:?}, the API server {stored:?}"
        );
    }
    Ok(())
}
