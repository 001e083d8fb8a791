//! Tests that want the operator and the API server for themselves, one after the other: what the
//! operator costs and tells by the audit log, and what it survives.

mod cost;
mod flapping;
mod secrecy;
mod skewed;
mod survival;
mod tags;

use std::process::ExitCode;

use api_tests::{Suite, suite};

fn main() -> ExitCode {
    if let Some(code) = skewed::run_as_operator() {
        return code;
    }
    suite::run("alone", 1, Suite::start_audited(), async |suite| {
        let tests = [
            cost::trials(suite),
            flapping::trials(suite),
            secrecy::trials(suite),
            skewed::trials(suite),
            survival::trials(suite),
            tags::trials(suite),
        ];
        Ok(tests.into_iter().flatten().collect())
    })
}
