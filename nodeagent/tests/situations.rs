//! Real statuses of real hosts, and what the agent makes of them.
//!
//! The JSON files were printed by bootc 1.16.9, in situations that their names tell. `situations.txt`
//! has one paragraph for each: what is read from it, and what follows if the booted image, the staged
//! one, or another is wanted. After a change print it anew and read the difference:
//! `UPDATE_SITUATIONS=1 cargo test -p nodeagent --test situations`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{fmt::Write as _, fs, path::PathBuf};

use fsm::{
    Timestamp,
    host::{
        Attempt, Auth, Can, Deployment, Effect, Entry, Facts, Host, Lock, News, Record, Report,
        Reported, Spec, Started, State, Wanted, step,
    },
};
use nodeagent::bootc::Status;

const NEW: &str =
    "10.89.0.1:5000/os@sha256:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee";
const A: &str = "sha256:3b188fd6a30ade222c828c71ce4daabf943d89dd182a3ba6664bad9ef4b547be";
const B: &str = "sha256:97924468b9727daa1a6b6332840943b5b0547b20846be9b248a9ad6404d8823f";
const CA: &str = "sha256:c84b05137e7d29ff0e703ef127fb871b142eae63cc8d175ddcce89e59eb7a32b";
const CB: &str = "sha256:b08c64c66c1f067de854f55e779fe8bdf60bf07a916bf4bbdea5a60b54cab9dd";
const C: &str = "sha256:c066c408256910a2ceec82867af73cf71de80de9640f6d3ebabf3568c230efbc";

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/fixtures"]
        .iter()
        .collect()
}

fn read(name: &str) -> Status {
    let text = fs::read(folder().join("status").join(format!("{name}.json"))).unwrap();
    Status::parse(&text).unwrap()
}

fn facts(status: &Status, image: &str) -> Facts {
    Facts {
        now: Timestamp(1_000_000),
        boot: "now".into(),
        wanted: Wanted::Image(Spec {
            image: image.into(),
            ..Spec::default()
        }),
        host: status.host(),
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
        jitter: 0,
    }
}

fn name(entry: Option<&Entry>) -> String {
    let Some(entry) = entry else {
        return "-".into();
    };
    let image = entry.image.as_ref();
    let mut text = image.map_or("no image".into(), |it| {
        let digest = it.digest.get(7..15).unwrap_or_default();
        format!("{} = {digest}", it.reference.replace("10.89.0.1:5000/", ""))
    });
    for (holds, word) in [
        (entry.locked, " locked"),
        (entry.incompatible, " incompatible"),
        (image.is_some_and(|it| it.sigpolicy), " verified"),
    ] {
        text.push_str(if holds { word } else { "" });
    }
    if let Some(deployment) = &entry.deployment {
        write!(
            text,
            " ({}.{})",
            &deployment.checksum[..8],
            deployment.serial
        )
        .unwrap();
    }
    text
}

fn effect(effect: Option<&Effect>) -> &'static str {
    match effect {
        None => "nothing",
        Some(Effect::Stage {
            sigpolicy: true, ..
        }) => "Stage, verified",
        Some(Effect::Stage { .. }) => "Stage",
        Some(Effect::Lock { .. }) => "Lock",
        Some(other) => panic!("{other:?} out of the blue"),
    }
}

fn follows(status: &Status, image: &str) -> String {
    let step = step(Record::default(), &facts(status, image), &News::None);
    let report = step.report.unwrap();
    let degraded = report.degraded.map_or("healthy".into(), |it| {
        format!("{:?}: {}", it.reason, it.message)
    });
    let does = effect(step.effect.as_ref());
    format!(
        "{:?}, {degraded}; does {does}; says: {}",
        report.state, report.message
    )
}

fn pinned(entry: &Entry) -> Option<String> {
    let image = entry.image.as_ref()?;
    let repository = image.reference.split(['@']).next()?;
    let repository = repository.rsplit_once(':').map_or(repository, |(it, tag)| {
        if tag.contains('/') { repository } else { it }
    });
    Some(format!("{repository}@{}", image.digest))
}

fn paragraph(situation: &str, status: &Status) -> String {
    let mut text = format!("{situation}\n");
    let mut line = |what: &str, value: &str| writeln!(text, "  {what:<12} {value}").unwrap();
    let Host::Seen(view) = status.host() else {
        line("not bootc", "");
        line("if wanted", &follows(status, NEW));
        return text;
    };
    line("booted", &name(Some(&view.booted)));
    line("staged", &name(view.staged.as_ref()));
    let queued = if view.rollback_queued { " QUEUED" } else { "" };
    line("rollback", &(name(view.rollback.as_ref()) + queued));
    if let Some(image) = pinned(&view.booted) {
        line("wants booted", &follows(status, &image));
    }
    if let Some(image) = view.staged.as_ref().and_then(pinned) {
        line("wants staged", &follows(status, &image));
    }
    line("wants new", &follows(status, NEW));
    text
}

#[test]
fn every_situation_leads_to_what_the_table_says() {
    let mut names: Vec<String> = fs::read_dir(folder().join("status"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() > 100, "the situations are gone");
    let table: Vec<String> = names
        .iter()
        .map(|name| name.trim_end_matches(".json"))
        .map(|name| paragraph(name, &read(name)))
        .collect();
    let table = table.join("\n");
    let path = folder().join("situations.txt");
    if std::env::var_os("UPDATE_SITUATIONS").is_some() {
        fs::write(&path, &table).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap();
    for (kept, now) in kept.split("\n\n").zip(table.split("\n\n")) {
        assert_eq!(kept, now);
    }
    assert_eq!(kept.len(), table.len());
}

/// What the agent concludes in the boot after an attempt.
fn fate(after: &str, attempted: &str, rollback: Option<Deployment>, before: &str) -> String {
    let status = read(after);
    let facts = facts(&status, &format!("10.89.0.1:5000/os@{attempted}"));
    let reported = Reported {
        report: Some(Report {
            state: State::Rebooting,
            message: String::new(),
            degraded: None,
            attempt: Some(Attempt {
                digest: attempted.into(),
                boot: "before".into(),
                at: Timestamp(0),
                rollback,
                retry: None,
            }),
            steps: vec![],
            keep_images: true,
        }),
        boot: Some("before".into()),
        booted: Some(before.into()),
        staged: None,
    };
    let first = step(Record::resume(reported, &facts), &facts, &News::None);
    let (step, settles) = match first.effect {
        Some(Effect::Settle { image }) => {
            assert_eq!(
                first.report, None,
                "nothing is said before the boot order is right"
            );
            let ended = News::Ended {
                task: fsm::host::Task::Settle,
                image,
                error: None,
            };
            (step(first.record, &facts, &ended), "Settle, then ")
        }
        _ => (first, ""),
    };
    let report = step.report.unwrap();
    let degraded = report
        .degraded
        .map_or("healthy".into(), |it| format!("{:?}", it.reason));
    let outcome = step
        .record
        .outcome
        .map_or(String::new(), |it| format!(" {it:?}"));
    format!("{settles}{:?} {degraded}{outcome}", report.state)
}

fn rollback_of(situation: &str) -> Option<Deployment> {
    let host = read(situation).host();
    host.view().unwrap().rollback.as_ref()?.deployment.clone()
}

#[test]
fn after_the_reboot() {
    let none = || None;
    let same = rollback_of;
    let lost = "Staging healthy NeverApplied";
    let held = "nsenter-apply-lock-held-finalize-timeout.after";
    for (after, attempted, rollback, before, wanted) in [
        ("reboot-unlocked-A-to-B.after", B, none(), A, "Idle healthy"),
        (
            "fallback-boot.after",
            B,
            none(),
            A,
            "Settle, then Idle FellBack",
        ),
        // Never left: still locked, powered off, or the update was lost on the way down.
        (
            "reboot-locked.after",
            B,
            none(),
            A,
            "Staging healthy NeverApplied",
        ),
        ("reboot-force.after", C, same("reboot-force.after"), B, lost),
        (
            "reboot-force-force.after",
            C,
            same("reboot-force-force.after"),
            B,
            lost,
        ),
        (held, A, same(held), C, lost),
        (
            "finalize-failure-stamp.after",
            B,
            same("finalize-failure-stamp.after"),
            A,
            lost,
        ),
        // From B to A and to B again: the rollback slot holds the wanted image, and held it before.
        (
            "status-booted-B-rollback-A",
            A,
            same("status-booted-B-rollback-A"),
            B,
            lost,
        ),
        (
            "onestep-lock.after",
            CB,
            same("onestep-lock.after"),
            CA,
            lost,
        ),
        // The same status when the slot held something else before: the host was in A.
        ("status-booted-B-rollback-A", A, none(), B, "Idle FellBack"),
        // Somebody booted something else altogether.
        (
            "reboot-with-pinned.after",
            C,
            none(),
            A,
            "Staging healthy ThirdImage",
        ),
    ] {
        assert_eq!(fate(after, attempted, rollback, before), wanted, "{after}");
    }
}
