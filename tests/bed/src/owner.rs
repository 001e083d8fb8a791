//! For whom something runs: a daemon that was started for a test ends when the
//! test does, however that happens.

use std::env;

use anyhow::{Context as _, Result};

use crate::run_dir::Mark;

/// The variable that names the process for which a command runs, by its
/// number. Where it is unset, what is started stays until it is stopped.
pub const VARIABLE: &str = "BED_OWNER";

/// The process that [`VARIABLE`] names.
pub fn from_environment() -> Result<Option<Mark>> {
    let Some(value) = env::var(VARIABLE).ok().filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let pid = value
        .parse()
        .with_context(|| format!("{VARIABLE}={value} is no process number"))?;
    let mark =
        Mark::of(pid).with_context(|| format!("{VARIABLE}={value} names no process that runs"))?;
    Ok(Some(mark))
}
