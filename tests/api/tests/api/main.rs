//! All tests against a real API server: one control plane for the suite, torn down at its end
//! however that comes.

mod agent;
mod drain;
mod install;
mod lease;
mod policies;
mod registry;
mod schema;
mod secrets;
mod stored;

use std::process::ExitCode;

use api_tests::Suite;
use libtest_mimic::Arguments;

/// Tests wait for the cluster most of the time, so many go at once.
const AT_ONCE: usize = 8;

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    args.test_threads.get_or_insert(AT_ONCE);
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("the API tests cannot run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Arguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let suite = runtime.block_on(Suite::start())?;
    let tests = [
        agent::trials(&suite),
        schema::trials(&suite),
        stored::trials(&suite),
        install::trials(&suite),
        lease::trials(&suite),
        policies::trials(&suite),
        drain::trials(&suite),
        registry::trials(&suite),
        secrets::trials(&suite),
    ];
    let conclusion = libtest_mimic::run(args, tests.into_iter().flatten().collect());
    drop(suite);
    Ok(conclusion.exit_code())
}
