//! Another version of operator and agent, applied while nodes are in their update.

use std::time::Duration;

use anyhow::{Result, ensure};
use crd::names::NAMESPACE_AGENT;
use e2e::images::{Image, Images};
use e2e::view::View;
use e2e::wait::until;
use e2e::{Config, Env};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use libtest_mimic::Trial;

use crate::trial;

/// How long the rollout may take, with all that is restarted on its way.
const ROLLOUT: Duration = Duration::from_secs(300);
/// How long until a rollout is under way.
const BEGUN: Duration = Duration::from_secs(120);

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "upgrade::a_newer_install_in_mid_rollout_costs_no_reboot",
        a_newer_install_in_mid_rollout_costs_no_reboot,
    )]
}

async fn a_newer_install_in_mid_rollout_costs_no_reboot() -> Result<()> {
    let env = Env::new(Config {
        nodes: 2,
        ..Config::default()
    })
    .await?;
    let first = env.booted("node1").await?;
    env.pool("hosts", &first).await?;
    runs(&env, &first).await?;
    let mut before = Vec::new();
    for node in &env.nodes {
        before.push(env.boots(node).await?);
    }

    let update = env.images.push_os("2").await?;
    let newer = env.images.newer().await?;
    let pool = kube::Api::<crd::BootcNodePool>::all(env.client.clone())
        .get("hosts")
        .await?;
    env.set_image(&pool, &update).await?;
    until("a node is in its slot", BEGUN, async || {
        let view = View::of(&env.client, "hosts").await?;
        let states: Vec<String> = view.nodes.into_iter().map(|node| node.state).collect();
        let in_slot = |state: &String| ["Draining", "Rebooting"].contains(&state.as_str());
        Ok(if states.iter().any(in_slot) {
            Ok(())
        } else {
            Err(states.join(", "))
        })
    })
    .await?;
    env.install(&newer).await?;
    runs(&env, &update).await?;

    for (node, before) in env.nodes.iter().zip(before) {
        let after = env.boots(node).await?;
        ensure!(
            after == before + 1,
            "{node} booted {} times during one update",
            after - before
        );
    }
    agents_are(&env, &newer).await
}

/// Waits until all nodes run this image and nothing is left of the update.
async fn runs(env: &Env, image: &Image) -> Result<()> {
    until(
        &format!("all nodes run {}", image.digest),
        ROLLOUT,
        async || {
            let view = View::of(&env.client, "hosts").await?;
            let all = view.all_on(&image.digest) && view.nodes.len() == env.nodes.len();
            Ok(if all {
                Ok(())
            } else {
                Err(format!("{} {:?}", view.up_to_date, view.nodes))
            })
        },
    )
    .await
}

/// Waits until every node has an agent of this version, and no other.
async fn agents_are(env: &Env, images: &Images) -> Result<()> {
    let pods = Api::<Pod>::namespaced(env.client.clone(), NAMESPACE_AGENT);
    until(
        "all agents are of the newer version",
        Duration::from_secs(120),
        async || {
            let pods = pods.list(&ListParams::default()).await?.items;
            let images_of: Vec<_> = pods
                .iter()
                .filter_map(|pod| Some(pod.spec.as_ref()?.containers.first()?.image.clone()))
                .collect();
            let wanted = Some(images.agent.reference());
            let all =
                images_of.len() == env.nodes.len() && images_of.iter().all(|it| *it == wanted);
            Ok(if all {
                Ok(())
            } else {
                Err(format!("{images_of:?}"))
            })
        },
    )
    .await
}
