//! Waiting for what the cluster will do, by looking again and again.

use std::{fmt::Display, future::Future, time::Duration};

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// How long something may take that takes well under a second on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// Looks until `look` gives a value; its last complaint is the error when time is up.
pub async fn until<T, E, F, Fut>(what: &str, mut look: F) -> Result<T>
where
    E: Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(value) => return Ok(value),
            Err(complaint) if Instant::now() > deadline => {
                bail!("{what}: still not after {PATIENCE:?}: {complaint:#}")
            }
            Err(_) => sleep(POLL).await,
        }
    }
}
