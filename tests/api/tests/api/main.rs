//! All tests against a real API server: one control plane for the suite, torn down at its end
//! however that comes.

mod agent;
mod drain;
mod install;
mod lease;
mod observe;
mod policies;
mod registry;
mod schema;
mod secrets;
mod stored;

use std::process::ExitCode;

use api_tests::{Suite, suite};

/// Tests wait for the cluster most of the time, so many go at once.
const AT_ONCE: usize = 8;

fn main() -> ExitCode {
    suite::run("api", AT_ONCE, Suite::start(), async |suite| {
        let tests = [
            agent::trials(suite),
            schema::trials(suite),
            stored::trials(suite),
            install::trials(suite),
            lease::trials(suite),
            observe::trials(suite),
            policies::trials(suite),
            drain::trials(suite),
            registry::trials(suite),
            secrets::trials(suite),
        ];
        Ok(tests.into_iter().flatten().collect())
    })
}
