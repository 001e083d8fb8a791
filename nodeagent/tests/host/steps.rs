//! Short steps: nothing is laid over one that another agent left, and nothing is left of what bootc
//! asks others for.

use std::{fs, pin::pin};

use fsm::host::{Effect, Host as HostFact, Lock, News};
use futures::future::join_all;
use nodeagent::{
    api::Server,
    hands::Hands,
    unit::{STEP_UNIT, Systemd},
};
use tokio::time::timeout;

use super::{B, SOON, host, played::PlayedHost, sh};

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
