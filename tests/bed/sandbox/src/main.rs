//! Brings up a cluster and shows a rollout.
fn main() {}
