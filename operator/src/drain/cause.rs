//! Why a pod is still on a node: the API server's answers put into words.
//!
//! Pure. No answer ends a drain; each is a reason to wait, with what a person can do about it.

use std::{fmt, time::Duration};

use kube::core::{Status, response::StatusCause};

use super::pod::PodName;
use crate::words::{self, plain};

/// What the API server names the cause of a refusal by a budget.
const BUDGET_CAUSE: &str = "DisruptionBudget";
/// How its sentence about that budget begins.
const BUDGET_PREFIX: &str = "The disruption budget ";
/// Its words for a pod under several budgets, for which it has no reason or cause of its own.
const MANY_BUDGETS: &str = "more than one PodDisruptionBudget";
/// The cause of every refusal in a namespace that is being deleted.
const NAMESPACE_GOING: &str = "NamespaceTerminating";

/// The longest wait that an answer may ask for: a drain never stands still for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Why a drain waits for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A `PodDisruptionBudget` has no disruption left.
    Budget {
        /// `namespace/name` of the budget, where the API server named it.
        budget: Option<String>,
        /// What the API server says of it, such as `needs 2 healthy pods and has 2 currently`.
        detail: String,
    },
    /// Several budgets select the pod: the API server evicts no such pod at all.
    ManyBudgets,
    /// Its namespace is being deleted, and the pod with it.
    NamespaceGoing,
    /// Refused by an admission webhook or policy, by missing rights, or by an error.
    Refused {
        /// The HTTP status code.
        code: u16,
        /// The API server's own words; it names the webhook or policy.
        message: String,
    },
    /// The API server has too much to do.
    Busy,
    /// No answer within the deadline.
    NoAnswer {
        /// The deadline.
        after: Duration,
    },
    /// The API server cannot be reached, or its answer cannot be read.
    Unreachable(String),
    /// This replica may not act at the moment.
    NotLeader,
    /// Its node was silent: Kubernetes calls it not ready, and would evict it past its budget.
    Silenced,
    /// Evicted, and it does not go.
    Ignored,
    /// It is stopping.
    Terminating {
        /// The seconds it may take.
        grace: i64,
        /// Whether that time is over.
        overdue: bool,
        /// Who must let it go first.
        finalizers: Vec<String>,
    },
}

impl Cause {
    /// Every answer of [`Self::blocks`].
    pub const BLOCKING: [&'static str; 7] = [
        "PodDisruptionBudget",
        "NamespaceTerminating",
        "Refused",
        "ApiServer",
        "NotLeader",
        "NodeSilent",
        "StillTerminating",
    ];

    /// What holds the pod up, in one word; `None` if it goes in its own time.
    #[must_use]
    pub fn blocks(&self) -> Option<&'static str> {
        Some(match self {
            Self::Budget { .. } | Self::ManyBudgets => "PodDisruptionBudget",
            Self::NamespaceGoing => "NamespaceTerminating",
            Self::Refused { .. } => "Refused",
            Self::Busy | Self::NoAnswer { .. } | Self::Unreachable(_) => "ApiServer",
            Self::NotLeader => "NotLeader",
            Self::Silenced => "NodeSilent",
            Self::Terminating { overdue: true, .. } => "StillTerminating",
            Self::Ignored | Self::Terminating { .. } => return None,
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Budget { budget, detail } => {
                let name = budget.as_deref().unwrap_or("of its namespace");
                write!(f, "PodDisruptionBudget {name} allows 0 disruptions")?;
                if detail.is_empty() {
                    Ok(())
                } else {
                    write!(f, " ({detail})")
                }
            }
            Self::ManyBudgets => f.write_str(
                "more than one PodDisruptionBudget selects it, and the API server evicts no such \
                 pod; change their selectors so that one is left",
            ),
            Self::NamespaceGoing => {
                f.write_str("its namespace is being deleted, and the pod with it")
            }
            Self::Refused { code, message } => {
                write!(f, "eviction refused (HTTP {code}): {message}")
            }
            Self::Busy => f.write_str("the API server is busy and asks to try later"),
            Self::NoAnswer { after } => {
                write!(
                    f,
                    "no answer to its eviction in {} s; is a webhook or etcd slow?",
                    after.as_secs()
                )
            }
            Self::Unreachable(error) => write!(f, "the API server cannot be asked: {error}"),
            Self::NotLeader => {
                f.write_str("this operator may not act now: its Lease is not renewed")
            }
            Self::Silenced => f.write_str(
                "its node was silent, and Kubernetes calls it not ready for that alone; it is evicted \
                 when its kubelet has reported it again, or after a minute",
            ),
            Self::Ignored => f.write_str("evicted, but not deleted yet; asking again"),
            Self::Terminating {
                grace,
                overdue: false,
                finalizers,
            } => {
                write!(f, "stopping (has {grace} s)")?;
                held_by(f, finalizers)
            }
            Self::Terminating {
                grace,
                overdue: true,
                finalizers,
            } if finalizers.is_empty() => {
                write!(
                    f,
                    "still stopping after its {grace} s; is the kubelet of its node well?"
                )
            }
            Self::Terminating {
                grace,
                overdue: true,
                finalizers,
            } => {
                write!(f, "still there after its {grace} s to stop")?;
                held_by(f, finalizers)
            }
        }
    }
}

fn held_by(f: &mut fmt::Formatter<'_>, finalizers: &[String]) -> fmt::Result {
    if finalizers.is_empty() {
        return Ok(());
    }
    write!(f, ", held by finalizers {}", finalizers.join(", "))
}

/// What an eviction's answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The pod will go; the watch says when it is gone.
    Accepted,
    /// This very pod is no longer there; the watch will say so.
    Gone,
    /// Not now.
    Refused {
        /// Why.
        cause: Cause,
        /// What the API server asks to wait at least.
        wait: Duration,
    },
}

impl Answer {
    /// A refusal for which the API server asks no wait of its own.
    pub(super) fn refused(cause: Cause) -> Self {
        Self::Refused {
            cause,
            wait: Duration::ZERO,
        }
    }
}

/// Reads the answer to the eviction of `pod`, which carried its UID as precondition.
pub(super) fn read(pod: &PodName, answer: Result<(), kube::Error>) -> Answer {
    match answer {
        Ok(()) => Answer::Accepted,
        Err(kube::Error::Api(status)) => read_status(pod, &status),
        Err(error) => Answer::refused(Cause::Unreachable(words::request(&error))),
    }
}

fn read_status(pod: &PodName, status: &Status) -> Answer {
    let cause = match status.code {
        404 => return Answer::Gone,
        429 => budget(pod, status).unwrap_or(Cause::Busy),
        403 if cause(status, NAMESPACE_GOING).is_some() => Cause::NamespaceGoing,
        500 if status.message.contains(MANY_BUDGETS) => Cause::ManyBudgets,
        code => Cause::Refused {
            code,
            message: plain(&status.message),
        },
    };
    let wait = status
        .details
        .as_ref()
        .map_or(0, |details| details.retry_after_seconds);
    Answer::Refused {
        cause,
        wait: Duration::from_secs(wait.into()).min(LONGEST_WAIT),
    }
}

fn cause<'a>(status: &'a Status, reason: &str) -> Option<&'a StatusCause> {
    status
        .details
        .as_ref()?
        .causes
        .iter()
        .find(|cause| cause.reason == reason)
}

/// The budget that a 429 speaks of. The API server uses the same code for its own overload.
fn budget(pod: &PodName, status: &Status) -> Option<Cause> {
    let said = plain(&cause(status, BUDGET_CAUSE)?.message);
    let named = said
        .strip_prefix(BUDGET_PREFIX)
        .and_then(|rest| rest.split_once(' '));
    Some(match named {
        Some((name, detail)) => Cause::Budget {
            budget: Some(format!("{}/{name}", pod.namespace)),
            detail: detail.trim_end_matches('.').to_owned(),
        },
        None => Cause::Budget {
            budget: None,
            detail: said,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn answer(status: Value) -> Answer {
        let status: Status = serde_json::from_value(status).unwrap();
        read(
            &PodName::new("shop", "web-1"),
            Err(kube::Error::Api(Box::new(status))),
        )
    }

    fn text(status: Value) -> String {
        match answer(status) {
            Answer::Refused { cause, .. } => cause.to_string(),
            other => panic!("{other:?} is no refusal"),
        }
    }

    fn budget_says(message: &str) -> Value {
        json!({"code": 429, "reason": "TooManyRequests",
               "message": "Cannot evict pod as it would violate the pod's disruption budget.",
               "details": {"causes": [{"reason": "DisruptionBudget", "message": message}],
                           "retryAfterSeconds": 10}})
    }

    #[test]
    fn refusals_in_words() {
        let rows = [
            (
                budget_says("The disruption budget web needs 2 healthy pods and has 2 currently"),
                "PodDisruptionBudget shop/web allows 0 disruptions (needs 2 healthy pods and has 2 currently)",
            ),
            (
                budget_says("The disruption budget web is still being processed by the server."),
                "PodDisruptionBudget shop/web allows 0 disruptions (is still being processed by the server)",
            ),
            (
                budget_says("A new wording"),
                "PodDisruptionBudget of its namespace allows 0 disruptions (A new wording)",
            ),
            (
                json!({"code": 429, "reason": "TooManyRequests", "message": "too many requests"}),
                "the API server is busy and asks to try later",
            ),
            (
                json!({"code": 500, "message": "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."}),
                "more than one PodDisruptionBudget selects it, and the API server evicts no such pod; change their selectors so that one is left",
            ),
            (
                json!({"code": 403, "reason": "Forbidden", "message": "admission webhook \"no.example.com\" denied the request:\n not today"}),
                "eviction refused (HTTP 403): admission webhook \"no.example.com\" denied the request: not today",
            ),
            (
                json!({"code": 403, "reason": "Forbidden", "message": "x",
                       "details": {"causes": [{"reason": "NamespaceTerminating", "message": "y"}]}}),
                "its namespace is being deleted, and the pod with it",
            ),
            (
                json!({"code": 409, "reason": "Conflict", "message": "the UID in the precondition (a) does not match"}),
                "eviction refused (HTTP 409): the UID in the precondition (a) does not match",
            ),
            (
                json!({"code": 504, "reason": "Timeout", "message": "Timeout: request did not complete"}),
                "eviction refused (HTTP 504): Timeout: request did not complete",
            ),
        ];
        for (status, wanted) in rows {
            assert_eq!(text(status), wanted);
        }
    }

    #[test]
    fn the_wait_that_the_server_asks_for_is_kept() {
        let Answer::Refused { wait, .. } = answer(budget_says("The disruption budget web x"))
        else {
            panic!("not a refusal")
        };
        assert_eq!(wait, Duration::from_secs(10));
        let Answer::Refused { wait, .. } = answer(json!({"code": 500, "message": "x"})) else {
            panic!("not a refusal")
        };
        assert_eq!(wait, Duration::ZERO);
    }

    #[test]
    fn answers_that_are_no_refusal() {
        assert_eq!(
            answer(json!({"code": 404, "reason": "NotFound"})),
            Answer::Gone
        );
        assert_eq!(read(&PodName::new("a", "b"), Ok(())), Answer::Accepted);
    }

    #[test]
    fn stopping_pods_in_words() {
        let stopping = |overdue, finalizers: &[&str]| {
            let finalizers = finalizers.iter().map(ToString::to_string).collect();
            Cause::Terminating {
                grace: 30,
                overdue,
                finalizers,
            }
            .to_string()
        };
        assert_eq!(stopping(false, &[]), "stopping (has 30 s)");
        assert_eq!(
            stopping(false, &["x.io/a"]),
            "stopping (has 30 s), held by finalizers x.io/a"
        );
        assert_eq!(
            stopping(true, &["x.io/a", "x.io/b"]),
            "still there after its 30 s to stop, held by finalizers x.io/a, x.io/b"
        );
        assert_eq!(
            stopping(true, &[]),
            "still stopping after its 30 s; is the kubelet of its node well?"
        );
    }
}
