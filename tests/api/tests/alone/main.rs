//! Tests that want the operator and the API server for themselves, one after the other: what the
//! operator costs by the audit log, and what it survives.

mod cost;
mod survival;

use std::process::ExitCode;

use api_tests::{Suite, operator::log_to_file};
use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    args.test_threads = Some(1);
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("the operator's tests cannot run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Arguments) -> anyhow::Result<ExitCode> {
    log_to_file("alone")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let suite = runtime.block_on(Suite::start_audited())?;
    let tests = [cost::trials(&suite), survival::trials(&suite)];
    let conclusion = libtest_mimic::run(args, tests.into_iter().flatten().collect());
    drop(suite);
    Ok(conclusion.exit_code())
}
