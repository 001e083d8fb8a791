//! What an admin does on a host by hand is seen at once, long before the
//! five-minute poll.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use crd::names::condition;
use libtest_mimic::Trial;

use crate::host_rig::{Rig, Seen};
use crate::trial;

/// The promise is two seconds, on a machine that does nothing else; the poll
/// comes after 300.
const BEFORE_THE_POLL: Duration = Duration::from_secs(30);
/// What is promised.
const PROMISED: Duration = Duration::from_secs(2);

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "host_watch::what_an_admin_does_by_hand_is_seen_before_the_poll",
        what_an_admin_does_by_hand_is_seen_before_the_poll,
    )]
}

async fn what_an_admin_does_by_hand_is_seen_before_the_poll() -> Result<()> {
    let rig = Rig::new(1).await?;
    let node = "node1";
    rig.pool(node).await?;
    let update = rig.env.images.push_os("2").await?;
    rig.set(node, &update).await?;
    rig.updated(node, &update).await?;

    let foreign = rig.env.images.push_os("3").await?;
    let switch = format!("bootc switch {}", foreign.reference());
    let queued = |seen: &Seen| {
        seen.message(condition::IDLE)
            .contains("a rollback is queued")
    };
    let mut times = vec![
        seen_after(&rig, node, "bootc rollback", queued).await?,
        seen_after(&rig, node, "bootc rollback", |seen| !queued(seen)).await?,
        seen_after(&rig, node, &switch, |seen| {
            seen.staged() == Some(&foreign.digest)
                && seen
                    .message(condition::IDLE)
                    .contains("not wanted: the next reboot boots it")
        })
        .await?,
        seen_after(&rig, node, "ostree admin undeploy 0", |seen| {
            seen.staged().is_none()
        })
        .await?,
    ];
    eprintln!("seen after {times:?}");
    times.sort();
    ensure!(
        times[times.len() / 2] < PROMISED,
        "most changes were not seen within {PROMISED:?}: {times:?}"
    );
    rig.boots_were(node, &["reboot"]).await
}

/// Runs a command on a host; answers how long after it the status shows what
/// it did.
async fn seen_after(
    rig: &Rig,
    node: &str,
    command: &str,
    shows: impl Fn(&Seen) -> bool,
) -> Result<Duration> {
    rig.on(node, command).await?;
    let done = Instant::now();
    let what = format!("shows what `{command}` did");
    rig.when(node, &what, BEFORE_THE_POLL, shows).await?;
    Ok(done.elapsed())
}
