//! Tags to digests: what a registry has under a tag now.
//!
//! A [`Resolver`] is asked from a task of its own and always answers within its deadline, so a slow
//! registry holds nobody up. The tag's manifest is asked for with HEAD, which registries do not
//! count as a pull; an index gives its own digest, not that of one platform.

mod error;
mod retry_after;

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;
use oci_distribution::{
    Client, Reference, RegistryOperation,
    client::{ClientConfig, ClientProtocol},
    errors::OciDistributionError,
    manifest::{
        IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
        OCI_IMAGE_MEDIA_TYPE,
    },
    secrets::RegistryAuth,
};
use reqwest::{Response, StatusCode, header};
use tokio::time::timeout;
use tracing::debug;

pub use error::ResolveError;

use crate::{secrets::DockerConfig, words::plain};
use error::Asked;

/// The deadline of one resolution, with all its requests.
const DEADLINE: Duration = Duration::from_secs(30);
/// The deadline of a connection: with both schemes to try it must fit into [`DEADLINE`] twice.
const CONNECT: Duration = Duration::from_secs(10);
/// How this program calls itself.
const USER_AGENT: &str = concat!("bootc-operator/", env!("CARGO_PKG_VERSION"));
/// The registry's word for what a manifest's bytes hash to.
const DIGEST: &str = "docker-content-digest";

/// Asks registries for digests.
#[derive(Debug)]
pub struct Resolver {
    plain_http: bool,
    deadline: Duration,
    /// Until when a registry asked a user not to come back.
    not_before: Mutex<HashMap<Limited, Timestamp>>,
}

/// Who is limited: registries count by user.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Limited {
    host: String,
    user: Option<String>,
}

/// How a registry is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Https,
    Http,
}

/// Why one scheme gave no digest.
enum Failure {
    /// No connection of this kind: another scheme may do.
    NoConnection(ResolveError),
    Final(ResolveError),
}

impl Resolver {
    /// A resolver; with `plain_http`, registries without TLS are asked without it.
    #[must_use]
    pub fn new(plain_http: bool) -> Self {
        // The HTTP client needs one for the process; another one that is there already is as good.
        let _there_already = rustls::crypto::ring::default_provider().install_default();
        Self {
            plain_http,
            deadline: DEADLINE,
            not_before: Mutex::default(),
        }
    }

    /// The same with another deadline.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The digest (`sha256:…`) that `reference` (`host/repository:tag`) has now. Without `logins`,
    /// or where they have none for this image, the registry is asked anonymously.
    ///
    /// A registry that asked to wait is not asked before; the answer is then the refusal again.
    pub async fn resolve(
        &self,
        reference: &str,
        logins: Option<&DockerConfig>,
    ) -> Result<String, ResolveError> {
        let image: Reference = reference.parse().map_err(|error| ResolveError::Reference {
            reference: reference.to_owned(),
            problem: format!("{error}"),
        })?;
        let login = logins.map_or(RegistryAuth::Anonymous, |logins| logins.login(&image));
        let limited = Limited {
            host: image.registry().to_owned(),
            user: user(&login).map(str::to_owned),
        };
        if let Some(until) = self.must_wait_until(&limited) {
            return Err(ResolveError::RateLimited {
                host: limited.host,
                until: Some(until),
            });
        }
        let answer = timeout(self.deadline, self.ask(&image, &login))
            .await
            .unwrap_or_else(|_| {
                Err(ResolveError::TimedOut {
                    host: limited.host.clone(),
                    after: self.deadline,
                })
            });
        debug!(reference, ?answer, "tag resolved");
        if let Some(until) = answer.as_ref().err().and_then(ResolveError::until) {
            self.limits().insert(limited, until);
        }
        answer
    }

    fn limits(&self) -> MutexGuard<'_, HashMap<Limited, Timestamp>> {
        self.not_before
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when a registry asked not to be asked, if that is still to come.
    fn must_wait_until(&self, limited: &Limited) -> Option<Timestamp> {
        let now = Timestamp::now();
        let mut limits = self.limits();
        limits.retain(|_, until| *until > now);
        limits.get(limited).copied()
    }

    async fn ask(&self, image: &Reference, login: &RegistryAuth) -> Result<String, ResolveError> {
        let secure = match ask(Scheme::Https, image, login).await {
            Ok(digest) => return Ok(digest),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::NoConnection(error)) => error,
        };
        if !self.plain_http {
            return Err(secure);
        }
        match ask(Scheme::Http, image, login).await {
            Ok(digest) => Ok(digest),
            Err(Failure::Final(error)) => Err(error),
            // Neither answers: the words for the one that should are the better ones.
            Err(Failure::NoConnection(_)) => Err(secure),
        }
    }
}

fn user(login: &RegistryAuth) -> Option<&str> {
    match login {
        RegistryAuth::Basic(user, _) => Some(user),
        RegistryAuth::Anonymous | RegistryAuth::Bearer(_) => None,
    }
}

/// Asks by one scheme: a token if the registry wants one, then the manifest's head.
///
/// The clients are made anew each time. They would keep tokens by registry, so that one pool could
/// read with another one's login; and roots on disk may have changed.
async fn ask(scheme: Scheme, image: &Reference, login: &RegistryAuth) -> Result<String, Failure> {
    let tag = image.tag().unwrap_or_default();
    let (host, repository) = (image.registry(), image.repository());
    let asked = Asked {
        host,
        repository,
        tag,
        user: user(login),
    };
    let client = registry_client(scheme).map_err(|error| Failure::Final(asked.client(&error)))?;
    let token = client
        .auth(image, login, RegistryOperation::Pull)
        .await
        .map_err(|error| match error {
            OciDistributionError::RequestError(error) if error.is_connect() => {
                Failure::NoConnection(asked.http(&error))
            }
            error => Failure::Final(asked.client(&error)),
        })?;
    let head = head(scheme, image, login, token)
        .await
        .map_err(|error| Failure::Final(asked.http(&error)))?;
    let digest = match (head.status(), digest_of(&head)) {
        (StatusCode::OK, Some(digest)) => digest,
        // Some registries have no HEAD, or none with a digest: the manifest itself then.
        (StatusCode::OK | StatusCode::METHOD_NOT_ALLOWED, _) => {
            let digest = client.fetch_manifest_digest(image, login).await;
            digest.map_err(|error| Failure::Final(asked.client(&error)))?
        }
        (status, _) => return Err(Failure::Final(asked.status(status.as_u16(), until(&head)))),
    };
    if is_sha256(&digest) {
        Ok(digest)
    } else {
        Err(Failure::Final(asked.broken(&format!(
            "with `{}`, which is no sha256 digest",
            plain(&digest)
        ))))
    }
}

/// Asks for the head of the manifest: digest and `Retry-After` are in it.
async fn head(
    scheme: Scheme,
    image: &Reference,
    login: &RegistryAuth,
    token: Option<String>,
) -> Result<Response, reqwest::Error> {
    let prefix = match scheme {
        Scheme::Https => "https",
        Scheme::Http => "http",
    };
    let tag = image.tag().or(image.digest()).unwrap_or_default();
    let url = format!(
        "{prefix}://{}/v2/{}/manifests/{tag}",
        image.resolve_registry(),
        image.repository()
    );
    let kinds = [
        OCI_IMAGE_INDEX_MEDIA_TYPE,
        IMAGE_MANIFEST_LIST_MEDIA_TYPE,
        OCI_IMAGE_MEDIA_TYPE,
        IMAGE_MANIFEST_MEDIA_TYPE,
    ];
    let request = http_client()?
        .head(url)
        .header(header::ACCEPT, kinds.join(", "));
    let request = match (token, login) {
        (Some(token), _) => request.bearer_auth(token),
        (None, RegistryAuth::Basic(user, password)) => request.basic_auth(user, Some(password)),
        (None, _) => request,
    };
    request.send().await
}

fn digest_of(head: &Response) -> Option<String> {
    Some(head.headers().get(DIGEST)?.to_str().ok()?.trim().to_owned())
}

fn until(head: &Response) -> Option<Timestamp> {
    let value = head.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    retry_after::until(value, Timestamp::now())
}

/// The form that a pool's status and a node's desired image may have.
fn is_sha256(digest: &str) -> bool {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    hex.len() == 64
        && hex
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn registry_client(scheme: Scheme) -> Result<Client, OciDistributionError> {
    Client::try_from(ClientConfig {
        protocol: match scheme {
            Scheme::Https => ClientProtocol::Https,
            Scheme::Http => ClientProtocol::Http,
        },
        connect_timeout: Some(CONNECT),
        user_agent: USER_AGENT,
        ..ClientConfig::default()
    })
}

/// The HTTP client beneath, for the one request whose headers the registry client does not show.
fn http_client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .connect_timeout(CONNECT)
        .user_agent(USER_AGENT)
        .build()
}

#[cfg(test)]
mod tests;
