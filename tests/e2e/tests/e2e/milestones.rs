//! A pool's way from nothing to an updated node, step by step, as an admin would watch it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crd::names::{LABEL_MANAGED, NAMESPACE_AGENT, condition, node_reason};
use crd::{BootcNode, BootcNodePool, DesiredImageState};
use e2e::wait::until;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use libtest_mimic::Trial;
use serde_json::json;

use crate::host_rig::{Rig, SOON, UPDATE};
use crate::trial;

const NODE: &str = "node1";
const POOL: &str = "only-node1";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "milestones::a_node_joins_reports_stages_and_reboots",
            a_node_joins_reports_stages_and_reboots,
        ),
        trial(
            "milestones::a_tag_that_moves_is_told_and_rolled_out",
            a_tag_that_moves_is_told_and_rolled_out,
        ),
    ]
}

async fn a_node_joins_reports_stages_and_reboots() -> Result<()> {
    let rig = Rig::new(1).await?;
    let first = rig.env.booted(NODE).await?;
    rig.pool_of(NODE, &first.reference(), None).await?;
    joined(&rig).await?;
    agent_runs(&rig).await?;

    // Its status is what bootc says.
    let seen = rig.updated(NODE, &first).await?;
    let booted = seen.bn.status.and_then(|status| status.booted);
    let booted = booted.context("no booted image is reported")?;
    ensure!(booted.image_digest == first.digest, "{booted:?}");
    ensure!(booted.image.starts_with(&first.name), "{booted:?}");

    // Held back by a pause, it stages and goes no further.
    let update = rig.env.images.push_os("2").await?;
    let hold = json!({ "spec": { "rollout": { "paused": true }, "image": { "ref": update.reference() } } });
    rig.patch(NODE, hold).await?;
    let seen = rig
        .when(NODE, "has staged the update", UPDATE, |seen| {
            seen.is(node_reason::STAGED) && seen.staged() == Some(&update.digest)
        })
        .await?;
    ensure!(seen.bn.spec.desired_image == Some(update.reference()));
    ensure!(seen.bn.spec.desired_image_state == DesiredImageState::Staged);
    ensure!(!seen.is_cordoned(), "a paused pool cordons");
    ensure!(rig.env.booted(NODE).await? == first);

    let boots = rig.env.boots(NODE).await?;
    rig.patch(NODE, json!({ "spec": { "rollout": { "paused": false } } }))
        .await?;
    let seen = rig
        .when(NODE, "is told to boot and reboots", UPDATE, |seen| {
            seen.is(node_reason::REBOOTING)
        })
        .await?;
    ensure!(seen.bn.spec.desired_image_state == DesiredImageState::Booted);
    ensure!(seen.is_cordoned(), "it reboots without a cordon");
    rig.updated(NODE, &update).await?;
    ensure!(rig.env.booted(NODE).await? == update);
    ensure!(rig.env.boots(NODE).await? == boots + 1);
    Ok(())
}

/// The node has a `BootcNode` of the pool, and the agent's label.
async fn joined(rig: &Rig) -> Result<()> {
    let client = &rig.env.client;
    let pools = Api::<BootcNodePool>::all(client.clone());
    until("the node has joined the pool", SOON, async || {
        let pool = pools.get(POOL).await?;
        let Some(bn) = Api::<BootcNode>::all(client.clone()).get_opt(NODE).await? else {
            return Ok(Err("no BootcNode".to_owned()));
        };
        let owners = bn.owner_references();
        let owned = owners
            .iter()
            .any(|owner| Some(&owner.uid) == pool.uid().as_ref());
        let node = Api::<Node>::all(client.clone()).get(NODE).await?;
        let labelled = node.labels().contains_key(LABEL_MANAGED);
        Ok(if owned && labelled {
            Ok(())
        } else {
            Err(format!("owned: {owned}, labelled: {labelled}"))
        })
    })
    .await
}

/// There is one agent, on the node, and it runs.
async fn agent_runs(rig: &Rig) -> Result<()> {
    let pods = Api::<Pod>::namespaced(rig.env.client.clone(), NAMESPACE_AGENT);
    until("the node's agent runs", SOON, async || {
        let pods = pods.list(&ListParams::default()).await?.items;
        let on = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
        let all: Vec<_> = pods.iter().map(|pod| (on(pod), phase(pod))).collect();
        let wanted = [(Some(NODE.to_owned()), Some("Running".to_owned()))];
        Ok(if all == wanted {
            Ok(())
        } else {
            Err(format!("{all:?}"))
        })
    })
    .await
}

async fn a_tag_that_moves_is_told_and_rolled_out() -> Result<()> {
    let rig = Rig::new(1).await?;
    // Other tests use the same registry at the same time.
    let tag = format!("stable-{}", rig.env.bink.cluster());
    let first = rig.env.images.move_tag(&tag, "2").await?;
    let reference = format!("{}:{tag}", first.name);
    rig.pool_of(NODE, &reference, None).await?;
    rig.updated(NODE, &first).await?;
    pool_is(&rig, &first.digest, &first.digest).await?;

    rig.patch(NODE, json!({ "spec": { "rollout": { "paused": true } } }))
        .await?;
    let second = rig.env.images.move_tag(&tag, "3").await?;
    ensure!(second.digest != first.digest);
    // Known, and not rolled out yet: that an update is there can be seen.
    pool_is(&rig, &second.digest, &first.digest).await?;
    rig.patch(NODE, json!({ "spec": { "rollout": { "paused": false } } }))
        .await?;
    rig.updated(NODE, &second).await?;
    pool_is(&rig, &second.digest, &second.digest).await?;
    ensure!(rig.env.booted(NODE).await?.digest == second.digest);
    Ok(())
}

/// Waits until the pool's status has these digests, and says whether they differ.
async fn pool_is(rig: &Rig, target: &str, deployed: &str) -> Result<()> {
    let pools = Api::<BootcNodePool>::all(rig.env.client.clone());
    let what = format!("the pool's target is {target}");
    until(&what, Duration::from_secs(60), async || {
        let status = pools.get(POOL).await?.status.unwrap_or_default();
        let digests = (
            status.target_digest.as_deref(),
            status.deployed_digest.as_deref(),
        );
        let told = status.update_available == (target != deployed);
        let degraded = e2e::view::condition(&status.conditions, condition::DEGRADED);
        Ok(if digests == (Some(target), Some(deployed)) && told {
            Ok(())
        } else {
            Err(format!(
                "{digests:?}, {}, {degraded:?}",
                status.update_available
            ))
        })
    })
    .await
}
