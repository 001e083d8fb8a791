//! The operator's journal: the same decisions again, and nothing in it that is secret.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use api_tests::{
    Account, Fleet, Suite,
    fleet::B,
    registry::{Server, USER},
    secrecy::Passwords,
    wait,
};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, api::PostParams};
use libtest_mimic::Trial;
use operator::journal::{Summary, fold};
use serde_json::json;

use crate::run::Stage;

type Shared = Arc<Stage>;

pub(crate) fn trials(suite: &Arc<Suite>, stage: &Shared) -> Vec<Trial> {
    let stage = Arc::clone(stage);
    vec![suite.trial(
        "journal::a_rollout_with_a_secret_is_decided_again_and_tells_none",
        move |suite| a_rollout_with_a_secret(suite, stage),
    )]
}

async fn a_rollout_with_a_secret(suite: Arc<Suite>, stage: Shared) -> Result<()> {
    let server = Server::start(true).await?;
    let digest = server.push("VERSION=1", "stable").await?;
    let (user, password) = USER;
    let logins = server.logins(password);
    let secret: Secret = serde_json::from_value(json!({
        "metadata": { "name": "journal-login" },
        "type": "kubernetes.io/dockerconfigjson",
        "data": { ".dockerconfigjson": ByteString(logins.to_string().into_bytes()) },
    }))?;
    let secrets = Api::<Secret>::namespaced(suite.admin.clone(), Account::OPERATOR.namespace);
    secrets.create(&PostParams::default(), &secret).await?;
    let fleet = Fleet::settled(&suite, "journal", 2, json!({})).await?;
    fleet
        .spec(json!({
            "image": { "ref": server.reference("stable") },
            "pullSecretRef": { "name": "journal-login", "namespace": Account::OPERATOR.namespace },
        }))
        .await?;
    fleet.until_runs(&digest).await?;
    fleet.want(B).await?;
    fleet.until_updated(B).await?;
    fleet.finish().await?;

    // What is on the disk by now is the start of a journal, as after a crash.
    let text = wait::until("the rollout is in the journal", || async {
        let text = tokio::fs::read_to_string(stage.journal()).await?;
        ensure!(text.contains("\"journal-2\""), "not yet");
        anyhow::Ok(text)
    })
    .await?;
    ensure!(
        text.contains("journal-login"),
        "the secret's name is no secret"
    );
    Passwords::of(user, &[password]).are_not_in("the journal", &text)?;
    for token in ["eyJhbGciOi", "Bearer "] {
        ensure!(!text.contains(token), "a token is in the journal");
    }
    let summary = fold(text.as_bytes(), |entry| {
        if entry.differs() {
            eprintln!("then {:?}\nnow {:?}", entry.then, entry.now);
        }
        Ok(())
    })?;
    let Summary {
        inputs,
        commands,
        differing,
        lost,
        ..
    } = &summary;
    ensure!(*inputs > 100 && *commands > 100, "{summary:?}");
    ensure!((*differing, *lost) == (0, 0), "{summary:?}");

    // The same by the program, and a journal of other decisions is told.
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("copy");
    tokio::fs::write(&copy, &text).await?;
    let replayed = stage
        .operator(&format!("replay {}", copy.display()))
        .await?;
    replayed.is(
        0,
        &[
            "hop Staged -> Cordoned (Granted)",
            "journal-1",
            "cordon by journal",
        ],
    )?;
    ensure!(replayed.err.contains("inputs, "), "{replayed:?}");
    let lines = stage
        .operator(&format!("replay {} -o json", copy.display()))
        .await?;
    let first: serde_json::Value =
        serde_json::from_str(lines.out.lines().next().context("no line")?)?;
    ensure!(
        first["n"].is_u64() && first["command"].is_object(),
        "{first}"
    );
    let other = text.replacen("\"Label\"", "\"Unlabel\"", 1);
    ensure!(other != text, "no label was decided on");
    tokio::fs::write(&copy, other).await?;
    let replayed = stage
        .operator(&format!("replay {}", copy.display()))
        .await?;
    replayed.is(2, &["! then: "])?;
    Ok(())
}
