//! The API server's answers to writes, sorted by what they say about the object.

use std::time::Duration;

use fsm::input::Outcome;
use kube::core::Status;

use crate::words;

/// Why a write did not take place, or may not have.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The API server said no.
    #[error("{}", words::plain(&.0.message))]
    Api(Box<Status>),
    /// It could not be asked, or its answer not be read.
    #[error("{0}")]
    Transport(String),
    /// It did not answer in time.
    #[error("the API server did not answer within {0:?}")]
    Late(Duration),
    /// This replica may not act.
    #[error("this replica does not hold the Lease")]
    NotLeader,
    /// The object was not there when this was decided.
    #[error("there is no such object")]
    Absent,
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Api(status),
            error => Self::Transport(words::request(&error)),
        }
    }
}

/// How a write ended.
pub fn outcome<T>(result: &Result<T, Failure>) -> Outcome {
    match result {
        Ok(_) => Outcome::Ok,
        Err(failure) => Outcome::from(failure),
    }
}

impl From<&Failure> for Outcome {
    fn from(failure: &Failure) -> Self {
        let message = failure.to_string();
        match failure {
            Failure::Api(status) => of_status(status),
            Failure::Absent => Self::Gone,
            Failure::Transport(_) | Failure::Late(_) | Failure::NotLeader => Self::Failed(message),
        }
    }
}

fn of_status(status: &Status) -> Outcome {
    let message = words::plain(&status.message);
    match status.code {
        409 => Outcome::Conflict,
        404 => Outcome::Gone,
        422 if is_about_uid(status) => Outcome::Gone,
        // Not a word about the write, or that it should come later.
        408 | 429 => Outcome::Failed(message),
        400..500 => Outcome::Refused(message),
        // A webhook that is down refuses what it guards, though the API server calls that its own
        // error. Any other error of its own may have come after the write.
        500 if message.contains("failed calling webhook") => Outcome::Refused(message),
        _ => Outcome::Failed(message),
    }
}

/// The write named another object of the same name.
fn is_about_uid(status: &Status) -> bool {
    let causes = status
        .details
        .as_ref()
        .map(|details| details.causes.as_slice());
    causes
        .unwrap_or_default()
        .iter()
        .any(|cause| cause.field == "metadata.uid")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn outcome(code: u16, message: &str) -> Outcome {
        let status = json!({ "code": code, "message": message, "reason": "", "status": "Failure" });
        let status = serde_json::from_value(status).unwrap();
        Outcome::from(&Failure::from(kube::Error::Api(Box::new(status))))
    }

    #[test]
    fn every_answer_says_something_about_the_object() {
        let no = |message: &str| Outcome::Refused(message.into());
        let unknown = |message: &str| Outcome::Failed(message.into());
        let webhook = "Internal error occurred: failed calling webhook \"w\": refused";
        for (code, message, wanted) in [
            (409, "the object has been modified", Outcome::Conflict),
            (404, "not found", Outcome::Gone),
            (403, "forbidden", no("forbidden")),
            (400, "denied by a webhook", no("denied by a webhook")),
            (422, "invalid", no("invalid")),
            (500, webhook, no(webhook)),
            (
                500,
                "etcdserver: request timed out",
                unknown("etcdserver: request timed out"),
            ),
            (429, "too many requests", unknown("too many requests")),
            (503, "unavailable", unknown("unavailable")),
            (504, "timeout", unknown("timeout")),
        ] {
            assert_eq!(outcome(code, message), wanted, "{code} {message}");
        }
    }

    #[test]
    fn another_object_of_the_name_means_that_ours_is_gone() {
        let status = json!({ "code": 422, "message": "invalid", "reason": "Invalid",
            "status": "Failure", "details": { "causes": [{ "reason": "FieldValueInvalid",
                "message": "field is immutable", "field": "metadata.uid" }] } });
        let failure = Failure::Api(serde_json::from_value(status).unwrap());
        assert_eq!(Outcome::from(&failure), Outcome::Gone);
    }

    #[test]
    fn without_an_answer_nothing_is_known() {
        for failure in [
            Failure::Late(Duration::from_secs(1)),
            Failure::Transport("reset".into()),
        ] {
            assert!(
                matches!(Outcome::from(&failure), Outcome::Failed(_)),
                "{failure:?}"
            );
        }
        assert_eq!(Outcome::from(&Failure::Absent), Outcome::Gone);
    }
}
