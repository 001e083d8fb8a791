//! A host's whole update, step by step: what is done, in which order, and what is reported.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use fsm::Timestamp;
use fsm::host::{
    Auth, Can, Deployment, Effect, Entry, Facts, Host, Image, Lock, News, Record, Reported, Spec,
    Started, State, Step, Task, View, Wanted, step,
};

const A: &str = "r/os@sha256:a";
const B: &str = "r/os@sha256:b";

fn entry(reference: &str, serial: u32, locked: bool) -> Entry {
    let digest = reference.rsplit_once('@').unwrap().1.to_owned();
    Entry {
        deployment: Some(Deployment {
            checksum: digest.clone(),
            serial,
        }),
        image: Some(Image {
            reference: reference.to_owned(),
            digest,
            sigpolicy: false,
        }),
        locked,
        ..Entry::default()
    }
}

fn facts(wanted: &str) -> Facts {
    Facts {
        now: Timestamp(1_000_000),
        boot: "one".into(),
        wanted: Wanted::Image(Spec {
            image: wanted.into(),
            ..Spec::default()
        }),
        host: Host::Seen(View {
            booted: entry(A, 0, false),
            ..View::default()
        }),
        unit: None,
        progress: None,
        auth: Auth::Absent,
        started: Started::default(),
        can: Can {
            lock: Lock::TwoSteps,
            unstage: true,
            ..Can::default()
        },
        reported: None,
        jitter: 500,
    }
}

fn ended(task: Task) -> News {
    News::Ended {
        task,
        image: B.into(),
        error: None,
    }
}

/// One step; the report counts as accepted at once.
fn go(record: Record, facts: &mut Facts, news: &News) -> Step {
    let step = step(record, facts, news);
    // Without a new report the last one stands.
    if step.report.is_some() {
        facts.reported.clone_from(&step.report);
    }
    step
}

#[test]
fn a_host_is_updated() {
    let mut facts = facts(B);
    let step1 = go(Record::default(), &mut facts, &News::None);
    assert_eq!(step1.record.state, State::Staging);
    assert!(matches!(
        step1.effect,
        Some(Effect::Stage { ref image, lock: Lock::TwoSteps, .. }) if image == B
    ));

    if let Host::Seen(view) = &mut facts.host {
        view.staged = Some(entry(B, 0, true));
    }
    let step2 = go(step1.record, &mut facts, &ended(Task::Stage));
    assert_eq!((step2.record.state, step2.effect), (State::Staged, None));

    facts.wanted = Wanted::Image(Spec {
        image: B.into(),
        boot_it: true,
        approved_boot: Some("one".into()),
        ..Spec::default()
    });
    // Not before the report is accepted.
    let unreported = step(step2.record.clone(), &facts, &News::Confirmed);
    assert_eq!(unreported.record.state, State::Rebooting);
    assert_eq!(unreported.effect, None);

    let step3 = go(step2.record, &mut facts, &News::None);
    let again = go(step3.record, &mut facts, &News::None);
    let confirm = Effect::Confirm { image: B.into() };
    assert_eq!(again.effect, Some(confirm.clone()));
    let unlock = go(again.record, &mut facts, &News::Confirmed);
    assert_eq!(
        unlock.effect,
        Some(Effect::Unlock {
            image: B.into(),
            soft: false
        })
    );
    if let Host::Seen(view) = &mut facts.host {
        view.staged = Some(entry(B, 0, false));
    }
    let unlocked = go(unlock.record, &mut facts, &ended(Task::Unlock));
    assert_eq!(unlocked.effect, Some(confirm));
    let reboot = go(unlocked.record, &mut facts, &News::Confirmed);
    assert_eq!(
        reboot.effect,
        Some(Effect::Reboot {
            image: B.into(),
            soft: false
        })
    );
    let quiet = go(reboot.record, &mut facts, &News::RebootAsked);
    assert!(quiet.quiet && quiet.effect.is_none());
    assert_eq!(
        quiet.report, None,
        "a fifth write, from a host that goes down"
    );

    facts.boot = "two".into();
    facts.host = Host::Seen(View {
        booted: entry(B, 0, false),
        rollback: Some(entry(A, 0, false)),
        ..View::default()
    });
    let reported = Reported {
        report: facts.reported.take(),
        boot: Some("one".into()),
        booted: Some("sha256:a".into()),
        staged: Some(B.into()),
    };
    let record = Record::resume(reported, &facts);
    assert_eq!(record.state, State::Rebooting);
    let back = go(record, &mut facts, &News::None);
    assert_eq!(back.record.state, State::Idle);
    assert_eq!(back.report.unwrap().degraded, None);
    assert_eq!(back.effect, None);
}
