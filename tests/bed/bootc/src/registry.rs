//! A blocking client for one OCI registry.
//!
//! Its errors are those that bootc shows for skopeo's, because the agent puts
//! them before the cluster's admin.

use std::io::Read;
use std::net::ToSocketAddrs;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use oci_spec::distribution::Reference;
use ureq::http::Response;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// How a registry is reached.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    /// Base address instead of the one that the reference names.
    pub(crate) endpoint: Option<String>,
    /// Unverified TLS or plain http are allowed (`insecure = true`).
    pub(crate) insecure: bool,
    /// Value of the Authorization header.
    pub(crate) authorization: Option<String>,
    /// Certificates to trust beside the well-known ones, PEM.
    pub(crate) roots: Vec<u8>,
}

/// One repository of one registry.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    base: String,
    authorization: Option<String>,
    repository: String,
    /// `host:port/repository`, for messages.
    name: String,
}

impl Client {
    /// Finds out how the registry of `reference` speaks (https, or http where it may).
    pub(crate) fn connect(reference: &Reference, access: &Access) -> Result<Self> {
        let mut client = Self {
            agent: agent(access)?,
            base: String::new(),
            authorization: access.authorization.clone(),
            repository: reference.repository().to_owned(),
            name: format!("{}/{}", reference.registry(), reference.repository()),
        };
        let host = reference.resolve_registry();
        let bases = match &access.endpoint {
            Some(endpoint) => vec![endpoint.trim_end_matches('/').to_owned()],
            None if access.insecure => vec![format!("https://{host}"), format!("http://{host}")],
            None => vec![format!("https://{host}")],
        };
        let mut failure = anyhow!("no address for {host}");
        for base in bases {
            match client.agent.get(format!("{base}/v2/")).call() {
                Ok(_) => {
                    client.base = base;
                    return Ok(client);
                }
                Err(e) => failure = ping_error(host, &base, &e),
            }
        }
        Err(failure)
    }

    /// A manifest or index by tag or digest.
    pub(crate) fn manifest(&self, wanted: &str) -> Result<Vec<u8>> {
        let name = &self.name;
        let mut answer = self
            .get(&format!("manifests/{wanted}"), MANIFEST_TYPES)
            .with_context(|| format!("reading manifest {wanted} in {name}"))?;
        match answer.status().as_u16() {
            200 => Ok(answer.body_mut().read_to_vec()?),
            401 | 403 => bail!("reading manifest {wanted} in {name}: authentication required"),
            404 => bail!("reading manifest {wanted} in {name}: manifest unknown"),
            _ => bail!(
                "reading manifest {wanted} in {name}: received unexpected HTTP status: {}",
                answer.status()
            ),
        }
    }

    /// A blob's bytes as they come.
    pub(crate) fn blob(&self, digest: &str) -> Result<impl Read + use<>> {
        let answer = self
            .get(&format!("blobs/{digest}"), "*/*")
            .with_context(|| format!("fetching blob {digest}"))?;
        if answer.status().as_u16() != 200 {
            bail!(
                "fetching blob: received unexpected HTTP status: {}",
                answer.status()
            );
        }
        Ok(answer
            .into_body()
            .into_with_config()
            .limit(u64::MAX)
            .reader())
    }

    fn get(&self, path: &str, accept: &str) -> Result<Response<Body>> {
        let mut request = self
            .agent
            .get(format!("{}/v2/{}/{path}", self.base, self.repository))
            .header("Accept", accept);
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        request.call().map_err(|e| anyhow!(reason(&e)))
    }
}

fn agent(access: &Access) -> Result<Agent> {
    let mut certificates = Vec::new();
    for item in ureq::tls::parse_pem(&access.roots) {
        if let ureq::tls::PemItem::Certificate(c) = item.context("loading certificates")? {
            certificates.push(c);
        }
    }
    let roots = if certificates.is_empty() {
        RootCerts::WebPki
    } else {
        RootCerts::new_with_certs(&certificates as &[Certificate])
    };
    let tls = TlsConfig::builder()
        .disable_verification(access.insecure)
        .root_certs(roots)
        .build();
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .tls_config(tls)
        .user_agent("bootc/1.16.9")
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_per_read(Some(Duration::from_secs(300)))
        .build();
    Ok(config.new_agent())
}

/// As Go's net package words it: `pinging container registry H: Get "U": dial tcp A: connect: R`.
fn ping_error(host: &str, base: &str, error: &ureq::Error) -> anyhow::Error {
    let target = base.split_once("://").map_or(base, |(_, h)| h);
    let dial = match error {
        ureq::Error::HostNotFound => format!(
            "dial tcp: lookup {}: no such host",
            target.split(':').next().unwrap_or(target)
        ),
        ureq::Error::Io(e) if e.raw_os_error().is_some() => {
            let address = target.to_socket_addrs().ok().and_then(|mut a| a.next());
            let address = address.map_or_else(|| target.to_owned(), |a| a.to_string());
            format!("dial tcp {address}: connect: {}", reason(error))
        }
        other => reason(other),
    };
    anyhow!("pinging container registry {host}: Get \"{base}/v2/\": {dial}")
}

/// The system's words in Go's spelling: lower case, without the error's number.
fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(e) => match e.raw_os_error() {
            Some(errno) => nix::errno::Errno::from_raw(errno).desc().to_lowercase(),
            None => e.to_string(),
        },
        ureq::Error::Timeout(_) => "i/o timeout".to_owned(),
        other => other.to_string(),
    }
}
