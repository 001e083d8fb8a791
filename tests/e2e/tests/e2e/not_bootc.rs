//! Installed where no host is a bootc host: said, and nothing is touched.

use std::time::Duration;

use anyhow::{Result, ensure};
use crd::names::{NAMESPACE_AGENT, condition, node_reason, pool_reason};
use crd::{BootcNodePool, DesiredImageState};
use e2e::view;
use e2e::wait::until;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt as _};
use libtest_mimic::Trial;

use crate::host_rig::{Rig, SOON};
use crate::trial;

/// A retry would show in this time: back-offs begin at a second or two.
const STILL: Duration = Duration::from_secs(40);

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "not_bootc::hosts_without_bootc_are_told_apart_and_left_alone",
        hosts_without_bootc_are_told_apart_and_left_alone,
    )]
}

async fn hosts_without_bootc_are_told_apart_and_left_alone() -> Result<()> {
    let rig = Rig::new(1).await?;
    let node = "node1";
    let update = rig.env.images.push_os("2").await?;
    rig.on(node, "mv /usr/bin/bootc /root/bootc").await?;

    rig.pool_of(node, &update.reference(), None).await?;
    let seen = rig
        .when(node, "is no bootc host", SOON, |seen| {
            seen.reason_of_degraded() == node_reason::NOT_BOOTC
        })
        .await?;
    let message = seen.message(condition::DEGRADED);
    ensure!(
        message.contains("take the node out of the pool"),
        "{message}"
    );
    let pools = Api::<BootcNodePool>::all(rig.env.client.clone());
    until("the pool names the node", SOON, async || {
        let status = pools.get(&format!("only-{node}")).await?.status;
        let status = status.unwrap_or_default();
        let degraded = view::condition(&status.conditions, condition::DEGRADED).cloned();
        Ok(match degraded {
            Some(it) if it.reason == pool_reason::NODE_DEGRADED && it.message.contains(node) => {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        })
    })
    .await?;

    // Whatever was going to be said is said; from here on there is silence.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = (rig.look(node).await?, said_by_agent(&rig).await?);
    tokio::time::sleep(STILL).await;
    let after = (rig.look(node).await?, said_by_agent(&rig).await?);
    ensure!(before.1 == after.1, "the agent tries again: {}", after.1);
    ensure!(
        before.0.bn.resource_version() == after.0.bn.resource_version(),
        "the BootcNode is written again and again: {:?}",
        after.0.bn
    );
    ensure!(!after.0.is_cordoned() && !after.0.holds_slot());
    ensure!(after.0.bn.spec.desired_image_state == DesiredImageState::Staged);
    rig.on(node, "! systemctl list-units --all | grep bootc-operator")
        .await?;
    rig.boots_were(node, &[]).await?;

    // It heals by itself once the host is what it should be.
    rig.on(node, "mv /root/bootc /usr/bin/bootc").await?;
    rig.kill_agent(node).await?;
    rig.updated(node, &update).await?;
    rig.boots_were(node, &["reboot"]).await
}

/// All that the agent has logged.
async fn said_by_agent(rig: &Rig) -> Result<String> {
    let pods = Api::<Pod>::namespaced(rig.env.client.clone(), NAMESPACE_AGENT);
    let mut said = String::new();
    for pod in pods.list(&ListParams::default()).await? {
        said += &pods.logs(&pod.name_any(), &LogParams::default()).await?;
    }
    Ok(said)
}
