//! What an admin does on a host by hand is seen at once, long before the
//! five-minute poll; while nobody does anything, the agent does nothing.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bed::control_plane::{AuditEvent, audit};
use crd::names::{NAMESPACE_AGENT, SERVICE_ACCOUNT_AGENT, condition};
use libtest_mimic::Trial;
use tokio::time::sleep;

use crate::host_rig::{Rig, Seen};
use crate::trial;

/// The promise is two seconds, on a machine that does nothing else; the poll
/// comes after 300.
const BEFORE_THE_POLL: Duration = Duration::from_secs(30);
/// What is promised.
const PROMISED: Duration = Duration::from_secs(2);
/// How many writes an update may cost.
const WRITES: usize = 4;
/// How long the agent is left alone.
const REST: Duration = Duration::from_secs(15);

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
    let before = asked(&rig).await?.len();
    let update = rig.env.images.push_os("2").await?;
    rig.set(node, &update).await?;
    rig.updated(node, &update).await?;
    sleep(PROMISED).await;
    let asked = asked(&rig).await?.split_off(before);
    let writes = asked.iter().filter(|event| event.verb == "patch").count();
    ensure!(
        (1..=WRITES).contains(&writes),
        "an update cost {writes} writes: {asked:#?}"
    );
    at_rest(&rig, node).await?;

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

/// No request but a watch that is renewed, and no process.
async fn at_rest(rig: &Rig, node: &str) -> Result<()> {
    let (requests, children) = (asked(rig).await?.len(), children(rig, node).await?);
    sleep(REST).await;
    let requests = asked(rig).await?.split_off(requests);
    ensure!(
        requests.iter().all(|event| event.verb == "watch"),
        "at rest the agent asked for {requests:#?}"
    );
    ensure!(
        children == self::children(rig, node).await?,
        "at rest the agent started programs"
    );
    Ok(())
}

/// What agents have asked the API server for so far.
async fn asked(rig: &Rig) -> Result<Vec<AuditEvent>> {
    let log = rig.env.bink.bed(["audit-log"]).await?;
    let agent = format!("system:serviceaccount:{NAMESPACE_AGENT}:{SERVICE_ACCOUNT_AGENT}");
    let mut asked = audit::read(log.as_ref())?;
    asked.retain(|event| event.user.username == agent && event.stage == "ResponseComplete");
    Ok(asked)
}

/// The page faults of the agent's children that have ended: more with each of
/// them.
async fn children(rig: &Rig, node: &str) -> Result<u64> {
    let script = "for p in /proc/[0-9]*; do if [ \"$(cat $p/comm 2>/dev/null)\" = bootc-nodeagent ]; then read -r stat < $p/stat; set -- ${stat##*)}; echo $9; fi; done";
    let said = rig.on(node, script).await?;
    said.parse()
        .with_context(|| format!("{node} has no agent, or two: {said}"))
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
