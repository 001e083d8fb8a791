//! Moments of the API as moments of a decision, and back.

use fsm::Timestamp;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff};

/// A moment of the API.
#[must_use]
pub fn timestamp(time: &Time) -> Timestamp {
    Timestamp(time.0.as_millisecond())
}

/// A moment that a person or a program wrote as RFC 3339.
#[must_use]
pub fn parse(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.trim().parse().ok()?;
    Some(Timestamp(time.as_millisecond()))
}

/// The moment in the API's calendar, in whole seconds; a moment beyond its end is its end.
#[must_use]
pub fn moment(at: Timestamp) -> jiff::Timestamp {
    let seconds = at.0.div_euclid(1000);
    let end = if seconds < 0 {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
    };
    jiff::Timestamp::from_second(seconds).unwrap_or(end)
}

/// The moment as the API writes it, in whole seconds.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    moment(at).to_string()
}

/// The same to the millisecond: [`parse`] gives back what was written, so that it is not written
/// again and again.
#[must_use]
pub fn rfc3339_exact(at: Timestamp) -> String {
    let exact = jiff::Timestamp::from_millisecond(at.0);
    exact.unwrap_or_else(|_| moment(at)).to_string()
}

/// Now, by this machine's clock.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_survive_the_way_there_and_back() {
        assert_eq!(
            rfc3339(Timestamp(1_767_225_601_999)),
            "2026-01-01T00:00:01Z"
        );
        assert_eq!(
            parse("2026-01-01T00:00:01Z"),
            Some(Timestamp(1_767_225_601_000))
        );
        assert_eq!(
            parse("2026-01-01T01:00:01+01:00"),
            Some(Timestamp(1_767_225_601_000))
        );
        let exact = Timestamp(1_767_225_601_007);
        assert_eq!(rfc3339_exact(exact), "2026-01-01T00:00:01.007Z");
        assert_eq!(parse(&rfc3339_exact(exact)), Some(exact));
        assert_eq!(
            rfc3339_exact(Timestamp(1_767_225_601_000)),
            "2026-01-01T00:00:01Z"
        );
        assert_eq!(parse("yesterday"), None);
        assert_eq!(rfc3339(Timestamp(-1)), "1969-12-31T23:59:59Z");
        assert!(parse(&rfc3339(Timestamp(i64::MAX))).is_some());
    }
}
