//! A pool's pull secret: read for the tag, passed on to the nodes, and followed.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use api_tests::{
    Account, Fleet, Suite,
    fleet::{A, B, View},
    registry::{Server, USER},
};
use crd::BootcNode;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial(
            "pull_secrets::a_pool_that_needs_a_login_gets_it_and_goes_on",
            login,
        ),
        suite.trial(
            "pull_secrets::reference_and_hash_come_and_go_in_one_write",
            one_write,
        ),
        suite.trial("pull_secrets::what_is_wrong_is_told_and_heals", healed),
        suite.trial(
            "pull_secrets::elsewhere_the_binding_to_add_is_named",
            elsewhere,
        ),
    ]
}

fn secrets(fleet: &Fleet) -> Api<Secret> {
    Api::namespaced(fleet.client(), Account::OPERATOR.namespace)
}

fn content(login: &Value) -> Value {
    json!({ "data": { ".dockerconfigjson": ByteString(login.to_string().into_bytes()) } })
}

async fn put(fleet: &Fleet, name: &str, login: &Value) -> Result<()> {
    let mut secret = content(login);
    secret["metadata"] = json!({ "name": name });
    secret["type"] = json!("kubernetes.io/dockerconfigjson");
    let secret: Secret = serde_json::from_value(secret)?;
    secrets(fleet)
        .create(&PostParams::default(), &secret)
        .await?;
    Ok(())
}

fn named(name: &str) -> Value {
    json!({ "name": name, "namespace": Account::OPERATOR.namespace })
}

fn hash(node: &BootcNode) -> Option<&str> {
    node.spec.pull_secret_hash.as_deref()
}

fn hashes(view: &View) -> Vec<Option<String>> {
    view.bootc
        .values()
        .map(|node| hash(node).map(str::to_owned))
        .collect()
}

/// Missing at first; the tag cannot be read without it.
async fn login(suite: Arc<Suite>) -> Result<()> {
    let server = Server::start(true).await?;
    let digest = server.push("VERSION=1", "stable").await?;
    let fleet = Fleet::settled(&suite, "login", 2, json!({})).await?;
    fleet
        .spec(json!({
            "image": { "ref": server.reference("stable") }, "pullSecretRef": named("pull-login"),
        }))
        .await?;
    fleet
        .until("the missing secret is told", |view| {
            let message = view.condition("Degraded")?.message;
            ensure!(message.contains("pull-login"), "{view}");
            view.is_current()
        })
        .await?;
    put(&fleet, "pull-login", &server.logins("wrong battery")).await?;
    fleet
        .until("the wrong password is told", |view| {
            let message = view.pool_is("Degraded=True/TagResolutionError")?.message;
            ensure!(!message.contains("battery"), "{message}");
            Ok(())
        })
        .await?;
    let right = Patch::Merge(content(&server.logins(USER.1)));
    secrets(&fleet)
        .patch("pull-login", &PatchParams::default(), &right)
        .await?;
    let view = fleet.until_runs(&digest).await?;
    view.pool_is("Degraded=False/OK")?;
    let all = hashes(&view);
    ensure!(
        all.iter().all(Option::is_some) && all.first() == all.last(),
        "{all:?}"
    );
    fleet.finish().await
}

/// Each version of each object is looked at.
async fn one_write(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "one-write", 2, json!({})).await?;
    put(
        &fleet,
        "pull-one-write",
        &json!({ "auths": { "r.test": { "username": "u", "password": "p" } } }),
    )
    .await?;
    fleet
        .spec(json!({
            "image": { "ref": api_tests::fleet::reference(B) },
            "pullSecretRef": named("pull-one-write"),
        }))
        .await?;
    let view = fleet.until_updated(B).await?;
    ensure!(
        hashes(&view).iter().all(Option::is_some),
        "{:?}",
        hashes(&view)
    );
    fleet
        .spec(json!({ "image": { "ref": api_tests::fleet::reference(A) }, "pullSecretRef": null }))
        .await?;
    fleet.until_updated(A).await?;
    for n in [1, 2] {
        let history = fleet.history(n);
        for node in &history {
            let (spec, image) = (&node.spec, node.spec.desired_image.as_deref());
            ensure!(
                spec.pull_secret_ref.is_some() == hash(node).is_some(),
                "{spec:?}"
            );
            let of_b = image == Some(&api_tests::fleet::reference(B));
            ensure!(of_b == hash(node).is_some(), "not in one write: {spec:?}");
        }
    }
    fleet.finish().await
}

/// A login that goes bad takes no node down, and the nodes keep the hash that they know.
async fn healed(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "healed", 1, json!({})).await?;
    let login =
        |user: &str| json!({ "auths": { "r.test": { "username": user, "password": "p" } } });
    put(&fleet, "pull-healed", &login("one")).await?;
    fleet
        .spec(json!({ "pullSecretRef": named("pull-healed") }))
        .await?;
    let view = fleet
        .until("the hash is passed on", |view| {
            ensure!(hashes(view).iter().all(Option::is_some), "{view}");
            view.pool_is("Degraded=False/OK").map(drop)
        })
        .await?;
    let first = hashes(&view);
    let patch = |content: Value| Patch::Merge(content);
    let broken = content(&json!({ "auths": { "r.test": { "auth": "no base64 of a pair" } } }));
    let (api, params) = (secrets(&fleet), PatchParams::default());
    api.patch("pull-healed", &params, &patch(broken)).await?;
    fleet
        .until("what is malformed is told", |view| {
            view.pool_is("Degraded=True/SecretError")?;
            ensure!(hashes(view) == first, "{view}");
            view.counts([1, 1, 0, 0])
        })
        .await?;
    api.patch("pull-healed", &params, &patch(content(&login("two"))))
        .await?;
    fleet
        .until("it is cured, with another hash", |view| {
            view.pool_is("Degraded=False/OK")?;
            ensure!(
                hashes(view) != first && hashes(view).iter().all(Option::is_some),
                "{view}"
            );
            Ok(())
        })
        .await?;
    api.delete("pull-healed", &DeleteParams::default()).await?;
    fleet
        .until("that it is gone is told", |view| {
            let message = view.pool_is("Degraded=True/SecretError")?.message;
            ensure!(message.contains("pull-healed"), "{message}");
            Ok(())
        })
        .await?;
    put(&fleet, "pull-healed", &login("one")).await?;
    fleet
        .until("it is cured by itself", |view| {
            view.pool_is("Degraded=False/OK")?;
            ensure!(hashes(view) == first, "the same content has the same hash");
            Ok(())
        })
        .await?;
    fleet.rebooted(&[0])?;
    fleet.finish().await
}

async fn elsewhere(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::settled(&suite, "elsewhere", 1, json!({})).await?;
    let reference = json!({ "name": "pull", "namespace": "elsewhere" });
    fleet.spec(json!({ "pullSecretRef": reference })).await?;
    let view = fleet
        .until("it says what to add", |view| {
            let message = view.pool_is("Degraded=True/SecretError")?.message;
            ensure!(
                message.contains("RoleBinding") && message.contains("kubectl"),
                "{message}"
            );
            Ok(())
        })
        .await?;
    let node = view.bootc.values().next().context("no BootcNode")?;
    ensure!(hash(node).is_none(), "{:?}", node.spec);
    fleet.finish().await
}
