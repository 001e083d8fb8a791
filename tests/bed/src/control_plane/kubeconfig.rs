//! Kubeconfigs and clients.

use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde_json::json;

use super::pki::{KeyedCertificate, Pki};

/// How long one look at the API server may take.
const LOOK: Duration = Duration::from_secs(2);

/// The text of a kubeconfig with everything in it. It is JSON, which is YAML.
#[must_use]
pub fn kubeconfig(server: &str, pki: &Pki, user: &KeyedCertificate) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "bed", "cluster": {
            "server": server,
            "certificate-authority-data": STANDARD.encode(pki.certificate()),
        }}],
        "users": [{"name": "bed", "user": {
            "client-certificate-data": STANDARD.encode(&user.certificate),
            "client-key-data": STANDARD.encode(&user.key),
        }}],
        "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": "bed"}}],
        "current-context": "bed",
    })
    .to_string()
}

/// A client that repeats nothing by itself.
pub(super) async fn client(kubeconfig: &str) -> Result<Client> {
    // Fails when the process has chosen a provider already, which is as good.
    let _chosen_before = rustls::crypto::ring::default_provider().install_default();
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig)?;
    let mut config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Client::try_from(config).context("cannot make a client")
}

/// Whether the API server says that it is ready.
pub(super) async fn is_ready(client: &Client) -> Result<bool> {
    let request = http::Request::get("/readyz").body(Vec::new())?;
    let answer = tokio::time::timeout(LOOK, client.request_text(request)).await;
    Ok(matches!(answer, Ok(Ok(text)) if text == "ok"))
}

/// Whether the controllers are at work: the namespace `default` has its service
/// account.
pub(super) async fn has_default_account(client: &Client) -> Result<bool> {
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), "default");
    let found = tokio::time::timeout(LOOK, accounts.get_opt("default")).await;
    Ok(matches!(found, Ok(Ok(Some(_)))))
}
