//! Pulls that fail, stop half-way, or lose their agent.

use anyhow::{Context as _, Result, ensure};
use crd::names::node_reason::{ERROR, STAGING};
use e2e::images::Image;
use libtest_mimic::Trial;
use serde_json::json;

use crate::host_rig::{Rig, SOON};
use crate::trial;

/// The agent's unit.
const UNIT: &str = "bootc-operator-stage.service";

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "host_pull::a_pull_that_fails_or_is_interrupted_ends_in_the_update",
        a_pull_that_fails_or_is_interrupted_ends_in_the_update,
    )]
}

async fn a_pull_that_fails_or_is_interrupted_ends_in_the_update() -> Result<()> {
    let rig = Rig::new(3).await?;
    for node in &rig.env.nodes {
        rig.pool(node).await?;
    }
    tokio::try_join!(
        async { missing_image(&rig, "node1").await.context("missing image") },
        async { full_disk(&rig, "node2").await.context("full disk") },
        async { killed_agent(&rig, "node3").await.context("killed agent") },
    )?;
    power_cut(&rig, "node3").await.context("power cut")
}

/// An image that the registry does not have: said in bootc's own words, and
/// cured by one that it has.
async fn missing_image(rig: &Rig, node: &str) -> Result<()> {
    let here = rig.env.images.push_os("2").await?;
    let missing = Image {
        digest: format!("sha256:{}", "0".repeat(64)),
        ..here.clone()
    };
    rig.set(node, &missing).await?;
    let seen = rig.degraded(node, ERROR, "manifest unknown").await?;
    ensure!(
        !seen.is_cordoned(),
        "{node} is cordoned for an image that is not there"
    );
    rig.boots_were(node, &[]).await?;
    rig.set(node, &here).await?;
    rig.updated(node, &here).await?;
    rig.boots_were(node, &["reboot"]).await
}

/// A full disk, seen by bootc in the middle of a pull: the same, and cured by
/// room.
async fn full_disk(rig: &Rig, node: &str) -> Result<()> {
    rig.on(node, FULL_DISK).await?;
    let image = rig.env.images.push_os("3").await?;
    rig.set(node, &image).await?;
    let seen = rig.degraded(node, ERROR, "No space left on device").await?;
    ensure!(
        !seen.is_cordoned(),
        "{node} is cordoned for an image that it has no room for"
    );
    rig.boots_were(node, &[]).await?;
    rig.on(node, "umount /sysroot/ostree/repo /run/small")
        .await?;
    rig.updated(node, &image).await?;
    rig.boots_were(node, &["reboot"]).await
}

/// Puts the store of images on a disk of its own without a block to spare.
const FULL_DISK: &str = "repo=/sysroot/ostree/repo; mkdir /run/small && \
    mount -t tmpfs -o size=$(($(du -sk $repo | cut -f1) + 256))k tmpfs /run/small && \
    cp -a $repo/. /run/small/ && mount --bind /run/small $repo && \
    ! cat /dev/zero > $repo/all-that-was-left";

/// The agent dies while it pulls: the pull does not, and the next agent takes
/// it over.
async fn killed_agent(rig: &Rig, node: &str) -> Result<()> {
    let image = slow_pull(rig, node, "4").await?;
    let before = invocation(rig, node).await?;
    rig.kill_agent(node).await?;
    let after = invocation(rig, node).await?;
    ensure!(
        before == after,
        "the pull {before} was not left alone: now it is {after}"
    );
    rig.updated(node, &image).await?;
    let pulls = rig
        .on(
            node,
            &format!(
                "journalctl --quiet --no-pager -o cat -b -1 -u {UNIT} | grep -c 'layers needed'"
            ),
        )
        .await?;
    ensure!(pulls == "1", "{node} pulled {pulls} times");
    rig.boots_were(node, &["reboot"]).await
}

/// The power goes while the host pulls: it is pulled again after the boot.
async fn power_cut(rig: &Rig, node: &str) -> Result<()> {
    let image = slow_pull(rig, node, "5").await?;
    rig.env.bink.bed(["power", "cut", node]).await?;
    rig.updated(node, &image).await?;
    rig.boots_were(node, &["reboot", "power-cut", "reboot"])
        .await
}

/// Sends a host to an image that it needs about 40 seconds to pull, and waits
/// until it does.
async fn slow_pull(rig: &Rig, node: &str, version: &str) -> Result<Image> {
    rig.faults(node, json!({ "pull": { "bytesPerSecond": 100 } }))
        .await?;
    let image = rig.env.images.push_os(version).await?;
    rig.set(node, &image).await?;
    rig.when(node, "pulls", SOON, |seen| seen.is(STAGING))
        .await?;
    Ok(image)
}

/// Which run of the unit that pulls there is; it must be one that pulls.
async fn invocation(rig: &Rig, node: &str) -> Result<String> {
    let said = rig
        .on(
            node,
            &format!("systemctl show --value --property=SubState,InvocationID {UNIT}"),
        )
        .await?;
    ensure!(
        said.lines().any(|line| line == "running"),
        "nothing is being pulled on {node}: {said}"
    );
    Ok(said)
}
