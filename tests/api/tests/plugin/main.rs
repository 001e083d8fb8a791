//! `kubectl bootc`, the built program, against a real API server with a real operator and played
//! agents; and the operator's journal of all that.

mod changes;
mod journal;
mod looks;
mod run;
mod why;

use std::process::ExitCode;

use api_tests::{Suite, suite};

/// Tests wait for the operator most of the time.
const AT_ONCE: usize = 6;

fn main() -> ExitCode {
    suite::run("plugin", AT_ONCE, Suite::start(), async |suite| {
        let stage = run::Stage::set(suite).await?;
        let tests = [
            looks::trials(suite, &stage),
            why::trials(suite, &stage),
            changes::trials(suite, &stage),
            journal::trials(suite, &stage),
        ];
        Ok(tests.into_iter().flatten().collect())
    })
}
