//! Lengths of time as kubectl writes them: as exact as they are short.

use fsm::Timestamp;

/// From `since` to `now`: `42s`, `3m12s`, `15m`, `3h5m`, `2d3h`, `10d`.
pub(crate) fn age(since: Timestamp, now: Timestamp) -> String {
    length(now.since(since))
}

/// A number of milliseconds in the same way.
pub(crate) fn length(millis: i64) -> String {
    let seconds = millis / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let with = |whole: i64, unit: &str, part: i64, small: &str| match part {
        0 => format!("{whole}{unit}"),
        part => format!("{whole}{unit}{part}{small}"),
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => with(minutes, "m", seconds % 60, "s"),
        () if hours < 3 => format!("{minutes}m"),
        () if hours < 8 => with(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => with(days, "d", hours % 24, "h"),
        () => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_read_as_kubectls_do() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (192, "3m12s"),
            (900, "15m"),
            (11_100, "3h5m"),
            (100_000, "27h"),
            (183_600, "2d3h"),
            (864_000, "10d"),
        ] {
            assert_eq!(length(seconds * 1000), text);
        }
        assert_eq!(age(Timestamp(5000), Timestamp(0)), "0s", "clocks differ");
    }
}
