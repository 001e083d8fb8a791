//! Commands, and what the host's tools offer.

use std::{fs, time::Duration};

use fsm::host::Lock;
use nodeagent::{
    bootc::{Bootc, ReadError},
    host::{CommandError, last_words},
};
use tokio::time::{sleep, timeout};

use super::{SOON, host, sh};

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
