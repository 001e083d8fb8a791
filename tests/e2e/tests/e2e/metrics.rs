//! Metrics in a cluster: for those whom it knows and lets read them.

use anyhow::{Context as _, Result, bail, ensure};
use crd::names::NAMESPACE_OPERATOR;
use e2e::{Config, Env};
use http::Request;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::AuthInfo;
use kube::{Api, Client};
use libtest_mimic::Trial;
use serde_json::json;

use crate::trial;

/// As `deploy/operator/metrics.yaml` names it.
const SERVICE: &str = "bootc-operator-metrics";
const PORT: u16 = 8443;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "metrics::are_for_those_whom_the_cluster_lets_read_them",
        are_for_those_whom_the_cluster_lets_read_them,
    )]
}

async fn are_for_those_whom_the_cluster_lets_read_them() -> Result<()> {
    let env = Env::new(Config::default()).await?;
    for account in ["scraper", "somebody"] {
        env.kubectl(&["create", "serviceaccount", account], &[])
            .await?;
    }
    // As the manifest says it.
    let bind = [
        "create",
        "clusterrolebinding",
        "scraper",
        "--clusterrole=bootc-metrics-reader",
        "--serviceaccount=default:scraper",
    ];
    env.kubectl(&bind, &[]).await?;
    let forward = env.forward(SERVICE, NAMESPACE_OPERATOR, PORT).await?;
    let port = forward.port;

    let metrics = read(port, Some(token(&env, "scraper").await?)).await?;
    ensure!(metrics.contains("bootc_"), "no metric of ours: {metrics}");
    ensure!(refused(port, None).await? == 401);
    let somebody = token(&env, "somebody").await?;
    ensure!(refused(port, Some(somebody)).await? == 403);
    ensure!(refused(port, Some("made-up".to_owned())).await? == 401);
    Ok(())
}

async fn token(env: &Env, account: &str) -> Result<String> {
    let accounts = Api::<ServiceAccount>::namespaced(env.client.clone(), "default");
    let request: TokenRequest = serde_json::from_value(json!({ "spec": { "audiences": [] } }))?;
    let answer = accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await?;
    Ok(answer.status.context("no token")?.token)
}

/// Reads the page as a scraper does: without checking the certificate, which nobody signed.
async fn read(port: u16, token: Option<String>) -> kube::Result<String> {
    let mut config = kube::Config::new(
        format!("https://127.0.0.1:{port}")
            .parse()
            .map_err(|error| kube::Error::Service(Box::new(error)))?,
    );
    config.accept_invalid_certs = true;
    config.default_retry = false;
    config.auth_info = AuthInfo {
        token: token.map(Into::into),
        ..AuthInfo::default()
    };
    let request = Request::get("/metrics").body(Vec::new());
    let request = request.map_err(kube::Error::HttpError)?;
    Client::try_from(config)?.request_text(request).await
}

/// The status with which a reader is turned away.
async fn refused(port: u16, token: Option<String>) -> Result<u16> {
    match read(port, token).await {
        Err(kube::Error::Api(status)) => Ok(status.code),
        other => bail!("not turned away: {other:?}"),
    }
}
