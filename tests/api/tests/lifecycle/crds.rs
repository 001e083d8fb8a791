//! CRDs that are deleted while pools exist: that ends, nodes are let go, and the operator goes on
//! once they are back.

use std::sync::Arc;

use anyhow::{Result, ensure};
use api_tests::{
    Fleet, Suite,
    fleet::{A, B, Boot, View},
    suite::install_yaml,
    wait,
};
use crd::{BootcNode, names};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, CustomResourceExt as _, ResourceExt as _, api::ListParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::start;

const POOLS: &str = "bootcnodepools.node.bootc.dev";
const NODES: &str = "bootcnodes.node.bootc.dev";

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial(
            "crds::deleted_under_a_rollout_they_let_its_nodes_go",
            under_a_rollout,
        ),
        suite.trial(
            "crds::deleted_without_an_operator_they_wait_for_one",
            without_operator,
        ),
    ]
}

/// Both at once, as `kubectl delete -f install.yaml` does it, while a node is going down.
async fn under_a_rollout(suite: Arc<Suite>) -> Result<()> {
    start(&suite).await?;
    let fleet = in_slot(&suite, "crds-gone").await?;
    // kubectl waits until they are gone.
    suite
        .kubectl(&["delete", "crd", POOLS, NODES, "--timeout=60s"])
        .await?;
    let_go(&fleet).await?;

    install(&suite).await?;
    fleet.plan_all(|plan| plan.boot = Boot::Go);
    fleet.create_pool_of("crds-gone", B, json!({})).await?;
    fleet.until_updated(B).await?;
    fleet.rebooted(&[1, 1])?;
    fleet.finish().await?;
    suite.operator.stop().await
}

/// The finalizers of the pools hold the CRD until an operator has let the nodes go.
async fn without_operator(suite: Arc<Suite>) -> Result<()> {
    start(&suite).await?;
    let fleet = in_slot(&suite, "crds-held").await?;
    suite.operator.stop().await?;
    suite
        .kubectl(&["delete", "crd", POOLS, NODES, "--wait=false"])
        .await?;
    wait::until("only the pools are left", || async {
        match names_of_crds(&suite).await {
            Ok(left) if left == [POOLS] => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;

    // What installing once more does: the other kind is back.
    let nodes = serde_json::to_string(&BootcNode::crd())?;
    suite.kubectl_with(&["apply", "-f", "-"], &nodes).await?;
    let established = "--for=condition=Established";
    suite
        .kubectl(&["wait", established, "--timeout=60s", "crd", NODES])
        .await?;
    start(&suite).await?;
    wait::until("the CRD is gone", || async {
        match names_of_crds(&suite).await {
            Ok(left) if left == [NODES] => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    let_go(&fleet).await?;
    install(&suite).await?;
    fleet.finish().await?;
    suite.operator.stop().await
}

/// Two nodes, the first one cordoned, drained and approved.
async fn in_slot(suite: &Arc<Suite>, name: &str) -> Result<Fleet> {
    let fleet = Fleet::settled(suite, name, 2, json!({})).await?;
    fleet.until_updated(A).await?;
    fleet.plan_all(|plan| plan.boot = Boot::Hold);
    fleet.want_staged(B).await?;
    fleet.until_states(&["Rebooting", "Staged"]).await?;
    Ok(fleet)
}

/// Waits until no Node shows anything of ours. The kinds themselves may be gone.
async fn let_go(fleet: &Fleet) -> Result<()> {
    wait::until("the nodes are let go", || async {
        let view = fleet.nodes().await?;
        clean(&view)
    })
    .await
}

fn clean(view: &View) -> Result<()> {
    let labelled = view.labelled(names::LABEL_MANAGED);
    ensure!(labelled.is_empty(), "labelled: {labelled:?}");
    ensure!(view.cordoned().is_empty(), "{view}");
    let noted = view.nodes.values().filter(|node| {
        node.annotations()
            .contains_key(names::ANNOTATION_CORDONED_BY)
    });
    ensure!(noted.count() == 0, "a note of our cordon is there");
    Ok(())
}

async fn names_of_crds(suite: &Suite) -> Result<Vec<String>> {
    let crds = Api::<CustomResourceDefinition>::all(suite.admin.clone());
    let all = crds.list(&ListParams::default()).await?;
    Ok(all.iter().map(kube::ResourceExt::name_any).collect())
}

/// Applies the manifests again, and waits until the kinds are served.
async fn install(suite: &Suite) -> Result<()> {
    let crds = install_yaml().with_file_name("crd").join("crds.yaml");
    suite
        .kubectl(&["apply", "-f", &crds.to_string_lossy()])
        .await?;
    let established = "--for=condition=Established";
    suite
        .kubectl(&["wait", established, "--timeout=60s", "crd", POOLS, NODES])
        .await?;
    Ok(())
}
