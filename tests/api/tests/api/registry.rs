//! Tags are resolved at a real registry: with and without a login, up and down.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use api_tests::{
    Suite,
    registry::{Server, USER},
};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use oci_distribution::{
    Client,
    client::{ClientConfig, ClientProtocol},
    secrets::RegistryAuth,
};
use operator::{
    registry::{ResolveError, Resolver},
    secrets::DockerConfig,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial("registry::a_tag_is_followed_as_it_moves", |_| moved_tag()),
        suite.trial("registry::an_index_has_its_own_digest", |_| index()),
        suite.trial("registry::only_the_right_login_reads", |_| login()),
        suite.trial("registry::down_and_up_again", |_| down()),
        suite.trial("registry::frozen", |_| frozen()),
    ]
}

fn logins(server: &Server, password: &str) -> Result<DockerConfig> {
    DockerConfig::parse(server.logins(password).to_string().as_bytes()).map_err(anyhow::Error::msg)
}

async fn moved_tag() -> Result<()> {
    let server = Server::start(false).await?;
    let resolver = Resolver::new(true);
    let first = server.push("VERSION=1", "stable").await?;
    ensure!(resolver.resolve(&server.reference("stable"), None).await? == first);
    let second = server.push("VERSION=2", "stable").await?;
    ensure!(first != second);
    ensure!(resolver.resolve(&server.reference("stable"), None).await? == second);
    let error = resolver.resolve(&server.reference("nightly"), None).await;
    ensure!(
        matches!(error, Err(ResolveError::NotFound { .. })),
        "{error:?}"
    );
    Ok(())
}

async fn index() -> Result<()> {
    let server = Server::start(false).await?;
    let platform = server.push("VERSION=1", "amd64").await?;
    let client = Client::new(ClientConfig {
        protocol: ClientProtocol::Http,
        ..ClientConfig::default()
    });
    let (reference, anonymous) = (server.reference("amd64").parse()?, RegistryAuth::Anonymous);
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let (manifest, _) = client
        .pull_manifest_raw(&reference, &anonymous, &[media_type])
        .await?;
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": platform, "size": manifest.len(),
            "platform": { "architecture": "amd64", "os": "linux" },
        }],
    });
    let media_type = http::HeaderValue::from_static("application/vnd.oci.image.index.v1+json");
    let target = server.reference("multi").parse()?;
    let wanted = Sha256::digest(index.to_string())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>();
    client
        .push_manifest_raw(&target, index.to_string(), media_type)
        .await?;
    let found = Resolver::new(true)
        .resolve(&server.reference("multi"), None)
        .await?;
    ensure!(found != platform, "the digest of one platform");
    ensure!(found == format!("sha256:{}", wanted.concat()), "{found}");
    Ok(())
}

async fn login() -> Result<()> {
    let server = Server::start(true).await?;
    let digest = server.push("VERSION=1", "stable").await?;
    let (resolver, reference) = (Resolver::new(true), server.reference("stable"));
    ensure!(
        resolver
            .resolve(&reference, Some(&logins(&server, USER.1)?))
            .await?
            == digest
    );
    // What one pool's login reads, another pool must not.
    for logins in [None, Some(logins(&server, "wrong battery")?)] {
        let error = resolver.resolve(&reference, logins.as_ref()).await;
        let Err(error @ ResolveError::Denied { .. }) = error else {
            anyhow::bail!("not denied: {error:?}")
        };
        ensure!(!error.to_string().contains("battery"), "{error}");
    }
    Ok(())
}

async fn down() -> Result<()> {
    let mut server = Server::start(false).await?;
    let digest = server.push("VERSION=1", "stable").await?;
    let (resolver, reference) = (Resolver::new(true), server.reference("stable"));
    server.stop();
    let error = resolver.resolve(&reference, None).await;
    ensure!(
        matches!(error, Err(ResolveError::Unreachable { .. })),
        "{error:?}"
    );
    server.run().await?;
    ensure!(resolver.resolve(&reference, None).await? == digest);
    Ok(())
}

async fn frozen() -> Result<()> {
    let server = Server::start(false).await?;
    let digest = server.push("VERSION=1", "stable").await?;
    let resolver = Resolver::new(true).with_deadline(Duration::from_secs(2));
    let reference = server.reference("stable");
    server.signal(Signal::SIGSTOP)?;
    let error = resolver.resolve(&reference, None).await;
    ensure!(
        matches!(error, Err(ResolveError::TimedOut { .. })),
        "{error:?}"
    );
    server.signal(Signal::SIGCONT)?;
    ensure!(resolver.resolve(&reference, None).await? == digest);
    Ok(())
}
