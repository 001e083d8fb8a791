//! The agent's real code between the real API server and a played host.

mod bench;
mod soft;
mod staging;
mod trouble;
mod updating;

use std::sync::Arc;

use api_tests::Suite;
use libtest_mimic::Trial;

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    [
        updating::trials(suite),
        soft::trials(suite),
        staging::trials(suite),
        trouble::trials(suite),
    ]
    .into_iter()
    .flatten()
    .collect()
}
