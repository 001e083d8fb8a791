//! Plays the kubelet of one node: pods run as soon as they are bound, and go when they are told to.

use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use tokio::task::JoinHandle;

/// Annotation: the phase that a pod gets instead of Running.
pub const PHASE: &str = "test/phase";
/// Annotation: a pod that takes its time and is not let go before the annotation is.
pub const HOLDS: &str = "test/holds";

/// A kubelet at work. Dropped, it stops.
#[derive(Debug)]
pub struct Kubelet(JoinHandle<()>);

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Kubelet {
    /// Looks after the pods of a node.
    #[must_use]
    pub fn start(client: Client, node: &str) -> Self {
        let node = node.to_owned();
        Self(tokio::spawn(async move {
            let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
            let pods = watcher(Api::<Pod>::all(client.clone()), config);
            let mut pods = pods.default_backoff().applied_objects().boxed();
            while let Ok(pod) = pods.try_next().await {
                let Some(pod) = pod else { return };
                if let Err(error) = look_after(&client, &pod).await {
                    eprintln!(
                        "the kubelet of {node} and pod {}: {error:#}",
                        pod.name_any()
                    );
                }
            }
        }))
    }
}

async fn look_after(client: &Client, pod: &Pod) -> Result<()> {
    let api = Api::<Pod>::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let (name, notes) = (pod.name_any(), pod.annotations());
    if pod.metadata.deletion_timestamp.is_some() {
        // A pod that a finalizer still holds has been let go already.
        let let_go = pod.metadata.deletion_grace_period_seconds == Some(0);
        if let_go || notes.contains_key(HOLDS) {
            return Ok(());
        }
        let params = DeleteParams::default()
            .grace_period(0)
            .preconditions(Preconditions {
                uid: pod.uid(),
                resource_version: None,
            });
        return gone_is_fine(api.delete(&name, &params).await.map(drop));
    }
    let phase = notes.get(PHASE).map_or("Running", String::as_str);
    if pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        == Some(phase)
    {
        return Ok(());
    }
    let ready = if phase == "Running" { "True" } else { "False" };
    let status = json!({
        "metadata": { "uid": pod.uid() },
        "status": { "phase": phase, "conditions": [
            { "type": "Ready", "status": ready }, { "type": "ContainersReady", "status": ready },
        ]},
    });
    let params = PatchParams::default();
    gone_is_fine(
        api.patch_status(&name, &params, &Patch::Strategic(status))
            .await
            .map(drop),
    )
}

fn gone_is_fine(outcome: kube::Result<()>) -> Result<()> {
    match outcome {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        outcome => Ok(outcome?),
    }
}
