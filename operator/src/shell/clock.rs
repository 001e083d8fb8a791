//! The time of decisions: the wall clock, but never backwards.

use std::time::{Duration, Instant};

use fsm::Timestamp;

use crate::observe::time::now;

/// Timers are looked at again after this long at most, so that a wall clock that was set, or a
/// machine that slept, delays nothing for longer.
const LOOK: Duration = Duration::from_secs(30);

/// A clock that follows the wall clock and goes on by itself when that is set back.
#[derive(Debug)]
pub(super) struct Clock {
    last: Timestamp,
    at: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub(super) fn new() -> Self {
        Self {
            last: now(),
            at: Instant::now(),
        }
    }

    /// The time; never before one that was told already.
    pub(super) fn now(&mut self) -> Timestamp {
        self.read(now(), Instant::now())
    }

    fn read(&mut self, wall: Timestamp, at: Instant) -> Timestamp {
        let passed = at.saturating_duration_since(self.at);
        let passed = i64::try_from(passed.as_millis()).unwrap_or(i64::MAX);
        self.last = wall.max(Timestamp(self.last.0.saturating_add(passed)));
        self.at = at;
        self.last
    }

    /// How long to sleep before looking whether `wake_at` has come.
    pub(super) fn until(&mut self, wake_at: Option<Timestamp>) -> Duration {
        let Some(wake_at) = wake_at else {
            return LOOK;
        };
        let millis = u64::try_from(wake_at.since(self.now())).unwrap_or(0);
        Duration::from_millis(millis).min(LOOK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_wall_clock_forwards_and_goes_on_by_itself_otherwise() {
        let start = Instant::now();
        let mut clock = Clock {
            last: Timestamp(1000),
            at: start,
        };
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(clock.read(Timestamp(1010), after(10)), Timestamp(1010));
        assert_eq!(
            clock.read(Timestamp(9000), after(20)),
            Timestamp(9000),
            "set forwards"
        );
        assert_eq!(
            clock.read(Timestamp(500), after(35)),
            Timestamp(9015),
            "set backwards"
        );
        assert_eq!(clock.read(Timestamp(510), after(45)), Timestamp(9025));
    }

    #[test]
    fn a_far_timer_is_looked_at_in_between() {
        let mut clock = Clock::new();
        let now = clock.now();
        assert_eq!(clock.until(None), LOOK);
        assert_eq!(clock.until(Some(Timestamp(now.0 + 3_600_000))), LOOK);
        assert_eq!(clock.until(Some(Timestamp(now.0 - 1))), Duration::ZERO);
    }
}
