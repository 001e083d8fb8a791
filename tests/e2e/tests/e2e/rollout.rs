//! The main job: another digest on the pool, every node updated.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use crd::BootcNodePool;
use crd::names::{NAMESPACE_AGENT, NAMESPACE_OPERATOR};
use e2e::images::Image;
use e2e::view::View;
use e2e::wait::until;
use e2e::{Config, Env};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt as _};
use libtest_mimic::Trial;

use crate::trial;

/// How long a rollout over three hosts may take.
const ROLLOUT: Duration = Duration::from_secs(400);

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "rollout::every_host_reboots_once_though_operator_and_agent_are_killed",
        every_host_reboots_once_though_operator_and_agent_are_killed,
    )]
}

async fn every_host_reboots_once_though_operator_and_agent_are_killed() -> Result<()> {
    let env = Env::new(Config {
        nodes: 3,
        ..Config::default()
    })
    .await?;
    let pool = env.pool("hosts", &env.booted("node1").await?).await?;
    on(&env, &pool, &env.booted("node1").await?).await?;
    let before = boots(&env).await?;

    let image = env.images.push_os("2").await?;
    env.set_image(&pool, &image).await?;
    let view = reached(&env, &pool, "Staging").await?;
    kill(&env, NAMESPACE_AGENT, Some(&view.nodes[2].name)).await?;
    reached(&env, &pool, "Draining").await?;
    kill(&env, NAMESPACE_OPERATOR, None).await?;
    on(&env, &pool, &image).await?;

    let after = boots(&env).await?;
    for (node, boots) in &before {
        ensure!(
            after[node] == boots + 1,
            "{node} booted {} times during one update",
            after[node] - boots
        );
        ensure!(
            env.booted(node).await? == image,
            "{node} does not run the new image"
        );
        let release = env
            .bink
            .ssh(node, ". /etc/os-release; echo $VERSION_ID")
            .await?;
        ensure!(
            release.stdout == "2",
            "{node} has the files of version {}",
            release.stdout
        );
    }
    Ok(())
}

/// Waits until all nodes run this image.
async fn on(env: &Env, pool: &BootcNodePool, image: &Image) -> Result<()> {
    until(
        &format!("all nodes run {}", image.digest),
        ROLLOUT,
        async || {
            let view = View::of(&env.client, &pool.name_any()).await?;
            let all = view.all_on(&image.digest) && view.nodes.len() == env.nodes.len();
            Ok(if all {
                Ok(())
            } else {
                Err(format!("{} {:?}", view.up_to_date, view.degraded))
            })
        },
    )
    .await
}

/// Waits until one node is in this state.
async fn reached(env: &Env, pool: &BootcNodePool, state: &str) -> Result<View> {
    until(
        &format!("a node is {state}"),
        Duration::from_secs(120),
        async || {
            let view = View::of(&env.client, &pool.name_any()).await?;
            let states: Vec<String> = view.nodes.iter().map(|node| node.state.clone()).collect();
            Ok(if states.iter().any(|s| s == state) {
                Ok(view)
            } else {
                Err(states.join(", "))
            })
        },
    )
    .await
}

/// Kills pods of ours without grace: all, or those on one node.
async fn kill(env: &Env, namespace: &str, node: Option<&str>) -> Result<()> {
    let pods = Api::<Pod>::namespaced(env.client.clone(), namespace);
    let mut killed = 0;
    for pod in pods.list(&ListParams::default()).await? {
        let on = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        if node.is_none() || on == node {
            pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0))
                .await?;
            killed += 1;
        }
    }
    ensure!(killed > 0, "no pod to kill in {namespace}");
    Ok(())
}

/// How often each host has booted, by its own count.
async fn boots(env: &Env) -> Result<BTreeMap<String, usize>> {
    let mut all = BTreeMap::new();
    for node in &env.nodes {
        all.insert(node.clone(), env.boots(node).await?);
    }
    Ok(all)
}
