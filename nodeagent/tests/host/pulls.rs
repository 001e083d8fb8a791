//! The unit that pulls: found again, stopped as a whole, its end and its progress told.

use std::{fs, time::Duration};

use fsm::host::{Lock, Progress, Task, Unit};
use nodeagent::{
    bootc,
    unit::{Stage, Systemd},
};
use tokio::time::{sleep, timeout};

use super::{A, B, SOON, host, sh};

fn pull(image: &str) -> Unit {
    Unit {
        task: Task::Stage,
        image: image.into(),
    }
}

#[tokio::test]
async fn a_unit_is_found_again_and_stopped_as_a_whole() {
    let host = host();
    let systemd = Systemd::of(host.host());
    assert_eq!(systemd.stage().await.unwrap(), Stage::Absent);
    let argv = sh("sleep 1000").map(str::to_owned);
    systemd.start_stage(B, &argv).await.unwrap();
    assert_eq!(systemd.stage().await.unwrap(), Stage::Running(pull(B)));
    // Never two.
    assert!(systemd.start_stage(A, &argv).await.is_err());
    systemd.clear_stage().await.unwrap();
    assert_eq!(systemd.stage().await.unwrap(), Stage::Absent);
}

#[tokio::test]
async fn a_unit_that_ended_tells_how() {
    let host = host();
    let systemd = Systemd::of(host.host());
    for (script, error) in [
        ("echo fine", None),
        ("echo no luck; exit 1", Some("no luck".to_owned())),
    ] {
        systemd
            .start_stage(B, &sh(script).map(str::to_owned))
            .await
            .unwrap();
        assert_eq!(end_of_stage(&systemd).await, error);
        systemd.clear_stage().await.unwrap();
    }
    let failed = systemd
        .step(&sh("echo words >&2; exit 1").map(str::to_owned))
        .await;
    assert!(failed.unwrap_err().to_string().ends_with("words"));
    systemd.step(&sh("true").map(str::to_owned)).await.unwrap();
}

/// How the pull of B ended.
async fn end_of_stage(systemd: &Systemd) -> Option<String> {
    let ended = async {
        loop {
            match systemd.stage().await.unwrap() {
                Stage::Running(_) => sleep(Duration::from_millis(20)).await,
                Stage::Ended { unit, error } if unit == pull(B) => break error,
                other => panic!("{other:?}"),
            }
        }
    };
    timeout(SOON, ended).await.unwrap()
}

const LINES: &str = include_str!("../fixtures/progress.jsonl");

#[tokio::test]
async fn progress_is_kept_while_it_pulls() {
    let host = host();
    let systemd = Systemd::of(host.host());
    let first: Vec<&str> = LINES.lines().take(3).collect();
    host.set("state/progress", &first.join("\n"));
    host.set("state/slow", "300");
    systemd
        .start_stage(B, &bootc::stage(B, Lock::TwoSteps, false, true))
        .await
        .unwrap();
    let seen = async {
        loop {
            if let Some(progress) = bootc::newest_progress(&host.host()) {
                break progress;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let Progress::Pulling { of_layers, .. } = timeout(SOON, seen).await.unwrap() else {
        panic!("nothing comes");
    };
    assert_eq!(of_layers, 3);
    // Stopped as a whole, and nothing is left for the next pull.
    systemd.clear_stage().await.unwrap();
    assert_eq!(bootc::newest_progress(&host.host()), None);
}

#[tokio::test]
async fn a_pull_with_progress_ends_as_it_would_without() {
    for lock in [Lock::No, Lock::OneStep, Lock::TwoSteps] {
        let host = host();
        let systemd = Systemd::of(host.host());
        let argv = bootc::stage(B, lock, true, true);
        // More than a pipe holds.
        host.set("state/progress", &LINES.repeat(5));
        host.set("state/fail-after-switch", "no luck");
        systemd.start_stage(B, &argv).await.unwrap();
        let words = end_of_stage(&systemd).await.unwrap();
        assert!(words.ends_with("no luck"), "{words}");
        systemd.clear_stage().await.unwrap();
        host.remove("state/fail-after-switch");
        systemd.start_stage(B, &argv).await.unwrap();
        assert_eq!(end_of_stage(&systemd).await, None, "{lock:?}");
        assert!(host.get("journal-2").contains("Queued for next boot"));
        let locked = host.get("state/staged").ends_with("true");
        assert_eq!(locked, lock != Lock::No);
    }
}

#[tokio::test]
async fn a_pull_goes_on_where_progress_cannot_be_kept() {
    let host = host();
    let systemd = Systemd::of(host.host());
    host.set("state/progress", &LINES.repeat(5));
    fs::create_dir_all(host.path("run/bootc-operator-stage/progress")).unwrap();
    let argv = bootc::stage(B, Lock::TwoSteps, false, true);
    systemd.start_stage(B, &argv).await.unwrap();
    assert_eq!(end_of_stage(&systemd).await, None);
    assert!(host.get("state/staged").starts_with(B));
}
