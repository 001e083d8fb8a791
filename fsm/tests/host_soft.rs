//! Soft reboots, one row a line: when one is prepared, undone, and not tried again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use fsm::Timestamp;
use fsm::host::{
    Attempt, DegradedReason, Effect, Facts, News, Record, Reported, State, Step, Task, step,
};

mod hosts;

use hosts::{deployment, does, ended, facts, report};

/// On the way into B: what is done, and whether softly.
#[test]
fn soft_or_full() {
    use State::{Rebooting, Staged};
    #[rustfmt::skip]
    let rows = [
        // Prepared with the unlock, where the pool allows it and the image can.
        (Rebooting, "A B+~ -", "B@now~", "Unlock", Some(true)),
        (Rebooting, "A B+~ -", "B@now", "Unlock", Some(false)),
        (Rebooting, "A B+ -", "B@now~", "Unlock", Some(false)),
        (Rebooting, "A B~ - prepared", "B@now~", "Reboot", Some(true)),
        // It could not be prepared, or somebody else did.
        (Rebooting, "A B~ -", "B@now~", "Reboot", Some(false)),
        (Rebooting, "A B~ - prepared", "B@now", "Reboot", Some(false)),
        // Never locked while it is prepared.
        (Rebooting, "A B~ - prepared", "B@then~", "Unprepare", None),
        (Staged, "A B~ - prepared", "B~", "Unprepare", None),
        (Staged, "A B+~ - prepared", "B~", "Unprepare", None),
        (Staged, "A B~ - prepared", "A~", "Unprepare", None),
        (Staged, "A B~ - prepared", "-", "Unprepare", None),
        (Staged, "A B~ -", "B~", "Lock", None),
        // A newly staged one clears it.
        (Staged, "A B~ - prepared", "C~", "Stage", None),
    ];
    for (from, sees, wants, effect, soft) in rows {
        let facts = facts(sees, wants);
        let step = confirmed(on_the_way(from), facts);
        let softly = match &step.effect {
            Some(Effect::Unlock { soft, .. } | Effect::Reboot { soft, .. }) => Some(*soft),
            _ => None,
        };
        let done = (does(step.effect.as_ref()), softly);
        assert_eq!(done, (effect.into(), soft), "{from:?} | {sees} | {wants}");
    }
}

fn on_the_way(state: State) -> Record {
    Record {
        state,
        image: Some("r/os@B".into()),
        attempt: (state == State::Rebooting).then(|| Attempt {
            digest: "B".into(),
            boot: "now".into(),
            at: Timestamp(1),
            rollback: None,
            retry: None,
        }),
        ..Record::default()
    }
}

fn confirmed(record: Record, mut facts: Facts) -> Step {
    facts.reported = Some(report(&record));
    step(record, &facts, &News::Confirmed)
}

/// A host whose tools cannot undo it, or failed to: it stays unlocked, and that is said.
#[test]
fn what_cannot_be_undone_is_said() {
    let mut facts = facts("A B~ - prepared", "B~");
    let mut record = on_the_way(State::Staged);
    for _ in 0..3 {
        let tried = step(record, &facts, &ended(Task::Unprepare, "B", Some("no")));
        record = tried.record;
    }
    let given_up = step(record, &facts, &News::None);
    assert_eq!(given_up.effect, None);
    assert!(given_up.report.unwrap().message.contains("--reset"));
    facts.can.soft_reboot = false;
    let cannot = step(on_the_way(State::Staged), &facts, &News::None);
    assert_eq!(cannot.effect, None);
    assert!(cannot.report.unwrap().message.contains("--reset"));
}

/// bootc fails when it cannot prepare a soft reboot, after it has unlocked: a full one is due.
#[test]
fn unlocked_but_not_prepared() {
    let facts = facts("A B~ -", "B@now~");
    let failed = ended(Task::Unlock, "B", Some("not supported without composefs"));
    let step = step(on_the_way(State::Rebooting), &facts, &failed);
    assert_eq!(step.record.state, State::Rebooting);
    assert_eq!(step.report.unwrap().degraded, None);
}

/// After a soft reboot that did not come, or led nowhere, a full one.
#[test]
fn a_soft_reboot_is_tried_once() {
    let stuck = {
        let mut facts = facts("A B~ - prepared", "B@now~");
        let asked = step(on_the_way(State::Rebooting), &facts, &News::RebootAsked);
        facts.now = asked.wake_at.unwrap();
        step(asked.record, &facts, &News::None).record
    };
    let mut later = facts("A B~ - prepared", "B@now~");
    later.now = step(stuck.clone(), &later, &News::None).wake_at.unwrap();
    let again = step(stuck, &later, &News::None).record;
    assert_eq!(again.state, State::Rebooting);
    let Some(Effect::Reboot { soft, .. }) = confirmed(again, later).effect else {
        panic!("no reboot");
    };
    assert!(!soft);

    // Staged again after one that led nowhere, the agent's memory lost or not; a full one led nowhere
    // too, and says nothing of soft ones.
    for (boot, forgets, softly) in [
        ("now+1", false, false),
        ("now+1", true, false),
        ("other", false, true),
        ("other", true, true),
    ] {
        let mut back = facts("A - -", "B~");
        back.boot = boot.into();
        let mut record = step(on_the_way(State::Rebooting), &back, &News::None).record;
        assert_eq!(record.state, State::Staging);
        let mut staged = facts("A B+~ -", &format!("B@{boot}~"));
        staged.boot = boot.into();
        if forgets {
            let reported = Reported {
                report: Some(report(&record)),
                boot: Some(boot.into()),
                booted: Some("A".into()),
                staged: None,
            };
            record = Record::resume(reported, &staged);
        }
        let again = step(record, &staged, &News::None).record;
        assert_eq!(again.state, State::Rebooting);
        let Some(Effect::Unlock { soft, .. }) = confirmed(again, staged).effect else {
            panic!("no unlock");
        };
        assert_eq!(soft, softly, "{boot}, forgets: {forgets}");
    }
}

/// Soft reboots in a row, told apart by their numbers.
#[test]
fn after_a_soft_reboot() {
    for (sees, to, effect, reason) in [
        ("B - A", State::Idle, "-", None),
        ("A - B.2", State::Idle, "-", Some(DegradedReason::FellBack)),
        ("A - B", State::Staging, "Stage", None),
    ] {
        let mut facts = facts(sees, "B@then+1~");
        facts.boot = "then+2".into();
        let mut record = on_the_way(State::Rebooting);
        record.attempt = record.attempt.map(|attempt| Attempt {
            boot: "then+1".into(),
            rollback: Some(deployment("B", "0")),
            ..attempt
        });
        let reported = Reported {
            report: Some(report(&record)),
            boot: Some("then+1".into()),
            booted: Some("A".into()),
            staged: None,
        };
        let step = step(Record::resume(reported, &facts), &facts, &News::None);
        let degraded = step.report.and_then(|it| it.degraded);
        let came = (
            step.record.state,
            does(step.effect.as_ref()),
            degraded.map(|it| it.reason),
        );
        assert_eq!(came, (to, effect.into(), reason), "{sees}");
    }
}
