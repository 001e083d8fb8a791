//! A rollout during which one request goes wrong, for every request and every way in which it can:
//! the operator's and the agent's real code against a real API server.
//!
//! A first run without faults names the requests. Each test is a run of its own, in which the process
//! dies before or after one of them, or one is not answered, refused, or cut off; however that goes,
//! it ends with every node on the new image, rebooted once, in its slot alone, and cordoned by nobody
//! but those who had cordoned it before. A test whose fault did not strike fails.
//!
//! `cargo test -p api-tests --test chaos` plays a sample that depends on `CHAOS_SEED` (0 if unset);
//! with `CHAOS=all`, or with part of a test's name as argument, all runs of that name are played.

mod alone;
mod call;
mod fault;
#[path = "../../../../nodeagent/tests/played/mod.rs"]
mod played;
mod world;

use std::{collections::BTreeSet, process::ExitCode, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use api_tests::{Account, Suite, suite};
use kube::Client;
use libtest_mimic::{Arguments, Trial};

use fault::{How, Script};
use world::World;

/// Runs wait most of the time, so many go at once.
const AT_ONCE: usize = 12;
/// A request may not occur in a run as it did in those without faults: status and Events depend on
/// time. So often is it tried.
const TRIES: usize = 3;
/// Requests about the Lease: it is read and taken, and renewed every three seconds.
const LEASE: usize = 4;
/// Runs of the sample.
const SAMPLE: usize = 120;

fn main() -> ExitCode {
    suite::run("chaos", AT_ONCE, start(), async |suite| {
        let operator = suite.client_of(Account::OPERATOR, None).await?;
        let all = schedules(&Box::pin(calls(suite, &operator)).await?);
        let chosen = sample(all)?;
        bed::progress::say(format_args!("{} runs", chosen.len()));
        let trial = |(number, (call, how))| trial(suite, &operator, number, call, how);
        Ok(chosen.into_iter().enumerate().map(trial).collect())
    })
}

/// A control plane without the `DaemonSet` of the agent: the agents run in this process.
async fn start() -> Result<Arc<Suite>> {
    let suite = Suite::start().await?;
    let namespace = Account::AGENT.namespace;
    let all = ["-n", namespace, "delete", "daemonset", "--all"];
    suite.kubectl(&all).await?;
    Ok(suite)
}

/// The requests that occur in each of two runs without faults, in their order; those about the Lease
/// are of a third one.
async fn calls(suite: &Arc<Suite>, operator: &Client) -> Result<Vec<String>> {
    let play = async |run, leader_elect| {
        let world = World::new(suite, run, Script::new(None), leader_elect).await?;
        let calls = world.play(operator).await;
        calls.with_context(|| format!("the run {run}, without faults"))
    };
    let (first, elected) = tokio::try_join!(play("calm-a", false), play("calm-elected", true))?;
    // By itself: what slows the machine down for a while would show in both.
    let second = play("calm-b", false).await?;
    let second: BTreeSet<_> = second.into_iter().collect();
    let both = first.into_iter().filter(|call| second.contains(call));
    let mut all: Vec<_> = both.collect();
    ensure!(all.len() > 50, "only {} requests: {all:#?}", all.len());
    let lease = elected.into_iter().filter(|call| is_of_lease(call));
    all.extend(lease.take(LEASE));
    ensure!(
        all.iter().any(|call| is_of_lease(call)),
        "no Lease: {all:#?}"
    );
    Ok(all)
}

fn is_of_lease(call: &str) -> bool {
    call.contains(" leases #")
}

fn schedules(calls: &[String]) -> Vec<(String, How)> {
    let each = |call: &String| {
        let fits = How::ALL.into_iter().filter(|how| how.fits(call));
        fits.map(|how| (call.clone(), how)).collect::<Vec<_>>()
    };
    calls.iter().flat_map(each).collect()
}

/// All, where all are wanted or a name is; else the sample.
fn sample(mut all: Vec<(String, How)>) -> Result<Vec<(String, How)>> {
    let is_all = std::env::var("CHAOS").is_ok_and(|it| it == "all");
    if is_all || Arguments::from_args().filter.is_some() {
        return Ok(all);
    }
    let seed = std::env::var("CHAOS_SEED").unwrap_or_else(|_| "0".to_owned());
    let seed = seed.parse().context("CHAOS_SEED is no number")?;
    bed::progress::say(format_args!(
        "{SAMPLE} of {} runs, CHAOS_SEED={seed}",
        all.len()
    ));
    let mut random = fastrand::Rng::with_seed(seed);
    random.shuffle(&mut all);
    all.truncate(SAMPLE);
    Ok(all)
}

fn trial(suite: &Arc<Suite>, operator: &Client, number: usize, call: String, how: How) -> Trial {
    let operator = operator.clone();
    suite.trial(format!("{call}: {how:?}"), move |suite| async move {
        for turn in 0..TRIES {
            let run = format!("run-{number}-{turn}");
            let script = Script::new(Some((call.clone(), how)));
            let elected = is_of_lease(&call);
            let world = World::new(&suite, &run, Arc::clone(&script), elected).await?;
            world.play(&operator).await.with_context(|| run.clone())?;
            if script.struck() {
                return Ok(());
            }
        }
        anyhow::bail!("there was no such request in {TRIES} runs, so the fault never struck")
    })
}
