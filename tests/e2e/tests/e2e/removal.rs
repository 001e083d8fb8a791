//! What is left of a cluster when the operator is taken away in the documented order: the cluster
//! as it was.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use crd::names::{NAMESPACE_AGENT, NAMESPACE_OPERATOR, node_reason};
use e2e::wait::until;
use e2e::{Config, Env};
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::host_rig::{Rig, SOON};
use crate::trial;

/// How long namespaces may take to go.
const GONE: Duration = Duration::from_secs(60);
/// Files and units of ours on a host, apart from what container runtimes keep of any pod.
const LEFT_ON_HOST: &str = "systemctl list-units --all --plain --no-legend 'bootc-operator*'; \
    find /etc /run /var/lib -xdev '(' -path '/var/lib/container*' -o -path /var/lib/kubelet ')' -prune \
    -o '(' -name '*bootc-operator*' -o -path /run/ostree/auth.json ')' -print";
/// The time of the last reboot, which must outlast it: the documentation says that it stays.
const KNOWN_TO_STAY: &str = "/var/lib/bootc-operator";

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "removal::in_the_documented_order_it_leaves_the_cluster_as_it_was",
        in_the_documented_order_it_leaves_the_cluster_as_it_was,
    )]
}

async fn in_the_documented_order_it_leaves_the_cluster_as_it_was() -> Result<()> {
    let env = Env::new(Config {
        nodes: 2,
        install: false,
        ..Config::default()
    })
    .await?;
    // An admin's own cordon is to survive it all.
    env.kubectl(&["cordon", "node2"], &[]).await?;
    let before = nodes(&env).await?;
    let kinds = kinds(&env).await?;
    env.install(&env.images).await?;

    let rig = Rig::of(env);
    rig.pool("node1").await?;
    let booted = rig.env.booted("node2").await?;
    rig.pool_of("node2", &booted.reference(), None).await?;
    rig.when("node2", "is idle", SOON, |seen| seen.is(node_reason::IDLE))
        .await?;
    let update = rig.env.images.push_os("2").await?;
    rig.set("node1", &update).await?;
    rig.updated("node1", &update).await?;
    rig.kill_agent("node1").await?;
    let during = nodes(&rig.env).await?;
    ensure!(
        during != before,
        "the operator has left no mark on any Node"
    );

    let gone = ["delete", "bootcnodepools", "--all", "--timeout=60s"];
    rig.env.kubectl(&gone, &[]).await?;
    ensure!(
        nodes(&rig.env).await? == before,
        "a Node without a pool is {:#?}, and was {before:#?}",
        nodes(&rig.env).await?
    );
    rig.env.uninstall().await?;

    let env = &rig.env;
    until("the namespaces are gone", GONE, async || {
        let all = env
            .kubectl(&["get", "namespaces", "-o", "name"], &[])
            .await?;
        let ours = [NAMESPACE_OPERATOR, NAMESPACE_AGENT];
        let left = all.lines().filter(|line| {
            ours.iter()
                .any(|name| line.strip_prefix("namespace/") == Some(*name))
        });
        let left: Vec<&str> = left.collect();
        Ok(if left.is_empty() {
            Ok(())
        } else {
            Err(left.join(", "))
        })
    })
    .await?;
    ensure!(nodes(env).await? == before, "the Nodes have changed");
    let left = self::kinds(env).await?;
    ensure!(
        left == kinds,
        "there is left {left:#?}, and there was {kinds:#?}"
    );
    for node in &env.nodes {
        let left = rig.on(node, LEFT_ON_HOST).await?;
        let left = left.lines().filter(|line| *line != KNOWN_TO_STAY);
        let left: Vec<&str> = left.collect();
        ensure!(left.is_empty(), "on {node} there is left {left:?}");
    }
    ensure!(
        env.booted("node1").await? == update,
        "node1 does not run its image any more"
    );
    Ok(())
}

/// What is said of a node by its condition comes and goes by Kubernetes' own clock.
const OF_CONDITIONS: [&str; 2] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
];

/// What an admin says about Nodes: labels, annotations and specs.
async fn nodes(env: &Env) -> Result<BTreeMap<String, Value>> {
    let all = Api::<Node>::all(env.client.clone())
        .list(&ListParams::default())
        .await?;
    Ok(all
        .iter()
        .map(|node| {
            let mut spec = node.spec.clone().unwrap_or_default();
            let mut taints = spec.taints.take().unwrap_or_default();
            taints.retain(|taint| !OF_CONDITIONS.contains(&taint.key.as_str()));
            spec.taints = Some(taints);
            let said = json!({
                "labels": node.labels(), "annotations": node.annotations(), "spec": spec,
            });
            (node.name_any(), said)
        })
        .collect())
}

/// The cluster-wide objects of the kinds that `install.yaml` brings.
async fn kinds(env: &Env) -> Result<String> {
    let kinds = "customresourcedefinitions,clusterroles,clusterrolebindings,\
        validatingadmissionpolicies,validatingadmissionpolicybindings";
    env.kubectl(&["get", kinds, "-o", "name"], &[]).await
}
