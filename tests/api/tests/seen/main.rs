//! What can be seen of a rollout from outside, by the real things: a Collector, a Prometheus, the API
//! server's Events, a log file. The operator is a process of its own, the very program.

mod events;
mod logs;
mod metrics;
mod process;
mod prometheus;
mod traces;

use std::process::ExitCode;

use api_tests::{Suite, suite};

fn main() -> ExitCode {
    if let Some(code) = process::run_as_operator() {
        return code;
    }
    suite::run("seen", 1, Suite::start(), async |suite| {
        let tests = [
            events::trials(suite),
            logs::trials(suite),
            metrics::trials(suite),
            prometheus::trials(suite),
            traces::trials(suite),
        ];
        Ok(tests.into_iter().flatten().collect())
    })
}
