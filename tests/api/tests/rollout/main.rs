//! The operator's real code against a real API server: one control plane and one operator for all
//! tests, with agents and kubelets played. Each test has a pool and nodes of its own.

mod boots;
mod broken;
mod changes;
mod conflicts;
mod deletion;
mod failures;
mod limits;
mod membership;
mod phases;
mod pull_secrets;
mod rollout;
mod tags;

use std::process::ExitCode;

use api_tests::{Suite, operator::log_to_file};
use libtest_mimic::Arguments;

/// Tests wait for the operator most of the time, so many go at once.
const AT_ONCE: usize = 6;

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    args.test_threads.get_or_insert(AT_ONCE);
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("the operator's tests cannot run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Arguments) -> anyhow::Result<ExitCode> {
    log_to_file("rollout")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let suite = runtime.block_on(async {
        let suite = Suite::start().await?;
        suite.operator.start(&suite).await?;
        anyhow::Ok(suite)
    })?;
    let tests = [
        rollout::trials(&suite),
        membership::trials(&suite),
        failures::trials(&suite),
        changes::trials(&suite),
        deletion::trials(&suite),
        boots::trials(&suite),
        limits::trials(&suite),
        conflicts::trials(&suite),
        broken::trials(&suite),
        tags::trials(&suite),
        pull_secrets::trials(&suite),
    ];
    let conclusion = libtest_mimic::run(args, tests.into_iter().flatten().collect());
    let stopped = runtime.block_on(suite.operator.stop());
    drop(suite);
    stopped?;
    Ok(conclusion.exit_code())
}
