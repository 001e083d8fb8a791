//! Why a tag has no digest, and what to do about it.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use oci_distribution::errors::{OciDistributionError, OciErrorCode};
use thiserror::Error;

use crate::words::{chain, plain};

/// Why a tag has no digest.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ResolveError {
    /// It is no reference to an image.
    #[error("`{reference}` is not an image reference ({problem}); write host/repository:tag")]
    Reference {
        /// The reference.
        reference: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No connection, or none with TLS that can be trusted.
    #[error("registry {host} cannot be reached: {problem}")]
    Unreachable {
        /// The registry.
        host: String,
        /// The network's own words.
        problem: String,
    },
    /// No answer in time.
    #[error("registry {host} gave no answer in {} s", after.as_secs())]
    TimedOut {
        /// The registry.
        host: String,
        /// The deadline.
        after: Duration,
    },
    /// 401, 403, or no token.
    #[error("registry {host} does not let {who} read {repository}{words}; {advice}")]
    Denied {
        /// The registry.
        host: String,
        /// The repository.
        repository: String,
        /// The user of the pull secret, or "anonymous users".
        who: String,
        /// The registry's own words, after a colon; empty if it gave none.
        words: String,
        /// What to do.
        advice: &'static str,
    },
    /// 404.
    #[error("registry {host} has no {image}; was it pushed, and is the tag right?")]
    NotFound {
        /// The registry.
        host: String,
        /// `repository:tag`
        image: String,
    },
    /// 429: too many requests.
    #[error("registry {host} limits the rate of requests{}; a login in pullSecretRef often has a higher limit", later(*until))]
    RateLimited {
        /// The registry.
        host: String,
        /// Until when it asks to wait.
        until: Option<Timestamp>,
    },
    /// Another answer than the protocol has, or an error of the registry's own.
    #[error("registry {host} answered {problem}{}", later(*until))]
    Broken {
        /// The registry.
        host: String,
        /// What it answered.
        problem: String,
        /// Until when it asks to wait.
        until: Option<Timestamp>,
    },
}

fn later(until: Option<Timestamp>) -> String {
    until.map_or_else(String::new, |until| {
        format!(" and asks to wait until {until}")
    })
}

impl ResolveError {
    /// Until when the registry asks to be left alone (`Retry-After`).
    #[must_use]
    pub fn until(&self) -> Option<Timestamp> {
        match self {
            Self::RateLimited { until, .. } | Self::Broken { until, .. } => *until,
            _ => None,
        }
    }
}

/// Whom a registry is asked for what, for its errors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) host: &'a str,
    pub(super) repository: &'a str,
    pub(super) tag: &'a str,
    /// The user of the pull secret, if it has one for this image.
    pub(super) user: Option<&'a str>,
}

impl Asked<'_> {
    pub(super) fn denied(self, words: &str) -> ResolveError {
        let (who, advice) = match self.user {
            Some(user) => (
                format!("{user:?}"),
                "check the login in the Secret of pullSecretRef",
            ),
            None => (
                "anonymous users".to_owned(),
                "name a Secret with a login for this registry in pullSecretRef",
            ),
        };
        let words = if words.is_empty() {
            String::new()
        } else {
            format!(": {}", plain(words))
        };
        let (host, repository) = (self.host.to_owned(), self.repository.to_owned());
        ResolveError::Denied {
            host,
            repository,
            who,
            words,
            advice,
        }
    }

    pub(super) fn unreachable(self, problem: String) -> ResolveError {
        ResolveError::Unreachable {
            host: self.host.to_owned(),
            problem,
        }
    }

    pub(super) fn broken(self, problem: &str) -> ResolveError {
        ResolveError::Broken {
            host: self.host.to_owned(),
            problem: plain(problem),
            until: None,
        }
    }

    /// What an HTTP status other than 200 means.
    pub(super) fn status(self, status: u16, until: Option<Timestamp>) -> ResolveError {
        let host = self.host.to_owned();
        match status {
            401 | 403 => self.denied(""),
            404 => ResolveError::NotFound {
                host,
                image: format!("{}:{}", self.repository, self.tag),
            },
            429 => ResolveError::RateLimited { host, until },
            status => ResolveError::Broken {
                host,
                problem: format!("HTTP {status}"),
                until,
            },
        }
    }

    /// What an error of the HTTP client means.
    pub(super) fn http(self, error: &reqwest::Error) -> ResolveError {
        self.unreachable(plain(&chain(error)))
    }

    /// What an error of the registry client means.
    pub(super) fn client(self, error: &OciDistributionError) -> ResolveError {
        match error {
            OciDistributionError::RequestError(error) => self.http(error),
            OciDistributionError::AuthenticationFailure(words) => self.denied(words),
            OciDistributionError::UnauthorizedError { .. } => self.status(401, None),
            OciDistributionError::ImageManifestNotFoundError(_) => self.status(404, None),
            OciDistributionError::ServerError { code, .. } => self.status(*code, None),
            OciDistributionError::RegistryError { envelope, .. } => {
                let has = |code| envelope.errors.iter().any(|error| error.code == code);
                match () {
                    () if has(OciErrorCode::Toomanyrequests) => self.status(429, None),
                    () if has(OciErrorCode::Denied) || has(OciErrorCode::Unauthorized) => {
                        self.status(401, None)
                    }
                    () if has(OciErrorCode::ManifestUnknown) || has(OciErrorCode::NameUnknown) => {
                        self.status(404, None)
                    }
                    () => self.broken(&envelope.to_string()),
                }
            }
            // The parser quotes what it could not read, which may be a token.
            OciDistributionError::RegistryTokenDecodeError(_) => {
                self.broken("with a token that cannot be read")
            }
            error => self.broken(&error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(user: Option<&str>) -> Asked<'_> {
        Asked {
            host: "q.io",
            repository: "fleet/os",
            tag: "v1",
            user,
        }
    }

    #[test]
    fn answers_in_words() {
        let until = Some("2026-01-01T12:00:00Z".parse().unwrap());
        for (error, wanted) in [
            (
                asked(None).status(401, None),
                "registry q.io does not let anonymous users read fleet/os; \
                 name a Secret with a login for this registry in pullSecretRef",
            ),
            (
                asked(Some("me")).denied("wrong\npassword"),
                "registry q.io does not let \"me\" read fleet/os: wrong password; \
                 check the login in the Secret of pullSecretRef",
            ),
            (
                asked(None).status(404, None),
                "registry q.io has no fleet/os:v1; was it pushed, and is the tag right?",
            ),
            (
                asked(None).status(429, until),
                "registry q.io limits the rate of requests and asks to wait until 2026-01-01T12:00:00Z; \
                 a login in pullSecretRef often has a higher limit",
            ),
            (
                asked(None).status(503, None),
                "registry q.io answered HTTP 503",
            ),
        ] {
            assert_eq!(error.to_string(), wanted);
        }
    }

    #[test]
    fn only_what_the_registry_asks_for_is_a_wait() {
        let until = Some("2026-01-01T12:00:00Z".parse().unwrap());
        assert_eq!(asked(None).status(429, until).until(), until);
        assert_eq!(asked(None).status(503, until).until(), until);
        assert_eq!(asked(None).status(404, until).until(), None);
    }

    #[test]
    fn a_token_that_cannot_be_read_is_not_quoted() {
        let error =
            OciDistributionError::RegistryTokenDecodeError("invalid value: hunter2".to_owned());
        assert!(!asked(None).client(&error).to_string().contains("hunter2"));
    }
}
