//! A certificate for this process's lifetime. Scrapers of a cluster do not check it (they have no
//! authority to check it by); it keeps their tokens from being read on the way.

use std::sync::Arc;

use anyhow::Context as _;
use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// The name under which the Service is asked for.
const NAME: &str = "bootc-operator-metrics.bootc-operator.svc";

pub(super) fn acceptor() -> anyhow::Result<TlsAcceptor> {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()])
        .context("cannot make a certificate for /metrics")?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())
        .map_err(|error| anyhow::anyhow!("cannot use the key of /metrics: {error}"))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
