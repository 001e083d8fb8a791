//! The drain engine against the real eviction API, whose refusals no imitation gets right.

mod blocked;
mod kept;
mod scene;
mod tolerant;

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use api_tests::{Suite, kubelet};
use libtest_mimic::Trial;
use operator::drain::{Note, Report};
use serde_json::json;

use scene::{Scene, budget};

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    let own = vec![
        suite.trial("drain::two_lists_a_watch_and_a_request_a_pod", cost),
        suite.trial(
            "drain::bare_and_empty_dir_pods_are_named_before_they_go",
            named_first,
        ),
        suite.trial("drain::cancelled_means_stopped_at_once", cancelled),
        suite.trial(
            "drain::another_attempt_takes_the_place_of_the_first",
            attempts,
        ),
        suite.trial(
            "drain::one_blocked_node_does_not_hold_up_another",
            side_by_side,
        ),
        suite.trial("drain::a_pod_bound_in_mid_drain_goes_too", bound_late),
    ];
    let parts = [
        own,
        blocked::trials(suite),
        kept::trials(suite),
        tolerant::trials(suite),
    ];
    parts.into_iter().flatten().collect()
}

async fn cost(suite: Arc<Suite>) -> Result<()> {
    const PODS: usize = 30;
    let mut scene = Scene::new(&suite, "drain-cost").await?;
    for number in 0..PODS {
        scene.pod(&format!("web-{number}"), json!({})).await?;
    }
    scene.drain();
    ensure!(scene.done().await?.is_empty());
    let requests = &scene.requests;
    let (watches, all) = (
        requests.with(&["watch=true"]),
        requests.with(&["GET", "/pods"]),
    );
    ensure!(watches.len() == 1, "{watches:?}");
    ensure!(all.len() - watches.len() == 2, "{all:?}");
    ensure!(
        all.iter().all(|request| request.contains("spec.nodeName")),
        "{all:?}"
    );
    let evictions = requests.with(&["POST", "/eviction"]);
    ensure!(
        evictions.len() == PODS,
        "{} evictions of {PODS} pods",
        evictions.len()
    );
    ensure!(
        requests.with(&[]).len() == PODS + 3,
        "{:?}",
        requests.with(&[])
    );
    Ok(())
}

async fn named_first(suite: Arc<Suite>) -> Result<()> {
    let mut scene = Scene::new(&suite, "drain-named").await?;
    scene.pod("bare", json!({})).await?;
    let volume = json!({ "spec": { "volumes": [{ "name": "cache", "emptyDir": {} }] } });
    scene.pod("cache", volume).await?;
    scene.drain();
    let report = scene.next().await?;
    let Report::Evicting(named) = report else {
        anyhow::bail!("the first thing said is {report:?}")
    };
    let notes = |name| {
        named
            .iter()
            .find(|n| &*n.pod.name == name)
            .map(|n| n.notes.clone())
    };
    ensure!(notes("bare") == Some(vec![Note::Bare]), "{named:?}");
    ensure!(
        notes("cache") == Some(vec![Note::Bare, Note::EmptyDir]),
        "{named:?}"
    );
    scene.done().await?;
    ensure!(scene.pods().await?.is_empty());
    Ok(())
}

async fn cancelled(suite: Arc<Suite>) -> Result<()> {
    let mut scene = Scene::new(&suite, "drain-cancel").await?;
    scene.pod("web", json!({})).await?;
    budget(&scene, "web", 1).await?;
    scene.drain();
    scene.waits_for("PodDisruptionBudget").await?;
    scene.drains.cancel(&scene.node);
    let before = scene.requests.with(&["/eviction"]).len();
    scene.kubectl(&["delete", "pdb", "web"]).await?;
    // Long enough for the next retries of a drain that went on.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let after = scene.requests.with(&["/eviction"]).len();
    ensure!(
        before == after,
        "{} evictions after the cancel",
        after - before
    );
    let pods = scene.pods().await?;
    ensure!(
        pods.len() == 1 && pods[0].metadata.deletion_timestamp.is_none(),
        "{pods:?}"
    );
    ensure!(scene.drains.under_way() == 0);
    Ok(())
}

async fn attempts(suite: Arc<Suite>) -> Result<()> {
    let mut scene = Scene::new(&suite, "drain-attempts").await?;
    scene.pod("web", json!({})).await?;
    budget(&scene, "web", 1).await?;
    scene.drain();
    scene.waits_for("PodDisruptionBudget").await?;
    scene.attempt = 2;
    scene.drain();
    // From here on only the second attempt's events count; `next` checks that they come.
    scene.waits_for("PodDisruptionBudget").await?;
    ensure!(scene.drains.under_way() == 1);
    scene.drain();
    ensure!(
        scene.requests.with(&["watch=true"]).len() == 2,
        "said again, it changes nothing"
    );
    scene.kubectl(&["delete", "pdb", "web"]).await?;
    scene.done().await?;
    Ok(())
}

async fn side_by_side(suite: Arc<Suite>) -> Result<()> {
    let mut blocked = Scene::new(&suite, "drain-blocked").await?;
    for number in 0..12 {
        blocked.pod(&format!("web-{number}"), json!({})).await?;
    }
    budget(&blocked, "web", 12).await?;
    let free = blocked.beside("drain-free").await?;
    free.pod(
        "web",
        json!({ "metadata": { "labels": { "app": "other" } } }),
    )
    .await?;
    blocked.drain();
    blocked.waits_for("PodDisruptionBudget").await?;
    blocked.drains.start(&free.node, 1, blocked.cordoned);
    blocked.done_of(&free.node).await?;
    ensure!(free.pods().await?.is_empty() && blocked.pods().await?.len() == 12);
    Ok(())
}

async fn bound_late(suite: Arc<Suite>) -> Result<()> {
    let mut scene = Scene::new(&suite, "drain-late").await?;
    let holds = json!({ "metadata": { "annotations": { kubelet::HOLDS: "" } } });
    scene.pod("slow", holds).await?;
    scene.drain();
    scene.waits_for("stopping").await?;
    // As if it had been on its way to the node when the cordon came.
    scene.pod_unseen("late", json!({})).await?;
    scene.gone("late").await?;
    scene.kill("slow").await?;
    scene.done().await?;
    Ok(())
}
