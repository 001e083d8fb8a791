//! The host's machine on every combination of what it may remember and what it may see: whatever they
//! are, it never does what must not be done.
//!
//! Most combinations never occur; the guarantees hold there too, so they do not hang on the way that
//! led there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use fsm::Timestamp;
use fsm::host::{
    Attempt, Auth, Can, Deployment, Effect, Entry, Facts, Host, Image, Lock, MAX_HOPS, News,
    Record, Report, Secret, Spec, Started, State, Step, Task, Trouble, Unit, View, Wanted, step,
};

const A: &str = "r/os@sha256:a";
const B: &str = "r/os@sha256:b";
const C: &str = "r/os@sha256:c";
const NOW: Timestamp = Timestamp(10_000_000);

fn digest(image: &str) -> &str {
    image.rsplit_once('@').unwrap().1
}

fn entry(image: &str, serial: u32, locked: bool) -> Entry {
    Entry {
        image: Some(Image {
            reference: image.into(),
            digest: digest(image).into(),
            sigpolicy: false,
        }),
        deployment: Some(deployment(image, serial)),
        locked,
        soft_reboot_capable: true,
        incompatible: false,
    }
}

fn deployment(image: &str, serial: u32) -> Deployment {
    Deployment {
        checksum: image.into(),
        serial,
    }
}

fn hosts() -> Vec<Host> {
    let mut hosts = vec![
        Host::Unknown,
        Host::Unreadable("no".into()),
        Host::NotBootc("no".into()),
    ];
    let staged = [
        None,
        Some(entry(B, 1, true)),
        Some(entry(B, 1, false)),
        Some(entry(C, 1, false)),
    ];
    for booted in [A, B, C] {
        for staged in &staged {
            for rollback in [None, Some(entry(B, 0, false)), Some(entry(B, 1, false))] {
                for rollback_queued in [false, true] {
                    hosts.push(Host::Seen(View {
                        booted: entry(booted, 0, false),
                        staged: staged.clone(),
                        rollback: rollback.clone(),
                        rollback_queued,
                        read_only: false,
                        prepared: false,
                    }));
                }
            }
        }
    }
    for locked in [false, true] {
        hosts.push(Host::Seen(View {
            booted: entry(A, 0, false),
            staged: Some(entry(B, 1, locked)),
            prepared: true,
            ..View::default()
        }));
    }
    hosts.push(Host::Seen(View {
        booted: Entry {
            incompatible: true,
            ..Entry::default()
        },
        staged: Some(entry(B, 1, false)),
        ..View::default()
    }));
    hosts
}

fn wanteds() -> Vec<Wanted> {
    let mut wanteds = vec![Wanted::Unknown, Wanted::Nothing];
    for image in [A, B] {
        for (boot_it, approved_boot, soft_reboot) in [
            (false, None, false),
            (true, None, false),
            (true, Some("one".to_owned()), true),
            (true, Some("two".to_owned()), false),
            (true, Some("two".to_owned()), true),
        ] {
            wanteds.push(Wanted::Image(Spec {
                image: image.into(),
                boot_it,
                approved_boot,
                soft_reboot,
                secret: None,
                retry: None,
            }));
        }
    }
    wanteds.push(Wanted::Image(Spec {
        image: B.into(),
        secret: Some(secret()),
        ..Spec::default()
    }));
    wanteds
}

fn secret() -> Secret {
    Secret {
        namespace: "n".into(),
        name: "s".into(),
        hash: "h".into(),
    }
}

fn attempts() -> [Option<Attempt>; 3] {
    let attempt = |boot: &str| Attempt {
        digest: digest(B).into(),
        boot: boot.into(),
        at: Timestamp(1),
        rollback: Some(deployment(B, 0)),
        retry: None,
    };
    [None, Some(attempt("one")), Some(attempt("two"))]
}

fn troubles() -> [Option<Trouble>; 2] {
    let trouble = Trouble {
        failures: 1,
        retry: None,
        retry_at: Timestamp(NOW.0 + 1),
        message: "it failed".into(),
    };
    [None, Some(trouble)]
}

fn records() -> Vec<Record> {
    let mut records = Vec::new();
    for state in [State::Idle, State::Staging, State::Staged, State::Rebooting] {
        for image in [None, Some(A.to_owned()), Some(B.to_owned())] {
            for attempt in attempts() {
                for trouble in troubles() {
                    for (fell_back, leftover, asked) in [
                        (false, None, None),
                        (true, None, None),
                        (false, Some(B.to_owned()), None),
                        (false, None, Some(Timestamp(NOW.0 - 1))),
                        (false, None, Some(Timestamp(1))),
                    ] {
                        // It is concluded on the way to Idle, and forgotten on the way from there.
                        if fell_back && state != State::Idle {
                            continue;
                        }
                        records.push(Record {
                            state,
                            image: image.clone(),
                            attempt: attempt.clone(),
                            trouble: trouble.clone(),
                            fell_back,
                            leftover,
                            asked,
                            ..Record::default()
                        });
                    }
                }
            }
        }
    }
    records
}

fn newses() -> Vec<News> {
    let ended = |task, error: Option<&str>| News::Ended {
        task,
        image: B.into(),
        error: error.map(str::to_owned),
    };
    vec![
        News::None,
        News::Confirmed,
        News::RebootAsked,
        ended(Task::Stage, None),
        ended(Task::Stage, Some("no")),
        ended(Task::Unlock, None),
        ended(Task::Reboot, Some("no")),
    ]
}

fn facts(wanted: &Wanted, host: &Host, unit: Option<&str>, reported: Option<&Report>) -> Facts {
    Facts {
        now: NOW,
        boot: "two".into(),
        wanted: wanted.clone(),
        host: host.clone(),
        unit: unit.map(|image| Unit {
            task: Task::Stage,
            image: image.into(),
        }),
        progress: None,
        auth: Auth::Absent,
        started: Started::default(),
        can: Can {
            lock: Lock::TwoSteps,
            unstage: true,
            soft_reboot: true,
            progress: true,
        },
        reported: reported.cloned(),
        jitter: 0,
    }
}

fn rebooting(attempt: &Attempt) -> Report {
    Report {
        state: State::Rebooting,
        message: String::new(),
        degraded: None,
        attempt: Some(attempt.clone()),
        steps: vec![],
        keep_images: true,
    }
}

/// What must hold of every step.
fn guarantees(before: &Record, facts: &Facts, news: &News, step: &Step) {
    let spec = facts.wanted.spec();
    let view = facts.host.view();
    let staged = view.and_then(|view| view.staged.as_ref());
    assert!(
        step.taken.len() < MAX_HOPS,
        "round in circles: {:#?} {before:#?} {facts:#?}",
        step.taken
    );

    // Unlock and reboot: approved for this boot, staged, reported, and read again just now.
    if let Some(Effect::Unlock { image, soft } | Effect::Reboot { image, soft }) = &step.effect {
        let spec = spec.expect("an image is wanted");
        let staged = staged.expect("something is staged");
        let attempt = step.record.attempt.as_ref().expect("an attempt is noted");
        let reported = facts.reported.as_ref().expect("it is reported");
        assert_eq!(*news, News::Confirmed);
        assert!(spec.approves(&facts.boot) && spec.boot_it);
        assert_eq!(*image, spec.image);
        assert!(staged.is(spec.digest()));
        assert!(matches!(step.effect, Some(Effect::Unlock { .. })) == staged.locked);
        assert_eq!(
            (reported.state, reported.attempt.as_ref()),
            (State::Rebooting, Some(attempt))
        );
        assert_eq!(
            (&attempt.boot, attempt.digest.as_str()),
            (&facts.boot, spec.digest())
        );
        assert!(!step.record.fell_back && !step.record.waits(facts.now));
        // By a soft reboot only where the pool allows it, and only by one that is prepared.
        assert!(!soft || spec.soft_reboot);
        let reboots = matches!(step.effect, Some(Effect::Reboot { .. }));
        assert!(!soft || !reboots || view.is_some_and(|view| view.prepared));
    }
    // What a soft reboot is prepared for is neither locked nor dropped.
    if matches!(
        step.effect,
        Some(Effect::Lock { .. } | Effect::Unstage { .. })
    ) {
        assert!(view.is_some_and(|view| !view.prepared));
    }
    // An image that fell back is left alone.
    let same = spec.is_some_and(|spec| before.digest() == Some(spec.digest()));
    if before.fell_back && same && before.asked.is_none() && *news != News::RebootAsked {
        let arrived = view
            .zip(spec)
            .is_some_and(|(view, spec)| view.booted.is(spec.digest()));
        assert!(arrived || step.record.fell_back, "forgotten without cause");
        let does = matches!(
            step.effect,
            Some(
                Effect::Stage { .. }
                    | Effect::Unlock { .. }
                    | Effect::Reboot { .. }
                    | Effect::Confirm { .. }
            )
        );
        assert!(!does, "tried again: {:?}", step.effect);
    }
    // On its way down the host is let alone.
    if step.record.asked.is_some() {
        assert!(step.quiet && step.effect.is_none() && step.wake_at.is_some());
    }
    // Never two at once; a pull is stopped only if its image is not wanted.
    if let Some(unit) = &facts.unit {
        assert!(matches!(step.effect, None | Some(Effect::Cancel(_))));
        if step.effect.is_some() {
            assert!(
                step.record.state != State::Staging
                    || spec.is_none_or(|spec| spec.digest() != digest(&unit.image))
            );
        }
    }
    // A pull is for the wanted image, on a host that takes one, not before its time, and with the
    // credentials in place.
    if let Some(Effect::Stage { image, .. }) = &step.effect {
        let (spec, view) = (spec.expect("wanted"), view.expect("seen"));
        assert_eq!(*image, spec.image);
        assert!(!view.booted.is(spec.digest()) && !view.booted.incompatible);
        assert!(!staged.is_some_and(|it| it.is(spec.digest())));
        assert!(spec.secret.is_none() || facts.auth == Auth::Written("h".into()));
        assert_eq!(step.record.state, State::Staging);
    }
    // Only what we staged ourselves is dropped, and only when it is not wanted or half made.
    if let Some(Effect::Unstage { image }) = &step.effect {
        assert!(staged.is_some_and(|it| it.is(digest(image))));
        assert_ne!(step.record.state, State::Staged);
    }
    // The boot order is changed only to keep an image from booting that fell back.
    if let Some(Effect::Settle { .. }) = &step.effect {
        assert!(view.is_some_and(|view| view.rollback_queued));
        assert_eq!(step.record.state, State::Rebooting);
    }
    // What is said fits what is.
    if let Some(report) = &step.report {
        assert_eq!(report.state, step.record.state);
        assert_eq!(report.attempt, step.record.attempt);
        assert!(!report.message.is_empty());
    }
}

/// The same facts again, without news: nothing more is concluded, and the same is said.
fn settles(facts: &Facts, first: &Step) {
    let again = step(first.record.clone(), facts, &News::None);
    assert_eq!(again.taken, vec![], "after {first:#?}");
    assert_eq!(again.record, first.record);
    assert_eq!(again.report, first.report);
}

#[test]
fn whatever_it_remembers_and_sees() {
    let (hosts, wanteds, records, newses) = (hosts(), wanteds(), records(), newses());
    let mut steps = 0_u64;
    let (mut reboots, mut soft_reboots) = (0_u64, 0_u64);
    for (index, record) in records.iter().enumerate() {
        let report = record.attempt.as_ref().map(rebooting);
        for wanted in &wanteds {
            for host in &hosts {
                for (unit, reported) in [
                    (None, None),
                    (None, report.as_ref()),
                    (Some(B), None),
                    (Some(C), None),
                ] {
                    let facts = facts(wanted, host, unit, reported);
                    // All news with every seventh combination: the seven have no common period.
                    let all = (steps + index as u64).is_multiple_of(7);
                    for news in newses.iter().take(if all { 7 } else { 2 }) {
                        let first = step(record.clone(), &facts, news);
                        guarantees(record, &facts, news, &first);
                        settles(&facts, &first);
                        steps += 1;
                        if let Some(Effect::Reboot { soft, .. }) = first.effect {
                            reboots += 1;
                            soft_reboots += u64::from(soft);
                        }
                    }
                }
            }
        }
    }
    assert!(
        steps > 1_000_000 && reboots > 50 && soft_reboots > 2,
        "{steps} steps, {reboots} reboots, {soft_reboots} of them soft"
    );
}
