//! Registry passwords: read where they are needed, and told to nobody.

use std::{fs, sync::Arc};

use anyhow::{Result, ensure};
use api_tests::{
    Account, Fleet, Suite,
    operator::{Options, log_file},
    registry::{Server, USER},
    secrecy::Passwords,
};
use bed::control_plane::AuditEvent;
use k8s_openapi::{
    ByteString,
    api::{core::v1::Secret, events::v1::Event},
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

/// A password that the registry refuses.
const WRONG: &str = "wrong battery";

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![suite.trial(
        "secrecy::no_log_status_event_or_write_tells_a_password",
        nothing_told,
    )]
}

async fn put(fleet: &Fleet, logins: &Value) -> Result<()> {
    let content = ByteString(logins.to_string().into_bytes());
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "pull" },
        "type": "kubernetes.io/dockerconfigjson", "data": { ".dockerconfigjson": content },
    });
    let api = Api::<Secret>::namespaced(fleet.client(), Account::OPERATOR.namespace);
    let params = PatchParams::apply("an-admin").force();
    api.patch("pull", &params, &Patch::Apply(secret)).await?;
    Ok(())
}

/// Wrong, malformed, and right: each is worth a word, and none of these words is the password.
async fn nothing_told(suite: Arc<Suite>) -> Result<()> {
    let server = Server::start(true).await?;
    let digest = server.push("VERSION=1", "stable").await?;
    let client = suite.client_of(Account::OPERATOR, None).await?;
    suite
        .operator
        .start_with(client, Options::UNELECTED)
        .await?;
    let fleet = Fleet::settled(&suite, "secrecy", 1, json!({})).await?;
    put(&fleet, &server.logins(WRONG)).await?;
    let reference = json!({ "name": "pull", "namespace": Account::OPERATOR.namespace });
    fleet
        .spec(json!({ "image": { "ref": server.reference("stable") }, "pullSecretRef": reference }))
        .await?;
    fleet
        .until("the wrong password is told of", |view| {
            view.pool_is("Degraded=True/TagResolutionError").map(drop)
        })
        .await?;
    let malformed = json!({ "auths": { &server.host: { "auth": USER.1 } } });
    put(&fleet, &malformed).await?;
    fleet
        .until("the malformed one is told of", |view| {
            let message = view.condition("Degraded")?.message;
            ensure!(message.contains("pull secret"), "{message}");
            Ok(())
        })
        .await?;
    put(&fleet, &server.logins(USER.1)).await?;
    let view = fleet.until_runs(&digest).await?;
    view.pool_is("Degraded=False/OK")?;
    fleet.delete_pool().await?;

    let log = fs::read_to_string(log_file("alone")?)?;
    ensure!(log.contains("pool=\"secrecy\""), "not the operator's log");
    let events = Api::<Event>::all(fleet.client())
        .list(&ListParams::default())
        .await?;
    let events = serde_json::to_string(&events.items)?;
    ensure!(events.contains("secrecy"), "no Event of the pool");
    let written = written(&suite)?;
    ensure!(written.contains("pullSecretHash"), "not what was written");
    let mut versions = String::new();
    for node in fleet.history(1) {
        versions += &serde_json::to_string(&node)?;
    }
    let passwords = Passwords::of(USER.0, &[USER.1, WRONG]);
    for (what, text) in [
        ("the log", &log),
        ("an Event", &events),
        ("a write", &written),
        ("a BootcNode", &versions),
    ] {
        passwords.are_not_in(what, text)?;
    }
    fleet.finish().await?;
    suite.operator.stop().await
}

/// All that the operator wrote: objects, their status, Events.
fn written(suite: &Suite) -> Result<String> {
    let all = suite.asked_by(Account::OPERATOR)?;
    let body = |event: &AuditEvent| event.request_object.to_string();
    Ok(all.iter().map(body).collect())
}
