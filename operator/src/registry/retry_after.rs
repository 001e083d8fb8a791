//! How long a registry asks to be left alone (`Retry-After`).

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp, fmt::rfc2822};

/// The longest wait that a registry is granted: none should be able to switch updates off.
const LONGEST: Duration = Duration::from_secs(3600);

/// Reads a `Retry-After` of the moment `now`, in seconds or as a date: until when to wait, in whole
/// seconds. A moment and no length, so that a message with it does not change while it passes.
pub(super) fn until(value: &str, now: Timestamp) -> Option<Timestamp> {
    let now = Timestamp::from_second(now.as_second()).ok()?;
    let wait = match value.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => Duration::try_from(
            rfc2822::parse(value.trim())
                .ok()?
                .timestamp()
                .duration_since(now),
        )
        .unwrap_or_default(),
    };
    now.checked_add(SignedDuration::try_from(wait.min(LONGEST)).ok()?)
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_comes_as_seconds_or_as_a_date_and_is_bounded() {
        let now = "2026-01-01T12:00:00.6Z".parse().unwrap();
        for (value, wanted) in [
            ("120", Some("2026-01-01T12:02:00Z")),
            (" 0 ", Some("2026-01-01T12:00:00Z")),
            ("999999999", Some("2026-01-01T13:00:00Z")),
            ("18446744073709551615", Some("2026-01-01T13:00:00Z")),
            (
                "Thu, 01 Jan 2026 12:01:30 GMT",
                Some("2026-01-01T12:01:30Z"),
            ),
            (
                "Thu, 01 Jan 2026 11:00:00 GMT",
                Some("2026-01-01T12:00:00Z"),
            ),
            (
                "Thu, 01 Jan 2099 11:00:00 GMT",
                Some("2026-01-01T13:00:00Z"),
            ),
            ("soon", None),
            ("-5", None),
        ] {
            assert_eq!(
                until(value, now).map(|until| until.to_string()).as_deref(),
                wanted,
                "{value}"
            );
        }
    }
}
