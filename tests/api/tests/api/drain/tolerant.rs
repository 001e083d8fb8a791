//! Pods that tolerate the cordon: they may come back, and a drain must end all the same.

use std::sync::Arc;

use anyhow::{Result, ensure};
use api_tests::{Suite, kubelet::HOLDS, wait};
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::ResourceExt as _;
use libtest_mimic::Trial;
use operator::drain::{Note, PodName, Report, Settings};
use serde_json::{Value, json};

use super::scene::{Scene, next_second};

pub(super) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial(
            "drain::tolerant::a_pod_that_comes_back_is_evicted_once_and_stays",
            comes_back,
        ),
        suite.trial(
            "drain::tolerant::the_operators_own_pod_goes_last",
            own_pod_last,
        ),
        suite.trial(
            "drain::tolerant::the_operators_own_pod_stays_once_it_came_back",
            own_pod_back,
        ),
    ]
}

fn tolerations() -> Value {
    json!([{ "key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule" }])
}

async fn comes_back(suite: Arc<Suite>) -> Result<()> {
    let mut scene = Scene::new(&suite, "drain-back").await?;
    scene
        .apply(json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": { "name": "sticky" },
            "spec": {
                "replicas": 1,
                "selector": { "matchLabels": { "app": "sticky" } },
                "template": {
                    "metadata": {
                        "labels": { "app": "sticky" },
                        "annotations": { HOLDS: "until another one runs" },
                    },
                    "spec": {
                        "nodeSelector": { "test/node": "drain-back" },
                        "tolerations": tolerations(),
                        "containers": [{ "name": "main", "image": "none" }],
                    },
                },
            },
        }))
        .await?;
    wait::until("the ReplicaSet's pod is there", || async {
        let pods = scene.pods().await?;
        ensure!(pods.len() == 1, "{} pods", pods.len());
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    next_second().await;
    scene.cordoned = Timestamp::now();
    scene.drain();
    for gone in two_go_and_a_third_is_there(&scene).await? {
        scene.kill(&gone.name_any()).await?;
    }
    let stayed = scene.done().await?;
    let evictions = scene.requests.with(&["/eviction"]);
    ensure!(
        evictions.len() == 2,
        "the first, and its replacement once: {evictions:?}"
    );
    ensure!(stayed.len() == 1, "{stayed:?}");
    let left = scene.pods().await?;
    ensure!(
        left.len() == 1 && left[0].name_any() == *stayed[0].name,
        "{left:?}"
    );
    ensure!(left[0].metadata.deletion_timestamp.is_none());
    Ok(())
}

/// Waits until a pod and its replacement were evicted, and another one is on the node: the first two.
async fn two_go_and_a_third_is_there(scene: &Scene) -> Result<Vec<Pod>> {
    wait::until("two pods are evicted and a third is there", || async {
        let (going, alive): (Vec<_>, Vec<_>) = scene
            .pods()
            .await?
            .into_iter()
            .partition(|pod| pod.metadata.deletion_timestamp.is_some());
        ensure!(going.len() == 2 && alive.len() == 1, "{going:?} {alive:?}");
        Ok(going)
    })
    .await
}

async fn own_pod_last(suite: Arc<Suite>) -> Result<()> {
    let own = PodName::new("drain-own", "an-operator");
    let settings = Settings {
        own: Some(own),
        may_evict: Arc::new(|| true),
    };
    let mut scene = Scene::with(&suite, "drain-own", settings).await?;
    for name in ["an-operator", "web-1", "web-2"] {
        scene
            .pod(name, json!({ "spec": { "tolerations": tolerations() } }))
            .await?;
    }
    next_second().await;
    scene.cordoned = Timestamp::now();
    scene.drain();
    scene.done().await?;
    let evictions = scene.requests.with(&["/eviction"]);
    ensure!(
        evictions.len() == 3 && evictions[2].contains("/an-operator/"),
        "{evictions:?}"
    );
    Ok(())
}

/// A cluster of one schedulable node: the pod that drains came to the node after its cordon.
async fn own_pod_back(suite: Arc<Suite>) -> Result<()> {
    let own = PodName::new("drain-own-back", "operator");
    let settings = Settings {
        own: Some(own.clone()),
        may_evict: Arc::new(|| true),
    };
    let mut scene = Scene::with(&suite, "drain-own-back", settings).await?;
    scene
        .pod(
            "operator",
            json!({ "spec": { "tolerations": tolerations() } }),
        )
        .await?;
    scene
        .pod("other", json!({ "spec": { "tolerations": tolerations() } }))
        .await?;
    scene.drain();
    let report = scene.next().await?;
    let Report::Evicting(named) = report else {
        anyhow::bail!("{report:?}")
    };
    ensure!(
        named.len() == 1 && named[0].notes.contains(&Note::CameBack),
        "{named:?}"
    );
    ensure!(scene.done().await? == [own]);
    ensure!(scene.pods().await?.len() == 1);
    Ok(())
}
