//! When a registry is asked again: pure functions of what happened and of a throw of dice.

use std::time::Duration;

use k8s_openapi::jiff::{Timestamp, fmt::rfc2822};

/// The wait after the first failure; it doubles from there up to the interval.
const FIRST: Duration = Duration::from_secs(10);
/// The longest wait that a registry is granted: nobody should be able to switch updates off.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);

/// When a tag that was resolved is resolved again: `interval`, a tenth more or less, so that pools
/// made together do not ask together. `dice` is from 0 to 1.
#[must_use]
pub fn after_success(interval: Duration, dice: f64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * dice.clamp(0.0, 1.0))
}

/// When a tag whose resolution failed `failures` times in a row is tried again: soon at first, and
/// never later than it would have been without failures, but not before what the registry asks
/// for in `wait`. `dice` is from 0 to 1.
#[must_use]
pub fn after_failure(
    interval: Duration,
    failures: u32,
    wait: Option<Duration>,
    dice: f64,
) -> Duration {
    let doubled = FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    let own = doubled
        .min(interval)
        .mul_f64(0.5 + 0.5 * dice.clamp(0.0, 1.0));
    own.max(wait.unwrap_or_default().min(LONGEST))
}

/// Reads a `Retry-After`: seconds, or a date to be compared with `now`.
pub(super) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds).min(LONGEST));
    }
    let date = rfc2822::parse(value.trim()).ok()?.timestamp();
    let seconds = date.as_second().saturating_sub(now.as_second());
    Some(Duration::from_secs(seconds.try_into().unwrap_or(0)).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_resolved_tag_is_looked_at_about_every_interval() {
        assert_eq!(after_success(10 * MINUTE, 0.0), 9 * MINUTE);
        assert_eq!(after_success(10 * MINUTE, 0.5), 10 * MINUTE);
        assert_eq!(after_success(10 * MINUTE, 1.0), 11 * MINUTE);
    }

    #[test]
    fn failures_are_retried_sooner_and_ever_less_often() {
        let wait = |failures, dice| after_failure(5 * MINUTE, failures, None, dice).as_secs();
        assert_eq!([1, 2, 3, 4, 5].map(|n| wait(n, 1.0)), [10, 20, 40, 80, 160]);
        assert_eq!([1, 2, 3].map(|n| wait(n, 0.0)), [5, 10, 20]);
        assert_eq!([6, 7, 60, u32::MAX].map(|n| wait(n, 1.0)), [300; 4]);
        assert_eq!(
            after_failure(Duration::from_secs(2), 9, None, 1.0).as_secs(),
            2
        );
    }

    #[test]
    fn a_registry_may_ask_for_more_but_not_for_ever() {
        let wait = |asked| after_failure(5 * MINUTE, 1, Some(asked), 1.0);
        assert_eq!(wait(Duration::from_secs(1)), FIRST);
        assert_eq!(wait(10 * MINUTE), 10 * MINUTE);
        assert_eq!(wait(Duration::MAX), LONGEST);
    }

    #[test]
    fn retry_after_comes_as_seconds_or_as_a_date() {
        let now = "2026-01-01T12:00:00Z".parse().unwrap();
        for (value, wanted) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("999999999", Some(3600)),
            ("Thu, 01 Jan 2026 12:01:30 GMT", Some(90)),
            ("Thu, 01 Jan 2026 11:00:00 GMT", Some(0)),
            ("soon", None),
            ("-5", None),
        ] {
            assert_eq!(
                retry_after(value, now),
                wanted.map(Duration::from_secs),
                "{value}"
            );
        }
    }
}
