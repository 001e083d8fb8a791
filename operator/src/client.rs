//! The client for the cluster.

use std::time::Duration;

use anyhow::{Context as _, bail};
use hyper_timeout::TimeoutConnector;
use hyper_util::{client::legacy, rt::TokioExecutor};
use kube::{
    Client,
    client::{Body, ConfigExt as _},
};
use tower::{BoxError, ServiceBuilder};

/// A connection on which nothing comes for so long is dead: watches have a bookmark every minute.
const SILENCE: Duration = Duration::from_secs(100);
/// As much as one record of TLS brings. What is read is still being looked at when more comes, and
/// each time a new buffer of this size is made: with the 400 kB that hyper would grow to under load,
/// that costs more than to decode what comes.
const READ_BUFFER: usize = 16 << 10;

/// A client for the cluster: of the pod's service account, or of `KUBECONFIG` outside of one.
///
/// It retries nothing by itself: a refused eviction would be repeated inside of it, unseen, and
/// every other request has a back-off of its own.
pub async fn connect() -> anyhow::Result<Client> {
    // The error's own text holds its causes already.
    let config = kube::Config::infer().await.map_err(|error| {
        anyhow::anyhow!(
            "no cluster to talk to: set KUBECONFIG to a kubeconfig file, or run this in a pod \
             with a service account: {error}"
        )
    })?;
    if config.proxy_url.is_some() {
        bail!(
            "the API server cannot be asked through a proxy: remove `proxy-url` from KUBECONFIG, \
             and unset HTTPS_PROXY"
        );
    }
    client(&config).context(
        "the cluster's address or credentials cannot be used; check KUBECONFIG with: kubectl version",
    )
}

/// As kube makes its clients, but for the size of the buffer, which it does not let anybody choose.
fn client(config: &kube::Config) -> Result<Client, kube::Error> {
    let mut connector = TimeoutConnector::new(config.rustls_https_connector()?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(Some(SILENCE));
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(true);
    let http: legacy::Client<_, Body> = legacy::Client::builder(TokioExecutor::new())
        .http1_max_buf_size(READ_BUFFER)
        .build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace.clone()))
}
