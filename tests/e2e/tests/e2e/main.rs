//! All tests on whole clusters: real bootc VMs where `bink` is on the `PATH`,
//! the bed's hosts elsewhere. Each test has a cluster of its own.

mod fault_outage;
mod fault_rig;
mod faults;
mod harness;
mod host_boot;
mod host_pull;
mod host_rig;
mod host_secret;
mod host_soft;
mod host_watch;
mod metrics;
mod milestones;
mod not_bootc;
mod removal;
mod rollout;
mod seen;
mod seen_after;
mod seen_rig;
mod trouble;
mod upgrade;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use e2e::Bink;
use libtest_mimic::{Arguments, Trial};
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// Clusters side by side: each wants about a GiB and a half of memory, and all
/// of the processors while it starts.
const AT_ONCE: usize = 2;
/// How long one test may take.
const TEST: Duration = Duration::from_secs(900);

/// Rights that a run need not use, each with the reason why it is granted all the same; the manifests
/// say so too.
const UNUSED: &[(&str, &str)] = &[(
    "bootc-operator: patch events",
    "an Event that is said again within minutes is counted on the first one",
)];

fn main() -> ExitCode {
    if let Some(code) = bed::bink::run_as_bink() {
        return code;
    }
    let mut args = Arguments::from_args();
    args.test_threads.get_or_insert(AT_ONCE);
    let real = match Bink::real() {
        Ok(real) => real.is_some(),
        Err(error) => {
            eprintln!("the tests on clusters cannot run: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let everywhere = [
        harness::trials(),
        metrics::trials(),
        milestones::trials(),
        rollout::trials(),
        trouble::trials(),
        upgrade::trials(),
        removal::trials(),
    ];
    let only_bed = [
        fault_outage::trials(),
        faults::trials(),
        host_boot::trials(),
        host_pull::trials(),
        host_secret::trials(),
        host_soft::trials(),
        host_watch::trials(),
        not_bootc::trials(),
        seen::trials(),
    ];
    // Faults and power switches are the bed's; elsewhere these are shown as ignored, by name.
    let only_bed = only_bed.into_iter().flatten();
    let only_bed = only_bed.map(|trial| trial.with_ignored_flag(real));
    let tests = everywhere.into_iter().flatten().chain(only_bed);
    let conclusion = libtest_mimic::run(&args, tests.collect());
    let whole = !args.list && conclusion.num_filtered_out == 0 && !conclusion.has_failed();
    if whole && !real {
        return rights();
    }
    conclusion.exit_code()
}

/// What all tests together asked of their API servers, beside what `deploy/` grants: only known
/// when all of them have run.
fn rights() -> ExitCode {
    let file = bed::paths::project().join("deploy/install.yaml");
    let checked = std::fs::read_to_string(&file)
        .map_err(anyhow::Error::from)
        .and_then(|install| e2e::rights::check(&install, UNUSED));
    match checked {
        Ok(()) => {
            println!(
                "rights: each is used, but for {} that need not be; none was missed",
                UNUSED.len()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("rights: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A test of that name.
fn trial<Fut>(name: &str, test: impl FnOnce() -> Fut + Send + 'static) -> Trial
where
    Fut: Future<Output = Result<()>>,
{
    trial_within(TEST, name, test)
}

/// The same with another deadline.
fn trial_within<Fut>(
    deadline: Duration,
    name: &str,
    test: impl FnOnce() -> Fut + Send + 'static,
) -> Trial
where
    Fut: Future<Output = Result<()>>,
{
    Trial::test(name, move || {
        let runtime = Runtime::new()?;
        match runtime.block_on(async { timeout(deadline, test()).await }) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("{error:#}").into()),
            Err(_) => Err(format!("not over after {deadline:?}").into()),
        }
    })
}
