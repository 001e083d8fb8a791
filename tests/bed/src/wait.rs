//! Waiting for something to come true, by looking again and again.

use std::{fmt::Display, time::Duration};

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// How often a wait says that it still waits.
const SPEAK: Duration = Duration::from_secs(20);

/// How patiently something is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// After this it is given up.
    pub at_most: Duration,
    /// The time between two looks.
    pub every: Duration,
}

impl Patience {
    /// Looks until `look` gives a value; its last complaint is the error when patience is at an end,
    /// and what is said in between.
    pub async fn until<T, E: Display>(
        self,
        what: &str,
        mut look: impl AsyncFnMut() -> Result<T, E>,
    ) -> Result<T> {
        let start = Instant::now();
        let mut spoke = start;
        loop {
            let complaint = match look().await {
                Ok(value) => return Ok(value),
                Err(complaint) => complaint,
            };
            if start.elapsed() > self.at_most {
                bail!("{what}: still not after {:?}: {complaint:#}", self.at_most);
            }
            if spoke.elapsed() > SPEAK {
                let waited = start.elapsed().as_secs();
                eprintln!("[{waited:>4} s] waiting: {what}: {complaint:#}");
                spoke = Instant::now();
            }
            sleep(self.every).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Patience = Patience {
        at_most: Duration::from_secs(60),
        every: Duration::from_secs(1),
    };

    #[tokio::test(start_paused = true)]
    async fn it_looks_until_there_is_nothing_to_complain_of() {
        let mut looks = 0;
        let look = || {
            looks += 1;
            std::future::ready(if looks < 5 { Err("not yet") } else { Ok(looks) })
        };
        assert_eq!(SHORT.until("it", look).await.unwrap(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_complaint_is_the_error() {
        let start = Instant::now();
        let never = || std::future::ready(Err::<(), _>("it is raining"));
        let error = SHORT.until("the sun shines", never).await.unwrap_err();
        assert!(start.elapsed() > SHORT.at_most);
        let text = error.to_string();
        assert!(
            text.contains("the sun shines") && text.contains("it is raining"),
            "{text}"
        );
    }
}
