//! Helpers of the tests on whole clusters.
