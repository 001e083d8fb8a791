//! Pulls: begun, stopped, taken over, and what others stage.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use api_tests::{Suite, wait};
use crd::BootcNodeStatus;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, api::PostParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::bench::{A, B, Bench, C};

/// What bootc writes while it pulls.
const PROGRESS: &str = r#"{"type":"Start","version":"0.1.0"}
{"task":"pulling","type":"ProgressBytes","bytes":60010319,"bytesTotal":100017423,"steps":1,"stepsTotal":3}"#;

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial("agent::another_image_in_mid_pull", another_image),
        suite.trial("agent::back_in_mid_pull", back_in_mid_pull),
        suite.trial("agent::back_when_staged", back_when_staged),
        suite.trial("agent::a_pull_outlives_its_agent", pull_outlives_agent),
        suite.trial("agent::somebody_else_stages", somebody_else),
        suite.trial("agent::progress_of_a_pull", progress),
        suite.trial("agent::a_pull_secret", pull_secret),
        suite.trial("agent::a_missing_pull_secret", missing_secret),
    ]
}

/// The pull of an image that is not wanted any more is stopped, the other one begins.
async fn another_image(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "another-image").await?;
    bench.host.set("state/slow", "300");
    bench
        .agent(async {
            bench.says("Idle Healthy").await?;
            bench.want(B).await?;
            bench.does("bootc switch", 1).await?;
            bench.host.set("state/slow", "0");
            bench.want(C).await?;
            let status = bench.says("Staged Healthy").await?;
            ensure!(status.staged.is_some_and(|it| it.image == C));
            Ok(())
        })
        .await
}

/// The booted image is wanted again: the pull is stopped and nothing is left.
async fn back_in_mid_pull(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "back-in-mid-pull").await?;
    bench.host.set("state/slow", "300");
    bench
        .agent(async {
            bench.says("Idle Healthy").await?;
            bench.want(B).await?;
            bench.does("bootc switch", 1).await?;
            bench.want(A).await?;
            bench.does("systemctl stop", 1).await?;
            let status = bench.says("Idle Healthy").await?;
            ensure!(status.staged.is_none());
            Ok(())
        })
        .await
}

/// The booted image is wanted again: what we staged is dropped.
async fn back_when_staged(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "back-when-staged").await?;
    bench
        .agent(async {
            bench.says("Idle Healthy").await?;
            bench.want(B).await?;
            bench.says("Staged Healthy").await?;
            bench.want(A).await?;
            wait::until("nothing is staged", || async {
                let status = bench.status().await?;
                ensure!(status.staged.is_none(), "{:?}", status.staged);
                Ok(())
            })
            .await?;
            ensure!(bench.did("ostree admin undeploy 0") == 1);
            bench.says("Idle Healthy").await?;
            Ok(())
        })
        .await
}

/// The next agent takes the running unit over; there is one pull.
async fn pull_outlives_agent(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "pull-outlives").await?;
    bench.host.set("state/slow", "3");
    bench
        .agent(async {
            bench.says("Idle Healthy").await?;
            bench.want(B).await?;
            bench.does("bootc switch", 1).await
        })
        .await?;
    bench.agent(bench.says("Staged Healthy")).await?;
    ensure!(bench.did("bootc switch") == 1, "{:?}", bench.host.log());
    ensure!(bench.host.get("invocations") == "1");
    Ok(())
}

/// A long pull tells how far it is; that is no news of the host, and told once while it stays so.
async fn progress(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "progress").await?;
    bench.host.set("state/progress", PROGRESS);
    bench.host.set("state/slow", "34");
    let pull = bench.agent(async {
        bench.says("Idle Healthy").await?;
        bench.want(B).await?;
        bench.says("Staged Healthy").await
    });
    let (_, statuses) = Box::pin(bench.statuses(pull)).await?;
    let idle = |status: &BootcNodeStatus| {
        let mut all = status.conditions.iter();
        let found = all.find(|it| it.type_ == "Idle");
        found.map(|it| it.message.clone()).unwrap_or_default()
    };
    let said: Vec<String> = statuses.iter().map(idle).collect();
    let far: Vec<&String> = said.iter().filter(|it| it.contains("layers")).collect();
    ensure!(
        far.len() == 1 && far[0].ends_with(": 1 of 3 layers done, 60 of 100 MB"),
        "{said:#?}"
    );
    Ok(())
}

/// What an admin stages by hand shows at once, is said to be there, and is left alone.
async fn somebody_else(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "somebody-else").await?;
    bench
        .agent(async {
            bench.says("Idle Healthy").await?;
            let image = C;
            bench.host.run(&["bootc", "switch", image]).await?;
            let since = Instant::now();
            wait::until("it shows", || async {
                let status = bench.status().await?;
                ensure!(status.staged.is_some(), "not yet");
                Ok(())
            })
            .await?;
            // The poll would take five minutes.
            ensure!(since.elapsed() < Duration::from_secs(30));
            let message = bench.message("Idle").await?;
            ensure!(message.contains("is staged and not wanted"), "{message}");
            sleep(Duration::from_secs(1)).await;
            ensure!(bench.did("ostree admin undeploy") == 0);
            Ok(())
        })
        .await
}

/// The Secret's entries lie over the host's own while it is wanted, and are gone when it is not.
async fn pull_secret(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "pull-secret").await?;
    let own = json!({ "auths": { "own": { "auth": "b3du" }, "both": { "auth": "b3du" } } });
    bench.host.set("etc/ostree/auth.json", &own.to_string());
    let config = json!({ "auths": { "both": { "auth": "bmV3" }, "new": { "auth": "bmV3" } } });
    make_secret(&bench, "agents-pull-secret", &config).await?;
    let reference = json!({ "namespace": "bootc-operator", "name": "agents-pull-secret" });
    bench
        .agent(async {
            bench.says("Idle Healthy").await?;
            let spec = json!({ "desiredImage": B, "pullSecretRef": reference, "pullSecretHash": "h1" });
            bench.spec(spec).await?;
            bench.says("Staged Healthy").await?;
            let written: Value = serde_json::from_str(&bench.host.get("run/ostree/auth.json"))?;
            let auths = written.get("auths").context("auths")?;
            ensure!(*auths == json!({
                "own": { "auth": "b3du" }, "both": { "auth": "bmV3" }, "new": { "auth": "bmV3" },
            }));
            bench.spec(json!({ "pullSecretRef": null, "pullSecretHash": null })).await?;
            wait::until("the credentials are gone", || async {
                let left = bench.host.get("run/ostree/auth.json");
                ensure!(left.is_empty(), "still there");
                Ok(())
            })
            .await?;
            ensure!(bench.host.get("etc/ostree/auth.json") == own.to_string());
            Ok(())
        })
        .await
}

/// Named in the condition, tried again, and nothing is pulled before.
async fn missing_secret(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "missing-secret").await?;
    let reference = json!({ "namespace": "bootc-operator", "name": "agents-late-secret" });
    bench
        .agent(async {
            bench.says("Idle Healthy").await?;
            let spec =
                json!({ "desiredImage": B, "pullSecretRef": reference, "pullSecretHash": "h1" });
            bench.spec(spec).await?;
            bench.says("Staging Error").await?;
            let message = bench.message("Degraded").await?;
            ensure!(
                message.contains("bootc-operator/agents-late-secret"),
                "{message}"
            );
            ensure!(bench.did("bootc switch") == 0);
            make_secret(&bench, "agents-late-secret", &json!({ "auths": {} })).await?;
            bench.says("Staged Healthy").await?;
            Ok(())
        })
        .await
}

async fn make_secret(bench: &Bench, name: &str, config: &Value) -> Result<()> {
    let mut secret = Secret::default();
    secret.metadata.name = Some(name.into());
    secret.type_ = Some("kubernetes.io/dockerconfigjson".into());
    let text = ByteString(config.to_string().into_bytes());
    secret.data = Some([(".dockerconfigjson".to_owned(), text)].into());
    Api::<Secret>::namespaced(bench.suite.admin.clone(), "bootc-operator")
        .create(&PostParams::default(), &secret)
        .await?;
    Ok(())
}
