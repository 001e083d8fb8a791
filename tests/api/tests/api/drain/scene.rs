//! One cordoned node with its kubelet, a namespace, and an engine that drains the node.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use api_tests::{
    Account, Suite,
    counted::{Requests, counted},
    hosts,
    kubelet::Kubelet,
    wait,
};
use k8s_openapi::{
    api::core::v1::{Namespace, Node, Pod},
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use operator::drain::{DrainEvent, Drains, PodName, Report, Settings};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

pub(super) struct Scene {
    pub(super) suite: Arc<Suite>,
    pub(super) node: String,
    pub(super) namespace: String,
    /// What a drain is told of the cordon.
    pub(super) cordoned: Timestamp,
    pub(super) attempt: u32,
    pub(super) drains: Drains,
    pub(super) requests: Requests,
    events: mpsc::Receiver<DrainEvent>,
    _kubelet: Kubelet,
}

impl Scene {
    pub(super) async fn new(suite: &Arc<Suite>, name: &str) -> Result<Self> {
        let may_act = Settings {
            own: None,
            may_evict: Arc::new(|| true),
        };
        Self::with(suite, name, may_act).await
    }

    pub(super) async fn with(suite: &Arc<Suite>, name: &str, settings: Settings) -> Result<Self> {
        namespace(suite, name).await?;
        let (client, requests) = counted(&suite.client_of(Account::OPERATOR, None).await?);
        let (sender, events) = mpsc::channel(16);
        Ok(Self {
            suite: suite.clone(),
            node: name.to_owned(),
            namespace: name.to_owned(),
            cordoned: Timestamp::now(),
            attempt: 1,
            drains: Drains::new(client, settings, sender),
            requests,
            events,
            _kubelet: host(suite, name).await?,
        })
    }

    /// Another node, with pods in this one's namespace.
    pub(super) async fn beside(&self, node: &str) -> Result<Self> {
        let (sender, events) = mpsc::channel(16);
        let settings = Settings {
            own: None,
            may_evict: Arc::new(|| true),
        };
        Ok(Self {
            suite: self.suite.clone(),
            node: node.to_owned(),
            namespace: self.namespace.clone(),
            cordoned: self.cordoned,
            attempt: 1,
            drains: Drains::new(self.suite.admin.clone(), settings, sender),
            requests: Requests::default(),
            events,
            _kubelet: host(&self.suite, node).await?,
        })
    }

    pub(super) fn drain(&mut self) {
        self.drains.start(&self.node, self.attempt, self.cordoned);
    }

    /// Makes a running pod of `app: web` on the node, with `change` merged over it.
    pub(super) async fn pod(&self, name: &str, change: Value) -> Result<()> {
        self.pod_unseen(name, change).await?;
        let api = self.api();
        wait::until("the pod has a phase", || async {
            let pod = api.get(name).await.map_err(|error| error.to_string())?;
            let phase = pod.status.and_then(|status| status.phase);
            if phase.as_deref() == Some("Pending") {
                Err("Pending".to_owned())
            } else {
                Ok(())
            }
        })
        .await
    }

    /// The same without waiting until it runs.
    pub(super) async fn pod_unseen(&self, name: &str, change: Value) -> Result<()> {
        let mut pod = json!({
            "metadata": { "name": name, "labels": { "app": "web" } },
            "spec": {
                "nodeName": self.node,
                "automountServiceAccountToken": false,
                "containers": [{ "name": "main", "image": "none" }],
            },
        });
        hosts::merge(&mut pod, change);
        let pod: Pod = serde_json::from_value(pod)?;
        self.api().create(&PostParams::default(), &pod).await?;
        Ok(())
    }

    pub(super) fn api(&self) -> Api<Pod> {
        Api::namespaced(self.suite.admin.clone(), &self.namespace)
    }

    /// The pods of the node.
    pub(super) async fn pods(&self) -> Result<Vec<Pod>> {
        let params = ListParams::default().fields(&format!("spec.nodeName={}", self.node));
        Ok(self.api().list(&params).await?.items)
    }

    /// Takes a pod's finalizers away.
    pub(super) async fn let_go(&self, name: &str) -> Result<()> {
        let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
        let params = PatchParams::default();
        self.api().patch(name, &params, &free).await?;
        Ok(())
    }

    /// Ends a pod at once.
    pub(super) async fn kill(&self, name: &str) -> Result<()> {
        let now = DeleteParams::default().grace_period(0);
        self.api().delete(name, &now).await?;
        Ok(())
    }

    /// Waits until there is no pod of that name.
    pub(super) async fn gone(&self, name: &str) -> Result<()> {
        let api = self.api();
        wait::until("the pod is gone", || async {
            match api.get_opt(name).await {
                Ok(None) => Ok(()),
                Ok(Some(_)) => Err("it is there".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }

    /// kubectl in the namespace.
    pub(super) async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.suite
            .kubectl(&[&["-n", &self.namespace], args].concat())
            .await
    }

    /// kubectl apply.
    pub(super) async fn apply(&self, object: Value) -> Result<()> {
        let args = ["-n", &self.namespace, "apply", "-f", "-"];
        self.suite
            .kubectl_with(&args, &object.to_string())
            .await
            .map(drop)
    }

    /// What any drain of this engine says next.
    async fn event(&mut self) -> Result<DrainEvent> {
        let event = timeout(wait::PATIENCE, self.events.recv())
            .await
            .context("nothing is said")?;
        event.context("the engine is gone")
    }

    /// What the drain of the node says next, in this attempt.
    pub(super) async fn next(&mut self) -> Result<Report> {
        loop {
            let event = self.event().await?;
            if *event.node == *self.node && event.attempt == self.attempt {
                return Ok(event.report);
            }
        }
    }

    /// Reads on until the drain waits for something that is put into these words.
    pub(super) async fn waits_for(&mut self, words: &str) -> Result<()> {
        let mut said = Vec::new();
        for _ in 0..60 {
            match self.next().await {
                Ok(Report::Waiting(waits)) => {
                    let all: Vec<_> = waits.pods.iter().map(ToString::to_string).collect();
                    if all.iter().any(|wait| wait.contains(words))
                        || waits.to_string().contains(words)
                    {
                        return Ok(());
                    }
                    said.push(format!("{waits} {all:?}"));
                }
                Ok(Report::Done { .. }) => {
                    bail!("done without a wait for `{words}`; said: {said:#?}")
                }
                Ok(Report::Evicting(_)) => {}
                Err(error) => {
                    return Err(error.context(format!("no wait for `{words}`; said: {said:#?}")));
                }
            }
        }
        bail!("no wait for `{words}`; said: {said:#?}")
    }

    /// Reads on until the drain is done; answers the pods that stayed.
    pub(super) async fn done(&mut self) -> Result<Vec<PodName>> {
        let mut last = None;
        loop {
            match self.next().await {
                Ok(Report::Done { stayed }) => return Ok(stayed),
                Ok(report) => last = Some(report),
                Err(error) => return Err(error.context(format!("not done; last said: {last:?}"))),
            }
        }
    }

    /// The same for another node of this engine.
    pub(super) async fn done_of(&mut self, node: &str) -> Result<()> {
        loop {
            let event = self.event().await?;
            if *event.node == *node && matches!(event.report, Report::Done { .. }) {
                return Ok(());
            }
        }
    }
}

/// A `PodDisruptionBudget` for `app: web` that needs so many pods.
pub(super) async fn budget(scene: &Scene, name: &str, needed: u32) -> Result<()> {
    scene
        .apply(json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": name },
            "spec": { "minAvailable": needed, "selector": { "matchLabels": { "app": "web" } } },
        }))
        .await?;
    let needed = needed.to_string();
    wait::until("the budget is at work", || async {
        let path = "jsonpath={.status.currentHealthy}";
        let healthy = scene.kubectl(&["get", "pdb", name, "-o", path]).await?;
        anyhow::ensure!(healthy == needed, "{healthy:?} healthy pods");
        Ok::<_, anyhow::Error>(())
    })
    .await
}

async fn host(suite: &Suite, name: &str) -> Result<Kubelet> {
    hosts::node(&suite.admin, name, json!({ "test/node": name })).await?;
    let cordon = Patch::Merge(json!({ "spec": { "unschedulable": true } }));
    let nodes = Api::<Node>::all(suite.admin.clone());
    nodes.patch(name, &PatchParams::default(), &cordon).await?;
    Ok(Kubelet::start(suite.admin.clone(), name))
}

/// A namespace in which pods can be made: its service account is there.
pub(super) async fn namespace(suite: &Suite, name: &str) -> Result<()> {
    let object: Namespace = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
    Api::all(suite.admin.clone())
        .create(&PostParams::default(), &object)
        .await?;
    wait::until("the namespace has its service account", || async {
        suite
            .kubectl(&["-n", name, "get", "serviceaccount", "default"])
            .await
    })
    .await
    .map(drop)
}

/// Waits until the clock shows another second: the API server's times have whole ones.
pub(super) async fn next_second() {
    sleep(Duration::from_millis(1100)).await;
}
