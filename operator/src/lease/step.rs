//! What a replica does with the Lease it has read: pure, so that every case is a row in a table.
//!
//! Whether a holder is alive is judged by the reader's own clock: a Lease that has not changed for
//! its own duration *since this replica first saw it so* is over. The times written in the Lease
//! come from other machines' clocks and decide nothing.

use std::time::Duration;

/// What counts of a Lease that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// Its resourceVersion: any renewal changes it.
    pub(super) version: String,
    /// Who holds it; none when it was released.
    pub(super) holder: Option<String>,
    /// How long it holds without a renewal.
    pub(super) duration: Duration,
}

/// The newest reading and when it was first seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    newest: Option<(Reading, Duration)>,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// There is no Lease: create it as ours.
    Create,
    /// Nobody holds it, or its holder is gone: make it ours.
    Take,
    /// It is ours: renew it.
    Renew,
    /// Somebody else holds it.
    Wait,
}

impl Memory {
    /// Takes in a reading made at `now`, a monotonic time since any fixed start.
    pub(super) fn see(&mut self, reading: Option<Reading>, now: Duration) {
        let known = self.newest.take();
        self.newest = reading.map(|reading| match known {
            Some((old, since)) if old == reading => (old, since),
            _ => (reading, now),
        });
    }

    /// What the replica `me` does at `now`.
    pub(super) fn step(&self, me: &str, now: Duration) -> Move {
        let Some((reading, since)) = &self.newest else {
            return Move::Create;
        };
        match reading.holder.as_deref() {
            None => Move::Take,
            Some(holder) if holder == me => Move::Renew,
            Some(_) if now.saturating_sub(*since) >= reading.duration => Move::Take,
            Some(_) => Move::Wait,
        }
    }

    /// Whether the newest reading names `me` as the holder.
    pub(super) fn is_held_by(&self, me: &str) -> bool {
        self.newest
            .as_ref()
            .is_some_and(|(reading, _)| reading.holder.as_deref() == Some(me))
    }

    /// The resourceVersion that the next write must name.
    pub(super) fn version(&self) -> Option<&str> {
        self.newest
            .as_ref()
            .map(|(reading, _)| reading.version.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the API answers")]
    fn reading(version: &str, holder: Option<&str>) -> Option<Reading> {
        let holder = holder.map(str::to_owned);
        Some(Reading {
            version: version.to_owned(),
            holder,
            duration: at(15),
        })
    }

    /// Readings with their times, then the time of the question and the answer.
    type Row = (&'static str, Vec<(Option<Reading>, u64)>, u64, Move);

    #[test]
    fn every_case_has_its_move() {
        let rows: Vec<Row> = vec![
            ("no Lease", vec![(None, 0)], 0, Move::Create),
            (
                "deleted",
                vec![(reading("1", Some("b")), 0), (None, 1)],
                1,
                Move::Create,
            ),
            ("released", vec![(reading("1", None), 0)], 0, Move::Take),
            ("ours", vec![(reading("1", Some("a")), 0)], 60, Move::Renew),
            (
                "theirs, new",
                vec![(reading("1", Some("b")), 7)],
                7,
                Move::Wait,
            ),
            (
                "theirs, silent",
                vec![(reading("1", Some("b")), 7)],
                21,
                Move::Wait,
            ),
            (
                "theirs, over",
                vec![(reading("1", Some("b")), 7)],
                22,
                Move::Take,
            ),
            (
                "theirs, seen again unchanged",
                vec![(reading("1", Some("b")), 0), (reading("1", Some("b")), 14)],
                15,
                Move::Take,
            ),
            (
                "theirs, renewed",
                vec![(reading("1", Some("b")), 0), (reading("2", Some("b")), 14)],
                28,
                Move::Wait,
            ),
            (
                "theirs, taken by a third",
                vec![(reading("1", Some("b")), 0), (reading("2", Some("c")), 14)],
                28,
                Move::Wait,
            ),
        ];
        for (name, readings, now, wanted) in rows {
            let mut memory = Memory::default();
            for (reading, seen) in readings {
                memory.see(reading, at(seen));
            }
            assert_eq!(memory.step("a", at(now)), wanted, "{name}");
        }
    }
}
