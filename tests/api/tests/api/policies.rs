//! The admission policies and rights do what they say: tests that try.

use std::sync::Arc;

use api_tests::Suite;
use libtest_mimic::Trial;

pub(crate) fn trials(_suite: &Arc<Suite>) -> Vec<Trial> {
    Vec::new()
}
