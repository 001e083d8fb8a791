//! A bootc that fails, hangs, talks nonsense or is not there.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use api_tests::Suite;
use libtest_mimic::Trial;
use tokio::time::sleep;

use super::bench::{A, B, Bench, C};

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial("agent::a_missing_image", missing_image),
        suite.trial("agent::a_half_made_image", half_made_image),
        suite.trial("agent::no_bootc", no_bootc),
        suite.trial("agent::not_a_bootc_host", not_a_bootc_host),
        suite.trial("agent::bootc_fails_and_recovers", bootc_fails),
        suite.trial("agent::bootc_prints_garbage", garbage),
    ]
}

const UNKNOWN: &str = "error: Switching: Switching (ostree): Preparing import: Fetching manifest: failed to \
     invoke method OpenImage: reading manifest sha256:bb in quay.io/os: manifest unknown";

/// bootc's own words, a row of tries with longer and longer waits that no write of ours cuts short, and
/// another image is tried at once.
async fn missing_image(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "missing-image").await?;
    bench.host.set("state/fail-switch", UNKNOWN);
    bench
        .agent(async {
            bench.says("Idle Healthy").await?;
            bench.want(B).await?;
            let status = bench.says("Idle Error").await?;
            ensure!(status.booted.is_some_and(|it| it.image == A));
            let message = bench.message("Degraded").await?;
            ensure!(message.contains("manifest unknown"), "{message}");
            ensure!(message.contains("try 2 in"), "{message}");
            sleep(Duration::from_secs(3)).await;
            ensure!(bench.did("bootc switch") == 1, "tried again at once");
            bench.does("bootc switch", 2).await?;
            bench.host.remove("state/fail-switch");
            // Its own third try would come in some twenty seconds.
            bench.want(C).await?;
            let status = bench.says("Staged Healthy").await?;
            ensure!(status.staged.is_some_and(|it| it.image == C));
            Ok(())
        })
        .await
}

/// bootc failed and left the image staged (as it does if a bound image is missing): a second try would
/// be "unchanged", so it is dropped before.
async fn half_made_image(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "half-made").await?;
    bench.host.set(
        "state/fail-after-switch",
        "error: Staging: Pulling bound images",
    );
    bench
        .agent(async {
            bench.says("Idle Healthy").await?;
            bench.want(B).await?;
            bench.says("Idle Error").await?;
            bench.does("ostree admin undeploy 0", 1).await?;
            bench.host.remove("state/fail-after-switch");
            bench.says("Staged Healthy").await?;
            ensure!(bench.did("bootc switch") == 2);
            Ok(())
        })
        .await
}

async fn no_bootc(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "no-bootc").await?;
    bench.host.remove("bin/bootc");
    bench
        .agent(async {
            bench.says("Idle NotBootc").await?;
            let message = bench.message("Degraded").await?;
            ensure!(message.contains("no bootc on this host"), "{message}");
            Ok(())
        })
        .await
}

/// What bootc says on a host that it does not run.
async fn not_a_bootc_host(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "not-bootc").await?;
    let real = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../nodeagent/tests/fixtures/status/container-env-status.json"
    ));
    bench.host.set("state/status.json", real);
    bench
        .agent(async {
            bench.says("Idle NotBootc").await?;
            bench.want(B).await?;
            sleep(Duration::from_secs(2)).await;
            bench.says("Idle NotBootc").await?;
            ensure!(bench.did("bootc switch") == 0);
            Ok(())
        })
        .await
}

/// Its last words are shown beside the last good images, and all is well when it is well again.
async fn bootc_fails(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "bootc-fails").await?;
    bench
        .agent_that_polls(Duration::from_secs(1), async {
            bench.says("Idle Healthy").await?;
            let words = "error: Status: Acquiring Sysroot: No space left on device";
            bench.host.set("state/fail-status", words);
            let status = bench.says("Idle Error").await?;
            ensure!(
                status.booted.is_some_and(|it| it.image == A),
                "the images are gone"
            );
            let message = bench.message("Degraded").await?;
            ensure!(message.contains(words), "{message}");
            bench.host.remove("state/fail-status");
            bench.says("Idle Healthy").await?;
            Ok(())
        })
        .await
}

async fn garbage(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "garbage").await?;
    bench.host.set("state/status.json", "Segmentation fault");
    bench
        .agent(async {
            bench.says("Idle Error").await?;
            let message = bench.message("Degraded").await?;
            ensure!(message.contains("printed no status"), "{message}");
            Ok(())
        })
        .await
}
