//! Log lines as a collector of logs reads them.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use api_tests::{
    Fleet, Suite,
    fleet::{B, reference},
};
use bed::run_dir::RunDir;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::process::{Operator, log_of};

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![suite.trial("logs::each_hop_is_one_line_of_json", lines)]
}

async fn lines(suite: Arc<Suite>) -> Result<()> {
    let dir = RunDir::fresh("seen-logs")?;
    let flags = ["--log-format=json"];
    let operator = Operator::start(&suite, dir.path(), &flags, &[]).await?;
    let fleet = Fleet::settled(&suite, "logged", 1, json!({})).await?;
    fleet.want(B).await?;
    fleet.until_updated(B).await?;
    fleet.finish().await?;
    operator.stop().await?;
    let log = log_of(dir.path())?;
    let all: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
        .collect::<Result<_>>()?;
    let to_b = |line: &&Value| line["image"] == reference(B) && line["to"].is_string();
    let hops: Vec<&Value> = all.iter().filter(to_b).collect();
    let ways: Vec<_> = hops
        .iter()
        .map(|line| line["message"].as_str().unwrap_or(""))
        .collect();
    let wanted = [
        "Idle -> Staging",
        "Staging -> Staged",
        "Staged -> Cordoned",
        "Cordoned -> Draining",
        "Draining -> Rebooting",
        "Rebooting -> Verifying",
        "Verifying -> Idle",
        "Idle -> Leaving",
    ];
    ensure!(ways == wanted, "{ways:#?}");
    let trace = hops[0]["trace"].as_str().context("no trace")?;
    ensure!(trace.len() == 32, "a trace id alone: {trace}");
    for hop in &hops {
        ensure!(
            hop["node"] == "logged-1" && hop["pool"] == "logged",
            "{hop}"
        );
        ensure!(hop["trace"] == trace && hop["level"] == "INFO", "{hop}");
        ensure!(
            hop["cause"].is_string() && hop["timestamp"].is_string(),
            "{hop}"
        );
        ensure!(hop["after_seconds"].is_number(), "{hop}");
    }

    // RUST_LOG says what is logged.
    let quiet = RunDir::fresh("seen-quiet")?;
    let variables = [("RUST_LOG", "error")];
    let operator = Operator::start(&suite, quiet.path(), &[], &variables).await?;
    let fleet = Fleet::settled(&suite, "quiet", 1, json!({})).await?;
    fleet.finish().await?;
    operator.stop().await?;
    let log = log_of(quiet.path())?;
    ensure!(log.is_empty(), "{log}");
    Ok(())
}
