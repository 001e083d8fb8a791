//! Waiting for what the cluster will do, by looking again and again.

use std::{fmt::Display, time::Duration};

use anyhow::Result;
use bed::wait::Patience;

/// How long something may take that takes well under a second on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
const PACE: Patience = Patience {
    at_most: PATIENCE,
    every: Duration::from_millis(100),
};

/// Looks until `look` gives a value; its last complaint is the error when time is up.
pub async fn until<T, E: Display>(
    what: &str,
    look: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T> {
    PACE.until(what, look).await
}
