//! Waiting for something to come true, with what it still lacks in the error.

use std::time::Duration;

use anyhow::{Result, anyhow};
use bed::wait::Patience;

/// How often a wait looks again. bink's load balancer closes idle watches, so
/// the tests poll.
const POLL: Duration = Duration::from_millis(200);

/// Looks until `look` answers `Ok(Ok(value))`; `Ok(Err(what))` says what it
/// lacks. Errors of the API count as lacking: a node that reboots may take a
/// connection with it.
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    look: impl AsyncFn() -> Result<Result<T, String>>,
) -> Result<T> {
    let patience = Patience {
        at_most: deadline,
        every: POLL,
    };
    let look = || async { look().await?.map_err(|lacks| anyhow!(lacks)) };
    patience.until(what, look).await
}
