//! Which pods a drain leaves alone: by kind, and by being another pod.

use std::sync::Arc;

use anyhow::{Result, ensure};
use api_tests::{Suite, kubelet, wait};
use kube::ResourceExt;
use libtest_mimic::Trial;
use serde_json::json;

use super::scene::{Scene, budget};

pub(super) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial("drain::kept::daemon_set_mirror_and_finished_pods", by_kind),
        suite.trial("drain::kept::a_pod_of_the_same_name_elsewhere", elsewhere),
        suite.trial(
            "drain::kept::not_a_pod_of_the_same_name_here",
            same_name_here,
        ),
    ]
}

async fn by_kind(suite: Arc<Suite>) -> Result<()> {
    let mut scene = Scene::new(&suite, "drain-kinds").await?;
    scene
        .apply(json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": "agent" },
            "spec": {
                "selector": { "matchLabels": { "app": "agent" } },
                "template": {
                    "metadata": { "labels": { "app": "agent" } },
                    "spec": {
                        "nodeSelector": { "test/node": "drain-kinds" },
                        "containers": [{ "name": "main", "image": "none" }],
                    },
                },
            },
        }))
        .await?;
    wait::until("the DaemonSet's pod runs", || async {
        let running = scene.pods().await?.iter().any(|pod| {
            pod.status
                .as_ref()
                .and_then(|status| status.phase.as_deref())
                == Some("Running")
        });
        if running {
            Ok(())
        } else {
            anyhow::bail!("no running pod")
        }
    })
    .await?;
    scene
        .pod(
            "static",
            json!({ "metadata": { "annotations": { "kubernetes.io/config.mirror": "x" } } }),
        )
        .await?;
    for phase in ["Succeeded", "Failed"] {
        let name = phase.to_lowercase();
        scene
            .pod(
                &name,
                json!({ "metadata": { "annotations": { kubelet::PHASE: phase } } }),
            )
            .await?;
    }
    scene.pod("web", json!({})).await?;
    scene.drain();
    ensure!(scene.done().await?.is_empty());
    let mut left: Vec<_> = scene
        .pods()
        .await?
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    left.sort();
    ensure!(
        left.len() == 4 && left[1..] == ["failed", "static", "succeeded"],
        "{left:?}"
    );
    ensure!(left[0].starts_with("agent-"), "{left:?}");
    let evictions = scene.requests.with(&["/eviction"]);
    ensure!(
        evictions.len() == 1 && evictions[0].contains("/pods/web/"),
        "{evictions:?}"
    );
    Ok(())
}

async fn elsewhere(suite: Arc<Suite>) -> Result<()> {
    let mut scene = Scene::new(&suite, "drain-here").await?;
    let other = scene.beside("drain-there").await?;
    scene.pod("db-0", json!({})).await?;
    budget(&scene, "web", 1).await?;
    scene.drain();
    scene
        .waits_for("waiting for pod drain-here/db-0: PodDisruptionBudget")
        .await?;
    scene.kill("db-0").await?;
    other.pod("db-0", json!({})).await?;
    scene.kubectl(&["delete", "pdb", "web"]).await?;
    scene.done().await?;
    let pods = other.pods().await?;
    ensure!(
        pods.len() == 1 && pods[0].metadata.deletion_timestamp.is_none(),
        "{pods:?}"
    );
    Ok(())
}

async fn same_name_here(suite: Arc<Suite>) -> Result<()> {
    let mut scene = Scene::new(&suite, "drain-again").await?;
    for name in ["db-0", "slow"] {
        let holds = json!({ "metadata": { "annotations": { kubelet::HOLDS: "" } } });
        scene.pod(name, holds).await?;
    }
    scene.drain();
    scene
        .waits_for("waiting for pod drain-again/db-0: stopping")
        .await?;
    scene.kill("db-0").await?;
    // At once, as a controller that does not ask the scheduler would; `slow` keeps the drain going.
    scene.pod_unseen("db-0", json!({})).await?;
    scene.gone("db-0").await?;
    scene.kill("slow").await?;
    scene.done().await?;
    let evictions = scene.requests.with(&["/db-0/eviction"]);
    ensure!(evictions.len() == 2, "each of the two once: {evictions:?}");
    Ok(())
}
