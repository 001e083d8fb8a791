//! The manifests: rendered as committed, accepted as they are, of one mind with the code.

use std::sync::Arc;

use api_tests::Suite;
use libtest_mimic::Trial;

pub(crate) fn trials(_suite: &Arc<Suite>) -> Vec<Trial> {
    Vec::new()
}
