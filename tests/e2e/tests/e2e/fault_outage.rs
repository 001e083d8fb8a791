//! The API server is away for a while in each phase of an update.
//!
//! `E2E_OUTAGE` says for how long: `E2E_OUTAGE=5m cargo test -p e2e-tests --test e2e -- fault_outage`.
//! In an outage of minutes Kubernetes gives nodes up and evicts their pods.

use std::env;
use std::time::Duration;

use anyhow::{Context as _, Result};
use libtest_mimic::Trial;
use serde_json::json;
use tokio::time::sleep;

use crate::fault_rig::Disturbed;
use crate::{TEST, trial_within};

/// How long the API server is away.
const OUTAGE: Duration = Duration::from_secs(30);
/// Says for how long instead.
const VARIABLE: &str = "E2E_OUTAGE";

pub(crate) fn trials() -> Vec<Trial> {
    let outage = outage();
    let deadline = TEST + 5 * *outage.as_ref().unwrap_or(&OUTAGE);
    let trial = trial_within(
        deadline,
        "fault_outage::the_api_server_is_away_in_each_phase",
        move || async { every_phase(outage?).await },
    );
    vec![trial]
}

fn outage() -> Result<Duration> {
    match env::var(VARIABLE) {
        Ok(text) => humantime::parse_duration(&text)
            .with_context(|| format!("{VARIABLE} must be a time, such as 5m, not {text:?}")),
        Err(_) => Ok(OUTAGE),
    }
}

async fn every_phase(outage: Duration) -> Result<()> {
    let mut rollout = Disturbed::prepare(2).await?;
    let slow = json!({ "pull": { "bytesPerSecond": 200 } });
    rollout.rig.faults("node2", slow).await?;
    rollout.begin("2").await?;

    let pulls = "node2 pulls";
    rollout
        .find(pulls, |node| {
            node.name == "node2" && node.state == "Staging"
        })
        .await?;
    away(&rollout, outage).await.context("staging")?;

    rollout.reached("Draining").await?;
    away(&rollout, outage).await.context("draining")?;
    rollout.loosen().await?;

    rollout.down().await?;
    away(&rollout, outage).await.context("rebooting")?;

    rollout.reached("Verifying").await?;
    away(&rollout, outage).await.context("verifying")?;
    rollout.end().await
}

async fn away(rollout: &Disturbed, outage: Duration) -> Result<()> {
    let bink = &rollout.rig.env.bink;
    bink.bed(["control-plane", "stop", "api-server"]).await?;
    sleep(outage).await;
    bink.bed(["control-plane", "start", "api-server"]).await?;
    Ok(())
}
