//! The ordinary run: schedules by the hundred thousand, and that they met what they are for.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "that is how a test fails"
)]

use simulation::{Mark, replay, run};

/// So many of the seeds from 1 on.
const SCHEDULES: u64 = 100_000;

#[test]
fn every_guarantee_holds_in_every_schedule_and_every_rollout_ends() {
    let progress = |n: u64| {
        if n.is_multiple_of(10_000) {
            eprintln!("{n} of {SCHEDULES} schedules");
        }
    };
    let tally = run(SCHEDULES, 1, progress).unwrap_or_else(|failure| panic!("{}", failure.text));
    assert_eq!(tally.schedules, SCHEDULES);
    for mark in Mark::ALL {
        assert!(tally.marks.count(mark) > 0, "{mark:?} never struck");
    }
    for (name, (all, skipped)) in &tally.actions {
        assert!(
            skipped * 10 < all * 9,
            "{name} was done {} times of {all}",
            all - skipped
        );
    }
}

#[test]
fn a_seed_gives_the_same_schedule_and_the_same_end() {
    for seed in [3, 14, 159] {
        assert_eq!(replay(seed), replay(seed));
    }
    assert_ne!(replay(3), replay(4));
}
