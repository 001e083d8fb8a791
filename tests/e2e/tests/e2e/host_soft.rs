//! Soft reboots: the userspace comes back on the new image, the kernel stays.

use anyhow::{Context as _, Result, ensure};
use e2e::images::Image;
use libtest_mimic::Trial;
use serde_json::json;

use crate::host_rig::{Rig, Seen};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "host_soft::a_pool_that_allows_it_is_rebooted_softly_while_the_kernel_is_the_same",
        a_pool_that_allows_it_is_rebooted_softly_while_the_kernel_is_the_same,
    )]
}

async fn a_pool_that_allows_it_is_rebooted_softly_while_the_kernel_is_the_same() -> Result<()> {
    let rig = Rig::new(1).await?;
    let node = "node1";
    rig.pool(node).await?;
    let policy = json!({ "spec": { "disruption": { "rebootPolicy": "AllowSoftReboot" } } });
    rig.patch(node, policy).await?;
    let kernel = boot_id(&rig.look(node).await?)?;

    let image = rig.env.images.push_os("2").await?;
    let boot = boot_after(&rig, node, &image).await.context("the first")?;
    ensure!(
        boot == format!("{kernel}+1"),
        "the first soft reboot led to {boot}"
    );
    rig.boots_were(node, &[]).await?;

    // After a second one in a row bootc may name the wrong image, as if the host had fallen back.
    let image = rig.env.images.push_os("3").await?;
    let boot = boot_after(&rig, node, &image).await.context("the second")?;
    ensure!(
        boot == format!("{kernel}+2"),
        "the second soft reboot led to {boot}"
    );
    rig.boots_were(node, &[]).await?;
    ensure!(
        boot_id(&rig.look(node).await?)? == kernel,
        "the kubelet says that the kernel of {node} was booted"
    );

    let image = rig.env.images.push_os_with_kernel("4", "2").await?;
    let boot = boot_after(&rig, node, &image)
        .await
        .context("another kernel")?;
    ensure!(
        !boot.starts_with(&kernel),
        "{node} has its old kernel in {boot}"
    );
    rig.boots_were(node, &["reboot"]).await
}

/// Updates a host; answers the boot that its agent then reports.
async fn boot_after(rig: &Rig, node: &str, image: &Image) -> Result<String> {
    rig.set(node, image).await?;
    let seen = rig.updated(node, image).await?;
    // A soft reboot keeps `/run`: what asked for it there must not ask again.
    rig.on(node, "test ! -e /run/reboot-required").await?;
    let release = rig.on(node, ". /etc/os-release; echo $VERSION_ID").await?;
    let status = seen.bn.status.unwrap_or_default();
    let version = status.booted.and_then(|booted| booted.version);
    ensure!(
        version.as_ref() == Some(&release),
        "{node} has the files of version {release} and reports {version:?}"
    );
    status.boot.context("the agent reports no boot")
}

/// The boot as the kubelet reports it.
fn boot_id(seen: &Seen) -> Result<String> {
    let status = seen.node.status.as_ref();
    let info = status.and_then(|status| status.node_info.as_ref());
    Ok(info.context("the kubelet reports nothing")?.boot_id.clone())
}
