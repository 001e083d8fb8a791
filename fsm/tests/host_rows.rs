//! The host's machine, one row a line: where it is, what it sees, where that leads and what is done.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use fsm::Timestamp;
use fsm::host::{
    Attempt, Auth, Degraded, DegradedReason, Facts, Host, News, Progress, Record, Report, Reported,
    Secret, State, Task, Unit, Wanted, step,
};

mod hosts;

use hosts::{does, ended, entry, facts, report, wanted};

/// An agent that goes on with its own memory.
#[test]
fn from_state_to_state() {
    use State::{Idle, Rebooting, Staged, Staging};
    let fine = |task| ended(task, "B", None);
    let bad = |task| ended(task, "B", Some("no"));
    let none = || News::None;
    #[rustfmt::skip]
    let rows = [
        (Idle, "-", "A - -", "A", none(), Idle, "-"),
        (Idle, "-", "A - -", "B", none(), Staging, "Stage"),
        (Idle, "-", "A B+ -", "B", none(), Staged, "-"),
        (Idle, "-", "A B -", "B", none(), Staged, "Lock"),
        (Idle, "-", "A B+ -", "A", none(), Idle, "-"),
        (Idle, "-", "A - -", "-", none(), Idle, "-"),
        (Staging, "B", "A B+ -", "B", fine(Task::Stage), Staged, "-"),
        (Staging, "B", "A B -", "B", fine(Task::Stage), Staged, "Lock"),
        (Staging, "B", "A - -", "B", bad(Task::Stage), Idle, "-"),
        (Staging, "B", "A - -", "B", fine(Task::Stage), Idle, "-"),
        // Half made: dropped before the next try.
        (Staging, "B", "A B -", "B", bad(Task::Stage), Idle, "Unstage"),
        (Staging, "B", "B - A", "B", none(), Idle, "-"),
        (Staging, "B", "A - -", "C", none(), Staging, "Stage"),
        (Staged, "B", "A B+ -", "B", none(), Staged, "-"),
        (Staged, "B", "A B+ -", "B@then", none(), Staged, "-"),
        (Staged, "B", "A B+ -", "B@now", none(), Rebooting, "-"),
        (Staged, "B", "A B+ -", "B@", none(), Rebooting, "-"),
        (Staged, "B", "A - -", "B@now", none(), Staging, "Stage"),
        (Staged, "B", "A C -", "B@now", none(), Staging, "Stage"),
        (Staged, "B", "A B+ -", "C", none(), Staging, "Stage"),
        (Staged, "B", "A B+ -", "A", none(), Idle, "Unstage"),
        (Staged, "B", "A B+ -", "-", none(), Idle, "Unstage"),
        (Rebooting, "B", "A B -", "B@now", none(), Rebooting, "Confirm"),
        (Rebooting, "B", "A B+ -", "B@now", News::Confirmed, Rebooting, "Unlock"),
        (Rebooting, "B", "A B -", "B@now", News::Confirmed, Rebooting, "Reboot"),
        (Rebooting, "B", "A B+ -", "B@now", fine(Task::Unlock), Idle, "-"),
        (Rebooting, "B", "A B -", "B@now", bad(Task::Reboot), Idle, "-"),
        (Rebooting, "B", "A B -", "B", News::Confirmed, Staged, "Lock"),
        (Rebooting, "B", "A B -", "B@then", News::Confirmed, Staged, "Lock"),
        (Rebooting, "B", "A B -", "C@now", News::Confirmed, Staging, "Stage"),
        (Rebooting, "B", "A B -", "A@now", News::Confirmed, Idle, "Unstage"),
        (Rebooting, "B", "A C -", "B@now", News::Confirmed, Staging, "Stage"),
    ];
    for (from, about, sees, wants, news, to, effect) in rows {
        let row = format!("{from:?} {about} | {sees} | {wants} | {news:?}");
        let mut facts = facts(sees, wants);
        let attempt = Attempt {
            digest: "B".into(),
            boot: "now".into(),
            at: Timestamp(1),
            rollback: None,
            retry: None,
        };
        let record = Record {
            state: from,
            image: (about != "-").then(|| format!("r/os@{about}")),
            attempt: (from == Rebooting).then_some(attempt),
            ..Record::default()
        };
        facts.reported = (from == Rebooting).then(|| report(&record));
        let step = step(record, &facts, &news);
        assert_eq!(
            (step.record.state, does(step.effect.as_ref())),
            (to, effect.into()),
            "{row}"
        );
    }
}

/// An agent in a new boot, after an attempt to boot B that found this deployment in the rollback slot.
#[test]
fn after_a_boot() {
    use State::{Idle, Rebooting, Staged, Staging};
    #[rustfmt::skip]
    let rows = [
        (Rebooting, "-", "B - A", "B@then", Idle, "-", None),
        (Rebooting, "-", "A - -", "B@then", Staging, "Stage", None),
        (Rebooting, "-", "A - B", "B@then", Idle, "-", Some(DegradedReason::FellBack)),
        (Rebooting, "B.1", "A - B.2", "B@then", Idle, "-", Some(DegradedReason::FellBack)),
        (Rebooting, "B.1", "A - B.1", "B@then", Staging, "Stage", None),
        (Rebooting, "-", "A - B!", "B@then", Rebooting, "Settle", None),
        (Rebooting, "-", "C - A", "B@then", Staging, "Stage", None),
        (Rebooting, "-", "A - B", "C@then", Staging, "Stage", None),
        (Rebooting, "-", "A B+ -", "B@then", Staged, "-", None),
        // It came up and was said to be well; a health check sent it back later.
        (Idle, "-", "A - B", "B@then", Idle, "-", Some(DegradedReason::FellBack)),
        (Idle, "-", "B - A", "B@then", Idle, "-", None),
    ];
    for (said, slot, sees, wants, to, effect, reason) in rows {
        let row = format!("{said:?} {slot} | {sees} | {wants}");
        let facts = facts(sees, wants);
        let attempt = Attempt {
            digest: "B".into(),
            boot: "then".into(),
            at: Timestamp(1),
            rollback: entry(slot).and_then(|it| it.deployment),
            retry: None,
        };
        let record = Record {
            state: said,
            attempt: Some(attempt),
            ..Record::default()
        };
        let reported = Reported {
            report: Some(report(&record)),
            boot: Some("then".into()),
            booted: Some("A".into()),
            staged: None,
        };
        let step = step(Record::resume(reported, &facts), &facts, &News::None);
        let degraded = step.report.and_then(|it| it.degraded);
        assert_eq!(
            (
                step.record.state,
                does(step.effect.as_ref()),
                degraded.map(|it| it.reason)
            ),
            (to, effect.into(), reason),
            "{row}"
        );
    }
}

/// Back-off: longer with each failure, by this image alone, and not for ever.
#[test]
fn failures_in_a_row() {
    let mut facts = facts("A - -", "B");
    let mut record = Record::default();
    let mut waits = Vec::new();
    for _ in 0..9 {
        record = step(record, &facts, &News::None).record;
        assert_eq!(record.state, State::Staging);
        let failed = step(record, &facts, &ended(Task::Stage, "B", Some("no")));
        assert_eq!((failed.record.state, &failed.effect), (State::Idle, &None));
        let due = failed.wake_at.unwrap();
        waits.push(due.since(facts.now) / 1000);
        // Whatever else happens meanwhile, nothing is tried before.
        facts.now = Timestamp(due.0 - 1);
        let early = step(failed.record, &facts, &News::None);
        assert_eq!((early.record.state, early.effect), (State::Idle, None));
        facts.now = due;
        record = early.record;
    }
    assert_eq!(waits, [7, 15, 30, 60, 120, 240, 450, 450, 450]);
    // Another image is tried at once.
    facts.now = Timestamp(facts.now.0 - 1);
    facts.wanted = wanted("C");
    assert_eq!(
        does(step(record, &facts, &News::None).effect.as_ref()),
        "Stage"
    );
}

/// A reboot that does not come is no end: reported, and tried again.
#[test]
fn a_host_that_does_not_go_down() {
    let mut facts = facts("A B -", "B@now");
    let record = step(Record::default(), &facts, &News::None).record;
    let asked = step(record, &facts, &News::RebootAsked);
    assert!(asked.quiet);
    facts.now = asked.wake_at.unwrap();
    let stuck = step(asked.record, &facts, &News::None);
    let degraded = stuck.report.unwrap().degraded.unwrap();
    assert_eq!(
        (stuck.quiet, degraded.reason),
        (false, DegradedReason::Error)
    );
    facts.now = stuck.wake_at.unwrap();
    let again = step(stuck.record, &facts, &News::None);
    assert_eq!(again.record.state, State::Rebooting);
}

/// A person's wish is about what failed before it, whatever the host's clock says.
#[test]
fn a_retry_forgives_what_is_older() {
    let mut facts = facts("A - B", "B");
    let reported = |facts: &Facts| Reported {
        report: Some(Report {
            degraded: Some(Degraded {
                reason: DegradedReason::FellBack,
                message: String::new(),
            }),
            ..report(&Record {
                attempt: Some(Attempt {
                    digest: "B".into(),
                    boot: "then".into(),
                    at: Timestamp(3_600_000),
                    rollback: None,
                    retry: Some(Timestamp(500)),
                }),
                ..Record::default()
            })
        }),
        boot: Some(facts.boot.clone()),
        booted: Some("A".into()),
        staged: None,
    };
    for (retry, effect) in [
        (None, "-"),
        (Some(499), "-"),
        (Some(500), "-"),
        (Some(501), "Stage"),
    ] {
        if let Wanted::Image(spec) = &mut facts.wanted {
            spec.retry = retry.map(Timestamp);
        }
        let step = step(
            Record::resume(reported(&facts), &facts),
            &facts,
            &News::None,
        );
        assert_eq!(does(step.effect.as_ref()), effect, "{retry:?}");
    }
}

/// A pull that runs is taken over or stopped, whether bootc answers or not.
#[test]
fn a_unit_that_is_found() {
    for (wants, to, effect) in [
        ("B", State::Staging, "-"),
        ("C", State::Idle, "Cancel"),
        ("-", State::Idle, "Cancel"),
    ] {
        let mut facts = facts("A - -", wants);
        facts.host = Host::Unknown;
        facts.unit = Some(Unit {
            task: Task::Stage,
            image: "r/os@B".into(),
        });
        let step = step(Record::default(), &facts, &News::None);
        assert_eq!(
            (step.record.state, does(step.effect.as_ref())),
            (to, effect.into()),
            "{wants}"
        );
    }
}

/// Progress is told of a long pull, every half minute, if there is any.
#[test]
fn progress_is_told_now_and_then() {
    let mut facts = facts("A - -", "B");
    let mut record = Record::default();
    let mut told = Vec::new();
    for second in 0..100 {
        facts.now = Timestamp(1_000_000 + 1000 * second);
        facts.progress = Some(Progress::Pulling {
            bytes: 1_000_000 * second.clamp(0, 70).cast_unsigned(),
            of_bytes: 60_000_000,
            layers: 1,
            of_layers: 3,
        });
        let step = step(record, &facts, &News::None);
        let message = step.report.unwrap().message;
        if told.last().is_none_or(|(_, last)| *last != message) {
            told.push((second, message));
        }
        record = step.record;
    }
    let pulling = "pulling r/os@B".to_owned();
    let with = |words: &str| format!("{pulling}: 1 of 3 layers done, {words} of 60 MB");
    let all = [(0, pulling.clone()), (30, with("30")), (60, with("60"))];
    assert_eq!(told, all);
}

/// bootc reads the credentials when it pulls.
#[test]
fn a_secret_that_changed_is_written_before_the_next_pull() {
    let mut facts = facts("A - -", "B");
    let Wanted::Image(spec) = &mut facts.wanted else {
        panic!("an image is wanted");
    };
    spec.secret = Some(Secret {
        namespace: "ns".into(),
        name: "pull".into(),
        hash: "new".into(),
    });
    for (written, effect) in [("old", "WriteAuth"), ("new", "Stage")] {
        facts.auth = Auth::Written(written.into());
        let step = step(Record::default(), &facts, &News::None);
        assert_eq!(does(step.effect.as_ref()), effect);
    }
}
