//! What holds a drain up is named, retried, and gone through as soon as it gives way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use api_tests::{
    Account, Suite, kubelet,
    webhook::{Verdict, Webhook},
};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use libtest_mimic::Trial;
use operator::drain::{Drains, Report, Settings};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::scene::{Scene, budget};

pub(super) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial("drain::blocked::by_a_budget_at_0", by_a_budget),
        suite.trial("drain::blocked::by_two_budgets", by_two_budgets),
        suite.trial("drain::blocked::by_a_policy_that_refuses", by_a_policy),
        suite.trial(
            "drain::blocked::by_a_webhook_that_is_down",
            by_a_dead_webhook,
        ),
        suite.trial("drain::blocked::by_a_webhook_that_refuses", by_a_webhook),
        suite.trial("drain::blocked::by_an_api_server_that_is_away", by_silence),
        suite.trial(
            "drain::blocked::by_the_silence_of_its_node",
            by_the_silence_of_its_node,
        ),
        suite.trial("drain::blocked::by_a_finalizer", by_a_finalizer),
        suite.trial(
            "drain::blocked::by_a_pod_that_takes_its_time",
            by_a_grace_period,
        ),
        suite.trial(
            "drain::blocked::in_a_namespace_that_goes",
            in_a_namespace_that_goes,
        ),
        suite.trial("drain::blocked::without_the_lease", without_the_lease),
        suite.trial("drain::blocked::without_rights", without_rights),
    ]
}

async fn by_a_budget(suite: Arc<Suite>) -> Result<()> {
    let mut scene = Scene::new(&suite, "drain-budget").await?;
    scene.pod("web-1", json!({})).await?;
    scene.pod("web-2", json!({})).await?;
    scene
        .pod(
            "free",
            json!({ "metadata": { "labels": { "app": "free" } } }),
        )
        .await?;
    budget(&scene, "web", 2).await?;
    scene.drain();
    scene
        .waits_for(
            "waiting for pod drain-budget/web-1: PodDisruptionBudget drain-budget/web allows \
             0 disruptions (needs 2 healthy pods and has 2 currently)",
        )
        .await?;
    scene.gone("free").await?;
    ensure!(scene.pods().await?.len() == 2);
    scene.kubectl(&["delete", "pdb", "web"]).await?;
    scene.done().await?;
    ensure!(scene.pods().await?.is_empty());
    Ok(())
}

/// The controller of nodes takes the readiness of a silent node's pods away, and for a pod that is not
/// ready a budget is no protection as long as its own count lags behind.
async fn by_the_silence_of_its_node(suite: Arc<Suite>) -> Result<()> {
    let mut scene = Scene::new(&suite, "drain-silent-node").await?;
    scene.pod("web", json!({})).await?;
    report_ready(&scene, "web", false).await?;
    scene.drain();
    scene
        .waits_for("waiting for pod drain-silent-node/web: its node was silent")
        .await?;
    let pods = scene.pods().await?;
    ensure!(pods[0].metadata.deletion_timestamp.is_none(), "evicted");
    report_ready(&scene, "web", true).await?;
    scene.done().await?;
    Ok(())
}

/// Says of a pod with running containers whether it counts as ready.
async fn report_ready(scene: &Scene, pod: &str, ready: bool) -> Result<()> {
    let ready = if ready { "True" } else { "False" };
    let conditions = json!([
        { "type": "Ready", "status": ready }, { "type": "ContainersReady", "status": "True" }]);
    let patch = Patch::Strategic(json!({ "status": { "conditions": conditions } }));
    let params = PatchParams::default();
    scene.api().patch_status(pod, &params, &patch).await?;
    Ok(())
}

async fn by_two_budgets(suite: Arc<Suite>) -> Result<()> {
    let mut scene = Scene::new(&suite, "drain-budgets").await?;
    scene.pod("web", json!({})).await?;
    budget(&scene, "one", 1).await?;
    budget(&scene, "two", 1).await?;
    scene.drain();
    scene
        .waits_for("waiting for pod drain-budgets/web: more than one PodDisruptionBudget")
        .await?;
    scene.kubectl(&["delete", "pdb", "one"]).await?;
    scene
        .waits_for("PodDisruptionBudget drain-budgets/two allows 0 disruptions")
        .await?;
    scene.kubectl(&["delete", "pdb", "two"]).await?;
    scene.done().await?;
    Ok(())
}

async fn by_a_policy(suite: Arc<Suite>) -> Result<()> {
    let mut scene = Scene::new(&suite, "drain-policy").await?;
    scene.pod("web", json!({})).await?;
    scene
        .apply(json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": { "name": "no-evictions" },
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "namespaceSelector": {
                        "matchLabels": { "kubernetes.io/metadata.name": "drain-policy" } },
                    "resourceRules": [{ "apiGroups": [""], "apiVersions": ["*"],
                                        "operations": ["CREATE"], "resources": ["pods/eviction"] }],
                },
                "validations": [{ "expression": "false", "message": "the cache is being rebuilt" }],
            },
        }))
        .await?;
    scene
        .apply(json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": { "name": "no-evictions" },
            "spec": { "policyName": "no-evictions", "validationActions": ["Deny"] },
        }))
        .await?;
    at_work(&scene, "the cache is being rebuilt").await?;
    scene.drain();
    scene.waits_for("the cache is being rebuilt").await?;
    suite
        .kubectl(&["delete", "validatingadmissionpolicybinding", "no-evictions"])
        .await?;
    scene.done().await?;
    Ok(())
}

async fn by_a_dead_webhook(suite: Arc<Suite>) -> Result<()> {
    let mut scene = Scene::new(&suite, "drain-dead").await?;
    scene.pod("web", json!({})).await?;
    // Nothing listens there.
    webhook(
        &scene,
        "dead.example.com",
        json!({ "url": "https://127.0.0.1:1/" }),
        2,
    )
    .await?;
    at_work(&scene, "dead.example.com").await?;
    scene.drain();
    scene
        .waits_for("failed calling webhook \"dead.example.com\"")
        .await?;
    suite
        .kubectl(&[
            "delete",
            "validatingwebhookconfiguration",
            "dead.example.com",
        ])
        .await?;
    scene.done().await?;
    Ok(())
}

/// One that refuses, and then takes nearly as long as it may.
async fn by_a_webhook(suite: Arc<Suite>) -> Result<()> {
    let mut scene = Scene::new(&suite, "drain-webhook").await?;
    scene.pod("web", json!({})).await?;
    let server = Webhook::start(Verdict::Refuse("the shards are moving".to_owned()))?;
    webhook(&scene, "shards.example.com", server.client_config(), 30).await?;
    at_work(&scene, "the shards are moving").await?;
    scene.drain();
    scene
        .waits_for(
            "admission webhook \"shards.example.com\" denied the request: the shards are moving",
        )
        .await?;
    let before = scene.requests.with(&["/eviction"]).len();
    server.turn(Verdict::AllowAfter(Duration::from_secs(20)));
    scene.done().await?;
    let more = scene.requests.with(&["/eviction"]).len() - before;
    // A retry may have been refused just before the turn.
    ensure!(
        more <= 2,
        "{more} evictions: a slow answer was not waited for"
    );
    suite
        .kubectl(&[
            "delete",
            "validatingwebhookconfiguration",
            "shards.example.com",
        ])
        .await?;
    Ok(())
}

/// Puts a webhook before the evictions in the scene's namespace.
async fn webhook(scene: &Scene, name: &str, client: Value, seconds: u32) -> Result<()> {
    let namespace = json!({ "kubernetes.io/metadata.name": scene.namespace });
    scene
        .apply(json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": { "name": name },
            "webhooks": [{
                "name": name, "failurePolicy": "Fail", "sideEffects": "None",
                "admissionReviewVersions": ["v1"], "timeoutSeconds": seconds, "clientConfig": client,
                "namespaceSelector": { "matchLabels": namespace },
                "rules": [{ "apiGroups": [""], "apiVersions": ["*"], "operations": ["CREATE"],
                            "resources": ["pods/eviction"] }],
            }],
        }))
        .await
}

async fn by_silence(suite: Arc<Suite>) -> Result<()> {
    let mut scene = Scene::new(&suite, "drain-silence").await?;
    scene.pod("web", json!({})).await?;
    budget(&scene, "web", 1).await?;
    scene.requests.cut_off(true);
    scene.drain();
    scene
        .waits_for("cannot see the node's pods: ServiceError: the line is cut")
        .await?;
    scene.requests.cut_off(false);
    scene.waits_for("PodDisruptionBudget").await?;
    scene.requests.cut_off(true);
    scene
        .waits_for("the API server cannot be asked: ServiceError: the line is cut")
        .await?;
    scene.requests.cut_off(false);
    scene.kubectl(&["delete", "pdb", "web"]).await?;
    scene.done().await?;
    Ok(())
}

/// Waits until an eviction is refused with these words: admission takes a moment to hear of news.
async fn at_work(scene: &Scene, words: &str) -> Result<()> {
    api_tests::wait::until("the eviction is refused", || async {
        let dry_run = kube::api::PostParams {
            dry_run: true,
            ..Default::default()
        };
        let body =
            json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": "web" } });
        let answer = scene
            .api()
            .create_subresource::<_, serde_json::Value>("eviction", "web", &dry_run, &body)
            .await;
        match answer {
            Err(kube::Error::Api(status)) if status.message.contains(words) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

async fn by_a_finalizer(suite: Arc<Suite>) -> Result<()> {
    let mut scene = Scene::new(&suite, "drain-finalizer").await?;
    scene
        .pod(
            "web",
            json!({ "metadata": { "finalizers": ["test.example.com/backup"] } }),
        )
        .await?;
    scene.drain();
    scene
        .waits_for("waiting for pod drain-finalizer/web: ")
        .await?;
    // The kubelet has let it go: nothing of its grace period is left.
    scene
        .waits_for("still there after its 0 s to stop, held by finalizers test.example.com/backup")
        .await?;
    scene.let_go("web").await?;
    scene.done().await?;
    ensure!(scene.requests.with(&["/eviction"]).len() == 1, "asked once");
    Ok(())
}

async fn by_a_grace_period(suite: Arc<Suite>) -> Result<()> {
    let mut scene = Scene::new(&suite, "drain-grace").await?;
    let slow = json!({
        "metadata": { "annotations": { kubelet::HOLDS: "" } },
        "spec": { "terminationGracePeriodSeconds": 3600 },
    });
    scene.pod("web", slow).await?;
    scene.drain();
    scene
        .waits_for("waiting for pod drain-grace/web: stopping (has 3600 s)")
        .await?;
    let pods = scene.pods().await?;
    ensure!(
        pods[0].metadata.deletion_grace_period_seconds == Some(3600),
        "its own grace period"
    );
    scene.kill("web").await?;
    scene.done().await?;
    ensure!(scene.requests.with(&["/eviction"]).len() == 1, "asked once");
    Ok(())
}

async fn in_a_namespace_that_goes(suite: Arc<Suite>) -> Result<()> {
    let mut scene = Scene::new(&suite, "drain-going").await?;
    let slow = json!({
        "metadata": { "annotations": { kubelet::HOLDS: "" }, "finalizers": ["test.example.com/x"] },
    });
    scene.pod("web", slow).await?;
    suite
        .kubectl(&["delete", "namespace", "drain-going", "--wait=false"])
        .await?;
    scene.drain();
    scene
        .waits_for("waiting for pod drain-going/web: stopping")
        .await?;
    scene.let_go("web").await?;
    scene.kill("web").await?;
    scene.done().await?;
    Ok(())
}

async fn without_the_lease(suite: Arc<Suite>) -> Result<()> {
    let holds = Arc::new(AtomicBool::new(false));
    let lease = holds.clone();
    let may_evict = Arc::new(move || lease.load(Ordering::SeqCst));
    let settings = Settings {
        own: None,
        may_evict,
    };
    let mut scene = Scene::with(&suite, "drain-lease", settings).await?;
    scene.pod("web", json!({})).await?;
    scene.drain();
    scene.waits_for("this operator may not act now").await?;
    ensure!(scene.requests.with(&["/eviction"]).is_empty());
    holds.store(true, Ordering::SeqCst);
    scene.done().await?;
    Ok(())
}

async fn without_rights(suite: Arc<Suite>) -> Result<()> {
    let stranger = suite.client_of(Account::AGENT, None).await?;
    let (sender, mut events) = mpsc::channel(4);
    let settings = Settings {
        own: None,
        may_evict: Arc::new(|| true),
    };
    let mut drains = Drains::new(stranger, settings, sender);
    drains.start("drain-rights", 1, Timestamp::now());
    let event = tokio::time::timeout(api_tests::wait::PATIENCE, events.recv()).await?;
    let Some(Report::Waiting(waits)) = event.map(|event| event.report) else {
        anyhow::bail!("nothing is said of it")
    };
    let said = waits.to_string();
    ensure!(
        said.contains("cannot see the node's pods: pods is forbidden"),
        "{said}"
    );
    ensure!(
        waits.left.is_none() && drains.under_way() == 1,
        "it goes on"
    );
    Ok(())
}
