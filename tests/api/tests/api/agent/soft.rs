//! Soft reboots: prepared where they may be, undone where they must be, and told from a fall-back.

use std::sync::Arc;

use anyhow::{Result, ensure};
use api_tests::{Suite, wait};
use libtest_mimic::Trial;
use serde_json::json;

use super::bench::{A, B, Bench};

const UNLOCK: &str = "bootc upgrade --from-downloaded --soft-reboot=auto";
const RESTART: &str = "systemctl restart ostree-boot-complete.service";
const UNDO: &str = "ostree admin prepare-soft-reboot --reset";

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial("agent::soft_reboots_in_a_row", in_a_row),
        suite.trial("agent::a_soft_reboot_not_allowed", not_allowed),
        suite.trial("agent::a_soft_reboot_not_possible", not_possible),
        suite.trial("agent::a_soft_reboot_undone", undone),
        suite.trial("agent::not_trusted_after_a_soft_reboot", not_trusted),
    ]
}

/// A node whose host and whose pool both know soft reboots.
async fn bench(suite: Arc<Suite>, name: &str) -> Result<Bench> {
    let bench = Bench::new(suite, name).await?;
    bench.host.set("state/soft", "");
    bench
        .spec(json!({ "rebootPolicy": "AllowSoftReboot" }))
        .await?;
    Ok(bench)
}

/// The boot as the agent names it, after an update that ends well.
async fn updated(bench: &Bench, image: &str, times: u32) -> Result<String> {
    bench
        .agent(async {
            bench.says("Idle Healthy").await?;
            bench.want(image).await?;
            bench.says("Staged Healthy").await?;
            bench.approve().await?;
            bench.rebooted(times).await
        })
        .await?;
    let status = bench.agent(bench.says("Idle Healthy")).await?;
    ensure!(
        status.booted.is_some_and(|it| it.image == image),
        "{image} does not run"
    );
    let names: Vec<&str> = status.steps.iter().map(|step| step.name.as_str()).collect();
    let all = ["Staging", "Unlocking", "Stopping", "Booting", "Returning"];
    ensure!(names == all, "{names:?}");
    Ok(status.boot.unwrap_or_default())
}

/// The second one in a row shows the image before as the booted one until a unit ran anew.
async fn in_a_row(suite: Arc<Suite>) -> Result<()> {
    let bench = bench(suite, "soft-in-a-row").await?;
    ensure!(updated(&bench, B, 1).await? == "boot-0+1");
    ensure!(bench.did(UNLOCK) == 1, "{:#?}", bench.host.log());
    ensure!(updated(&bench, A, 2).await? == "boot-0+2");
    ensure!(bench.did(UNLOCK) == 2, "{:#?}", bench.host.log());
    ensure!(bench.did(RESTART) >= 2, "{:#?}", bench.host.log());
    ensure!(bench.did("bootc rollback") == 0);
    // By its own name: see `Systemd::reboot`.
    ensure!(bench.did("systemctl soft-reboot") == 2);
    // An admin's full one in between begins to count anew.
    bench.host.run(&["boot"]).await?;
    ensure!(updated(&bench, B, 4).await? == "boot-3+1");
    Ok(())
}

/// Where the pool does not allow it the reboot is a full one, also if somebody prepared a soft one.
async fn not_allowed(suite: Arc<Suite>) -> Result<()> {
    let bench = bench(suite, "soft-not-allowed").await?;
    bench.spec(json!({ "rebootPolicy": "RebootOnly" })).await?;
    bench
        .agent(async {
            bench.send_to_b().await?;
            bench.says("Rebooting Healthy").await?;
            std::fs::create_dir_all(bench.host.path("run/nextroot/usr"))?;
            bench.rebooted(1).await
        })
        .await?;
    let status = bench.agent(bench.says("Idle Healthy")).await?;
    ensure!(
        status.boot.as_deref() == Some("boot-1"),
        "{:?}",
        status.boot
    );
    ensure!(bench.did(UNLOCK) == 0 && bench.did("bootc upgrade --from-downloaded") == 1);
    Ok(())
}

/// bootc unlocks and then fails to prepare: the reboot is a full one, and nothing is degraded.
async fn not_possible(suite: Arc<Suite>) -> Result<()> {
    let bench = bench(suite, "soft-not-possible").await?;
    let words = "error: soft reboot not supported without composefs";
    bench.host.set("state/fail-prepare", words);
    let (boot, statuses) = Box::pin(bench.statuses(updated(&bench, B, 1))).await?;
    ensure!(boot == "boot-1", "{boot}");
    ensure!(bench.did(UNLOCK) == 1);
    let degraded = statuses.iter().any(|status| {
        let mut all = status.conditions.iter();
        all.any(|it| it.type_ == "Degraded" && it.status == "True")
    });
    ensure!(!degraded, "{statuses:#?}");
    Ok(())
}

/// The reboot is refused, and then the approval is taken back: nothing is locked before the
/// preparation is undone.
async fn undone(suite: Arc<Suite>) -> Result<()> {
    let bench = bench(suite, "soft-undone").await?;
    bench.host.set("state/refuse-reboot", "no");
    bench
        .agent(async {
            bench.send_to_b().await?;
            bench.says("Idle Error").await?;
            ensure!(bench.did(UNLOCK) == 1 && bench.did(UNDO) == 0);
            bench
                .spec(json!({ "desiredImageState": "Staged", "approvedBoot": null }))
                .await?;
            wait::until("it is locked again", || async {
                let staged = bench.status().await?.staged;
                ensure!(staged.is_some_and(|it| it.download_only), "it is not");
                Ok(())
            })
            .await
        })
        .await?;
    let log = bench.host.log();
    let last = |what: &str| log.iter().rposition(|line| line.starts_with(what));
    ensure!(
        last(UNDO).is_some() && last(UNDO) > last(UNLOCK),
        "{log:#?}"
    );
    ensure!(
        last("bootc upgrade --download-only") > last(UNDO),
        "{log:#?}"
    );
    ensure!(!bench.host.path("run/nextroot").exists());
    Ok(())
}

/// As long as the unit does not run anew, what bootc says is not taken for the truth.
async fn not_trusted(suite: Arc<Suite>) -> Result<()> {
    let bench = bench(suite, "soft-not-trusted").await?;
    updated(&bench, B, 1).await?;
    bench.host.set("state/fail-restart", "no luck");
    bench
        .agent(async {
            bench.says("Idle Error").await?;
            let message = bench.message("Degraded").await?;
            ensure!(message.contains("no luck"), "{message}");
            Ok(())
        })
        .await?;
    bench.host.remove("state/fail-restart");
    bench.agent(bench.says("Idle Healthy")).await?;
    Ok(())
}
