//! The operator's real code against a real API server: one control plane and one operator for all
//! tests, with agents and kubelets played. Each test has a pool and nodes of its own.

mod boots;
mod broken;
mod changes;
mod clocks;
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

use api_tests::{Suite, suite};

/// Tests wait for the operator most of the time, so many go at once.
const AT_ONCE: usize = 6;

fn main() -> ExitCode {
    let start = async {
        let suite = Suite::start().await?;
        suite.operator.start(&suite).await?;
        Ok(suite)
    };
    suite::run("rollout", AT_ONCE, start, async |suite| {
        let tests = [
            rollout::trials(suite),
            membership::trials(suite),
            failures::trials(suite),
            changes::trials(suite),
            clocks::trials(suite),
            deletion::trials(suite),
            boots::trials(suite),
            limits::trials(suite),
            conflicts::trials(suite),
            broken::trials(suite),
            tags::trials(suite),
            pull_secrets::trials(suite),
        ];
        Ok(tests.into_iter().flatten().collect())
    })
}
