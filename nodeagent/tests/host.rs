//! Commands on the host, its files, and the watch on it: with real processes, files and inotify, in a
//! directory that plays the host.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{fs, pin::pin, sync::Arc, time::Duration};

use fsm::host::{Auth, Effect, Host as HostFact, Lock, News, Progress, Task, Unit};
use futures::future::join_all;
use nodeagent::{
    api::Server,
    auth,
    bootc::{self, Bootc, ReadError},
    hands::Hands,
    host::{CommandError, Host, last_words},
    unit::{STEP_UNIT, Stage, Systemd},
    watch::HostWatch,
};
use serde_json::{Value, json};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

mod played;

use played::PlayedHost;

const A: &str = "quay.io/os@sha256:aa";
const B: &str = "quay.io/os@sha256:bb";
const SOON: Duration = Duration::from_secs(20);

fn host() -> PlayedHost {
    PlayedHost::booted(A).unwrap()
}

fn sh(script: &str) -> [&str; 3] {
    ["sh", "-c", script]
}

#[tokio::test]
async fn a_command_gets_a_clean_environment() {
    let host = host();
    // `container`, even empty, makes bootc deny its host; the tests' own environment is never empty.
    let output = host.host().run(&["env"], SOON).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut names: Vec<&str> = text.lines().filter_map(|it| it.split('=').next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["HOME", "HOST_ROOT", "LC_ALL", "PATH"]);
}

#[tokio::test]
async fn a_command_that_fails_has_its_last_words() {
    let host = host();
    let script = sh("for i in 1 2 3 4 5 6; do echo line $i >&2; done; echo out; exit 3");
    let error = host.host().run(&script, SOON).await.unwrap_err();
    let CommandError::Failed { status, words, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(words, "line 2 | line 3 | line 4 | line 5 | line 6");
    assert!(status.contains('3'), "{status}");
    // bootc says nothing on standard error at times.
    let quiet = host.host().run(&sh("echo out; exit 1"), SOON).await;
    assert!(quiet.unwrap_err().to_string().ends_with(": out"));
}

#[tokio::test]
async fn a_missing_program_is_told_from_a_failing_one() {
    let host = host();
    let error = host.host().run(&["bootc-of-another-world"], SOON).await;
    assert!(matches!(error, Err(CommandError::Missing(_))));
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_with_its_children() {
    let host = host();
    let pid = host.path("child");
    let script = format!("sleep 1000 & echo $! > {}; wait", pid.display());
    let error = host.host().run(&sh(&script), Duration::from_secs(1)).await;
    assert!(matches!(
        error,
        Err(CommandError::TimedOut { seconds: 1, .. })
    ));
    let child = fs::read_to_string(pid).unwrap();
    let stat = format!("/proc/{}/stat", child.trim());
    let gone = async {
        // Nobody may be there to reap it: a dead one will do.
        while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, gone).await.expect("the child lives on");
}

#[test]
fn last_words_are_few() {
    assert_eq!(last_words("\n a \n\n b\n"), "a | b");
    assert_eq!(last_words(" \n"), "it did not say why");
    let long = last_words(&"é".repeat(2000));
    assert!(long.starts_with('…') && long.len() < 1010, "{}", long.len());
}

#[tokio::test]
async fn what_the_tools_offer_is_asked_of_them() {
    let host = host();
    let bootc = Bootc::on(host.host());
    let lock = async || bootc.can().await.unwrap().lock;
    assert_eq!(lock().await, Lock::TwoSteps);
    host.set("state/one-step", "");
    assert_eq!(lock().await, Lock::OneStep);
    host.set("state/old", "");
    assert_eq!(lock().await, Lock::No);
    assert!(bootc.can().await.unwrap().unstage);
    assert!(!bootc.can().await.unwrap().progress);
    host.set("state/progress", "");
    assert!(bootc.can().await.unwrap().progress);
    host.remove("state/old");
    assert!(!bootc.can().await.unwrap().soft_reboot);
    host.set("state/soft", "");
    assert!(bootc.can().await.unwrap().soft_reboot);
    host.remove("bin/ostree");
    assert!(!bootc.can().await.unwrap().soft_reboot);
    assert!(!bootc.can().await.unwrap().unstage);
    host.remove("bin/bootc");
    assert_eq!(bootc.can().await, None);
    assert!(matches!(bootc.status().await, Err(ReadError::NoBootc)));
}

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

/// A short step that another agent left behind.
fn leave_step(host: &PlayedHost) {
    let folder = format!("units/{STEP_UNIT}");
    fs::create_dir(host.path(&folder)).unwrap();
    host.set(&format!("{folder}/description"), STEP_UNIT);
    host.set(&format!("{folder}/invocation"), "7");
    host.set("journal-7", "words of another run");
    host.set(&format!("{folder}/state"), "active/running");
}

#[tokio::test]
async fn a_step_that_another_agent_left_is_outlasted() {
    let host = host();
    let systemd = Systemd::of(host.host());
    assert!(!systemd.outlast_step().await);
    leave_step(&host);
    let mut waiting = pin!(systemd.outlast_step());
    assert!(timeout(SOON / 10, &mut waiting).await.is_err());
    host.clear_units();
    assert!(timeout(SOON, waiting).await.unwrap());
    systemd.step(&sh("true").map(str::to_owned)).await.unwrap();
}

#[tokio::test]
async fn a_step_that_is_refused_has_no_words_of_another_run() {
    let host = host();
    let systemd = Systemd::of(host.host());
    leave_step(&host);
    let refused = systemd.step(&sh("true").map(str::to_owned)).await;
    let words = refused.unwrap_err().to_string();
    assert!(words.contains("already loaded"), "{words}");
    assert!(!words.contains("words of another run"), "{words}");
}

/// What was decided before another agent's step ended does not hold any more: whatever changes the
/// host only waits for that end, and the host is read again.
#[tokio::test]
async fn nothing_is_laid_over_a_step_that_another_agent_left() {
    let image = || B.to_owned();
    let effects = [
        Effect::Stage {
            image: image(),
            lock: Lock::TwoSteps,
            sigpolicy: false,
            progress: false,
        },
        Effect::Lock { image: image() },
        Effect::Unlock {
            image: image(),
            soft: false,
        },
        Effect::Unprepare { image: image() },
        Effect::Settle { image: image() },
        Effect::Unstage { image: image() },
        Effect::Reboot {
            image: image(),
            soft: false,
        },
    ];
    join_all(effects.map(only_waits)).await;
}

async fn only_waits(effect: Effect) {
    let host = host();
    host.set("state/staged", &format!("{B} sha256:bb commit 1 true"));
    let hands = Hands::new(host.host(), unreachable());
    leave_step(&host);
    let mut doing = pin!(hands.carry_out(effect.clone()));
    assert!(timeout(SOON / 10, &mut doing).await.is_err(), "{effect:?}");
    host.clear_units();
    let sighting = timeout(SOON, doing).await.unwrap();
    assert_eq!(sighting.news, News::None, "{effect:?}");
    assert!(matches!(sighting.host, Some(HostFact::Seen(_))));
    assert_eq!(host.log(), [""; 0], "{effect:?}");
    assert_eq!(host.boots(), 0, "{effect:?}");
}

/// bootc asks whoever reboots hosts for a reboot into an image, and a soft reboot into it leaves that
/// standing.
#[tokio::test]
async fn no_reboot_is_required_into_what_runs() {
    let host = host();
    let hands = Hands::new(host.host(), unreachable());
    for (names, stays) in [("sha256:aa", false), ("sha256:bb", true), ("", true)] {
        let text = format!("bootc: Reboot required for image: {names}");
        host.set("run/reboot-required", &text);
        let sighting = hands.read(false).await;
        assert!(matches!(sighting.host, Some(HostFact::Seen(_))));
        let is_there = host.path("run/reboot-required").exists();
        assert_eq!(is_there, stays, "{names}");
    }
}

/// An API server that is not there.
fn unreachable() -> Server {
    let config = kube::Config::new("http://127.0.0.1:9".parse().unwrap());
    Server::new(config, "n").unwrap()
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

const LINES: &str = include_str!("fixtures/progress.jsonl");

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

fn auths(host: &PlayedHost) -> Value {
    let text = host.get("run/ostree/auth.json");
    serde_json::from_str::<Value>(&text).unwrap()["auths"].clone()
}

#[test]
fn credentials_lie_over_the_hosts_own() {
    use std::os::unix::fs::PermissionsExt as _;
    let played = host();
    let host = played.host();
    played.set(
        "etc/ostree/auth.json",
        r#"{"auths":{"a":1,"b":1},"credHelpers":{"c":"h"}}"#,
    );
    assert_eq!(auth::present(&host), Auth::Absent);
    auth::write(&host, br#"{"auths":{"b":2}}"#, "one").unwrap();
    assert_eq!(auth::present(&host), Auth::Written("one".into()));
    assert_eq!(auths(&played), json!({ "a": 1, "b": 2 }));
    assert!(played.get("run/ostree/auth.json").contains("credHelpers"));
    let mode = fs::metadata(played.path("run/ostree/auth.json"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    // A changed Secret replaces the old one's entries.
    auth::write(&host, br#"{"auths":{"d":3}}"#, "two").unwrap();
    assert_eq!(auths(&played), json!({ "a": 1, "b": 1, "d": 3 }));
    auth::remove(&host).unwrap();
    assert_eq!(auth::present(&host), Auth::Absent);
    assert!(!played.path("run/ostree/auth.json").exists());
    auth::remove(&host).unwrap();
}

#[test]
fn a_login_without_auth_gets_one() {
    let played = host();
    let host = played.host();
    let secret =
        br#"{"auths":{"r":{"username":"u","password":"p"},"s":{"auth":"x","username":"u"}}}"#;
    auth::write(&host, secret, "one").unwrap();
    let auths = auths(&played);
    assert_eq!(auths["r"]["auth"], "dTpw");
    assert_eq!(auths["s"]["auth"], "x");
}

#[test]
fn somebody_elses_credentials_come_back() {
    let played = host();
    let host = played.host();
    let theirs = r#"{"auths":{"theirs":1}}"#;
    played.set("run/ostree/auth.json", theirs);
    auth::write(&host, br#"{"auths":{"ours":2}}"#, "one").unwrap();
    auth::write(&host, br#"{"auths":{"ours":3}}"#, "two").unwrap();
    assert_eq!(auths(&played), json!({ "theirs": 1, "ours": 3 }));
    auth::remove(&host).unwrap();
    assert_eq!(played.get("run/ostree/auth.json"), theirs);
}

#[test]
fn malformed_credentials_are_refused_and_not_shown() {
    let played = host();
    let host = played.host();
    for bad in ["hunter2", "[]", "{}", r#"{"auths":"hunter2"}"#] {
        let error = auth::write(&host, bad.as_bytes(), "h")
            .unwrap_err()
            .to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
    played.set("etc/ostree/auth.json", "garbage");
    let error = auth::write(&host, br#"{"auths":{}}"#, "h").unwrap_err();
    assert!(
        error.to_string().contains("etc/ostree/auth.json"),
        "{error}"
    );
    assert_eq!(auth::present(&host), Auth::Absent);
}

/// A watch that runs, and whether it told of a change.
struct Watching {
    told: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Watching {
    fn of(host: &Host) -> Self {
        let told = Arc::new(Notify::new());
        let watch = HostWatch::new(host);
        let task = tokio::spawn(watch.run(Arc::clone(&told)));
        Self { told, task }
    }

    async fn tells(&self) -> bool {
        timeout(Duration::from_secs(10), self.told.notified())
            .await
            .is_ok()
    }

    async fn is_calm(&self) -> bool {
        timeout(Duration::from_secs(2), self.told.notified())
            .await
            .is_err()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn changes_of_the_host_are_told() {
    let host = host();
    fs::create_dir_all(host.path("sysroot/ostree/bootc")).unwrap();
    let watching = Watching::of(&host.host());
    assert!(watching.is_calm().await);
    // What a stage, a lock and an update of the time stamp leave behind.
    fs::create_dir(host.path("sysroot/ostree/deploy/x")).unwrap();
    assert!(watching.tells().await);
    host.set("run/ostree/staged-deployment-locked", "");
    assert!(watching.tells().await);
    let bootc = fs::File::open(host.path("sysroot/ostree/bootc")).unwrap();
    bootc.set_modified(std::time::SystemTime::now()).unwrap();
    assert!(watching.tells().await);
}

#[tokio::test]
async fn what_bootc_status_leaves_behind_is_not_told() {
    let host = host();
    let watching = Watching::of(&host.host());
    // It makes and removes its lock file at each call, and reads everything.
    host.set("sysroot/ostree/lock", "");
    host.remove("sysroot/ostree/lock");
    fs::read_dir(host.path("sysroot/ostree/deploy"))
        .unwrap()
        .count();
    fs::read_dir(host.path("run/ostree")).unwrap().count();
    host.set("run/somebody-elses-file", "");
    assert!(watching.is_calm().await);
}

#[tokio::test]
async fn folders_that_come_late_or_are_replaced_are_watched() {
    let host = host();
    let watching = Watching::of(&host.host());
    fs::create_dir(host.path("run/composefs")).unwrap();
    assert!(watching.tells().await);
    host.set("run/composefs/staged-deployment", "");
    assert!(watching.tells().await);
    // Another folder in its place, with and without a gap.
    let deploy = host.path("sysroot/ostree/deploy");
    fs::rename(&deploy, host.path("sysroot/ostree/old")).unwrap();
    fs::create_dir(&deploy).unwrap();
    assert!(watching.tells().await);
    fs::create_dir(deploy.join("x")).unwrap();
    assert!(watching.tells().await);
    fs::remove_dir_all(&deploy).unwrap();
    assert!(watching.tells().await);
    sleep(Duration::from_secs(1)).await;
    fs::create_dir(&deploy).unwrap();
    assert!(watching.tells().await);
    fs::create_dir(deploy.join("y")).unwrap();
    assert!(watching.tells().await);
}
