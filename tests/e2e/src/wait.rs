//! Waiting for something to come true, with what it still lacks in the error.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a wait looks again. bink's load balancer closes idle watches, so
/// the tests poll.
const POLL: Duration = Duration::from_millis(200);
/// How often a wait says that it still waits.
const SPEAK: Duration = Duration::from_secs(20);

/// Looks until `look` answers `Ok(Ok(value))`; `Ok(Err(what))` says what it
/// lacks. Errors of the API count as lacking: a node that reboots may take a
/// connection with it.
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    look: impl AsyncFn() -> Result<Result<T, String>>,
) -> Result<T> {
    let start = Instant::now();
    let mut spoke = start;
    loop {
        let lacks = match look().await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(lacks)) => lacks,
            Err(error) => format!("{error:#}"),
        };
        if start.elapsed() > deadline {
            bail!("not in {} s: {what} (last: {lacks})", deadline.as_secs());
        }
        if spoke.elapsed() > SPEAK {
            eprintln!(
                "[{:>4} s] waiting until {what}: {lacks}",
                start.elapsed().as_secs()
            );
            spoke = Instant::now();
        }
        tokio::time::sleep(POLL).await;
    }
}
