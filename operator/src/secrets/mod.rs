//! Pull secrets: the ones that pools name are watched, and nothing else of any namespace is read.
//!
//! What comes out is a hash or an error. The content itself is fetched when a registry is asked
//! ([`fetch`]) and dropped again; it never reaches a log line, a status, the journal or a trace.

mod docker_config;
mod view;
mod watch;

use std::{fmt, time::Duration};

use crd::names::{
    NAMESPACE_AGENT, NAMESPACE_OPERATOR, SERVICE_ACCOUNT_AGENT, SERVICE_ACCOUNT_OPERATOR,
};
use fsm::view::SecretRef;
use kube::{Api, Client};
use thiserror::Error;
use tokio::time::timeout;

pub use docker_config::DockerConfig;
pub use watch::{SecretEvent, Secrets};

use crate::words;
use view::SecretView;

/// The deadline of a request for a Secret.
const GET: Duration = Duration::from_secs(10);

/// A pull secret's content as a hash: 64 hexadecimal digits of SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretHash(pub String);

impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a pull secret cannot be used. Each says which Secret is meant and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("Secret {namespace}/{name} {problem}", namespace = secret.namespace, name = secret.name)]
pub struct SecretError {
    /// The Secret.
    pub secret: SecretRef,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a pull secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// There is no such Secret.
    Missing,
    /// It is of another type.
    WrongType {
        /// The type that it has.
        found: String,
    },
    /// Its content cannot be read; where, but not what.
    Malformed(String),
    /// The operator has no right to read it.
    Forbidden {
        /// The two commands that grant it.
        grant: String,
    },
    /// The API server does not answer, or not well.
    Unreadable(String),
}

impl std::error::Error for Problem {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => {
                f.write_str("does not exist; create it, or name another in pullSecretRef")
            }
            Self::WrongType { found } => write!(
                f,
                "is of type {found}; it must be of type kubernetes.io/dockerconfigjson \
                 (kubectl create secret docker-registry)"
            ),
            Self::Malformed(place) => {
                write!(f, "has a .dockerconfigjson that cannot be read: {place}")
            }
            Self::Forbidden { grant } => {
                write!(
                    f,
                    "may not be read by the operator; add a Role and a RoleBinding: {grant}"
                )
            }
            Self::Unreadable(error) => write!(f, "cannot be read: {error}; trying again"),
        }
    }
}

/// The content of a Secret as it is now, to log in to a registry with.
pub async fn fetch(client: &Client, secret: &SecretRef) -> Result<DockerConfig, SecretError> {
    let fail = |problem| SecretError {
        secret: secret.clone(),
        problem,
    };
    let api: Api<SecretView> = Api::namespaced(client.clone(), &secret.namespace);
    match timeout(GET, api.get(&secret.name)).await {
        Ok(Ok(view)) => view.read().map(|(_, config)| config).map_err(fail),
        Ok(Err(error)) => Err(fail(problem(secret, &error))),
        Err(_) => Err(fail(Problem::Unreadable(format!(
            "no answer in {} s",
            GET.as_secs()
        )))),
    }
}

/// What the API server's refusal to show a Secret means.
fn problem(secret: &SecretRef, error: &kube::Error) -> Problem {
    match error {
        kube::Error::Api(status) if status.code == 404 => Problem::Missing,
        kube::Error::Api(status) if status.code == 403 => Problem::Forbidden {
            grant: grant(secret, &status.message),
        },
        // Its words may quote what could not be read.
        kube::Error::SerdeError(_) => Problem::Unreadable("the answer is no Secret".to_owned()),
        error => Problem::Unreadable(words::request(error)),
    }
}

/// The commands that let operator and agents read a Secret. The refusal names the operator's own
/// account.
fn grant(secret: &SecretRef, refusal: &str) -> String {
    let account = refusal
        .split_once("system:serviceaccount:")
        .and_then(|(_, rest)| {
            let (account, _) = rest.split_once('"')?;
            account.split_once(':')
        });
    let (own, operator) = account.unwrap_or((NAMESPACE_OPERATOR, SERVICE_ACCOUNT_OPERATOR));
    let SecretRef { namespace, name } = secret;
    format!(
        "`kubectl create role bootc-pull-secret -n {namespace} --verb=get,watch --resource=secrets \
         --resource-name={name}` and `kubectl create rolebinding bootc-pull-secret -n {namespace} \
         --role=bootc-pull-secret --serviceaccount={own}:{operator} --serviceaccount={NAMESPACE_AGENT}:{SERVICE_ACCOUNT_AGENT}`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn fleet() -> SecretRef {
        SecretRef {
            name: "pull".to_owned(),
            namespace: "fleet".to_owned(),
        }
    }

    fn api(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Status::failure(message, "").with_code(code).boxed())
    }

    #[test]
    fn a_refusal_names_the_binding_to_add() {
        let refusal = "secrets \"pull\" is forbidden: User \"system:serviceaccount:ops:the-operator\" \
                       cannot watch resource \"secrets\" in API group \"\" in the namespace \"fleet\"";
        let problem = problem(&fleet(), &api(403, refusal));
        let error = SecretError {
            secret: fleet(),
            problem,
        };
        assert_eq!(
            error.to_string(),
            "Secret fleet/pull may not be read by the operator; add a Role and a RoleBinding: \
             `kubectl create role bootc-pull-secret -n fleet --verb=get,watch --resource=secrets \
             --resource-name=pull` and `kubectl create rolebinding bootc-pull-secret -n fleet \
             --role=bootc-pull-secret --serviceaccount=ops:the-operator --serviceaccount=bootc-agent:bootc-nodeagent`"
        );
    }

    #[test]
    fn answers_in_words() {
        assert_eq!(problem(&fleet(), &api(404, "x")), Problem::Missing);
        let broken = serde_json::from_str::<u8>("\"hunter2\"").unwrap_err();
        let unreadable = problem(&fleet(), &kube::Error::SerdeError(broken));
        assert_eq!(
            unreadable.to_string(),
            "cannot be read: the answer is no Secret; trying again"
        );
        assert!(matches!(
            problem(&fleet(), &api(500, "etcd")),
            Problem::Unreadable(_)
        ));
    }
}
