//! The operator's coming and going: taking over from the Go operator, other versions of the agent,
//! and CRDs that are deleted under it. Each test starts and stops the operator itself, one after the
//! other.

mod crds;
mod takeover;

use std::{process::ExitCode, sync::Arc};

use api_tests::{Suite, suite};

fn main() -> ExitCode {
    suite::run("lifecycle", 1, Suite::start(), async |suite| {
        let tests = [takeover::trials(suite), crds::trials(suite)];
        Ok(tests.into_iter().flatten().collect())
    })
}

/// Starts the operator; one that a failed test left behind ends first.
async fn start(suite: &Arc<Suite>) -> anyhow::Result<()> {
    suite.operator.end().await?;
    suite.operator.start(suite).await
}
