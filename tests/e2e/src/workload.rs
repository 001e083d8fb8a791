//! A small web workload with a `PodDisruptionBudget`, and a probe that keeps
//! asking it while the hosts go down one after the other.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::env::Env;
use crate::wait::until;

/// Where the workload lives.
const NAMESPACE: &str = "default";
/// Pods wanted.
pub const REPLICAS: usize = 3;
/// How many of them must be there at any time.
pub const BUDGET: usize = 2;
/// The service, by the API server's proxy.
const URL: &str = "/api/v1/namespaces/default/services/web:80/proxy/";
/// Between two requests.
const PAUSE: Duration = Duration::from_millis(100);
/// A request that takes longer has failed.
const ANSWER: Duration = Duration::from_secs(2);

/// Starts the workload and waits until all of it is ready.
pub async fn deploy(env: &Env) -> Result<()> {
    println!("Starting a web workload: {REPLICAS} pods, of which {BUDGET} must be available");
    let client = &env.client;
    let created = PostParams::default();
    Api::<Deployment>::namespaced(client.clone(), NAMESPACE)
        .create(&created, &object(deployment(&env.images.web.reference()))?)
        .await?;
    Api::<Service>::namespaced(client.clone(), NAMESPACE)
        .create(&created, &object(service())?)
        .await?;
    Api::<PodDisruptionBudget>::namespaced(client.clone(), NAMESPACE)
        .create(&created, &object(budget())?)
        .await?;
    until(
        "the web workload is ready",
        Duration::from_secs(120),
        async || {
            let ready = Pods::of(client).await?.ready;
            Ok(if ready == REPLICAS {
                Ok(())
            } else {
                Err(format!("{ready} of {REPLICAS} pods"))
            })
        },
    )
    .await
}

fn deployment(image: &str) -> Value {
    json!({
        "metadata": { "name": "web" },
        "spec": {
            "replicas": REPLICAS,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": {
                    "topologySpreadConstraints": [{
                        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": { "matchLabels": { "app": "web" } },
                    }],
                    "terminationGracePeriodSeconds": 5,
                    "containers": [{
                        "name": "web",
                        "image": image,
                        "ports": [{ "containerPort": 8080 }],
                        "readinessProbe": {
                            "httpGet": { "path": "/", "port": 8080 },
                            "initialDelaySeconds": 6, "periodSeconds": 1,
                            // A busy machine is no reason to call a pod lost.
                            "timeoutSeconds": 2, "failureThreshold": 10,
                        },
                        "resources": { "requests": { "cpu": "10m", "memory": "16Mi" } },
                    }],
                },
            },
        },
    })
}

fn service() -> Value {
    json!({
        "metadata": { "name": "web" },
        "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    })
}

fn budget() -> Value {
    json!({
        "metadata": { "name": "web" },
        "spec": { "minAvailable": BUDGET, "selector": { "matchLabels": { "app": "web" } } },
    })
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).context("a manifest of the workload is malformed")
}

/// Changes how many pods must be there at any time: with [`REPLICAS`] no drain
/// gets past the workload.
pub async fn set_budget(env: &Env, pods: usize) -> Result<()> {
    let budgets = Api::<PodDisruptionBudget>::namespaced(env.client.clone(), NAMESPACE);
    let patch = Patch::Merge(json!({ "spec": { "minAvailable": pods } }));
    budgets
        .patch("web", &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

/// The pods at one moment.
struct Pods {
    /// Each of them, in a few words.
    picture: Vec<String>,
    /// Pods whose containers are ready, and that are not on their way out.
    ready: usize,
    /// Containers that were started again, and how they had ended: a pod that was left on a host
    /// that went down is, a drained one never.
    restarted: BTreeSet<String>,
}

impl Pods {
    async fn of(client: &Client) -> Result<Self> {
        let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE)
            .list(&ListParams::default().labels("app=web"))
            .await?;
        let stays = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none();
        Ok(Self {
            picture: pods.iter().map(describe).collect(),
            ready: pods
                .iter()
                .filter(stays)
                .filter(|pod| is_ready(pod))
                .count(),
            restarted: pods.iter().filter_map(restarted).collect(),
        })
    }
}

/// `web-1 on node2: ready`
fn describe(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let node = spec.and_then(|spec| spec.node_name.as_deref());
    let ready = if is_ready(pod) { "ready" } else { "not ready" };
    let leaves = pod.metadata.deletion_timestamp.as_ref();
    let leaves = leaves.map_or("", |_| ", leaving");
    let node = node.unwrap_or("no node");
    format!("{} on {node}: {ready}{leaves}", pod.name_any())
}

/// `web-1 on node2: 1 restart, Error, exit code 137, 2026-01-01T00:00:00Z`.
fn restarted(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let status = statuses.iter().find(|it| it.restart_count > 0)?;
    let spec = pod.spec.as_ref();
    let node = spec.and_then(|spec| spec.node_name.as_deref());
    let last = status.last_state.as_ref();
    let end = last.and_then(|state| state.terminated.as_ref());
    let how = end.map_or("of an unknown end".to_owned(), |end| {
        let at = end.finished_at.as_ref();
        format!(
            "{}, exit code {}, {}",
            end.reason.as_deref().unwrap_or("no reason"),
            end.exit_code,
            at.map_or("no time".to_owned(), |at| at.0.to_string())
        )
    });
    Some(format!(
        "{} on {}: {} restarts, {how}",
        pod.name_any(),
        node.unwrap_or("no node"),
        status.restart_count
    ))
}

/// By the word of its kubelet: the condition Ready is also taken away from the
/// pods of a node that is silent, which says nothing of them.
fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| {
        all.iter()
            .any(|c| c.type_ == "ContainersReady" && c.status == "True")
    })
}

/// Asks the workload again and again, in the background.
#[derive(Debug)]
pub struct Probe {
    stop: watch::Sender<bool>,
    task: JoinHandle<Seen>,
}

/// What the probe saw.
#[derive(Debug)]
pub struct Seen {
    requests: u32,
    failed: u32,
    longest: Duration,
    /// Of all times that the pods were counted; `None`: they never were.
    fewest: Option<usize>,
    restarted: BTreeSet<String>,
    /// The pods whenever something about them had changed, with the time since the probe's start.
    story: Vec<(Duration, Vec<String>)>,
}

impl Probe {
    /// Starts asking.
    #[must_use]
    pub fn start(env: &Env) -> Self {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(probe(env.client.clone(), stopped));
        Self { stop, task }
    }

    /// Stops asking and says what was seen.
    pub async fn stop(self) -> Result<Seen> {
        self.stop.send_replace(true);
        self.task.await.context("the probe of the workload broke")
    }
}

async fn probe(client: Client, stopped: watch::Receiver<bool>) -> Seen {
    let mut seen = Seen {
        requests: 0,
        failed: 0,
        longest: Duration::ZERO,
        fewest: None,
        restarted: BTreeSet::new(),
        story: Vec::new(),
    };
    let start = Instant::now();
    while !*stopped.borrow() {
        let asked = Instant::now();
        seen.requests += 1;
        if !answers(&client).await {
            seen.failed += 1;
        }
        seen.longest = seen.longest.max(asked.elapsed());
        if let Ok(Ok(pods)) = timeout(ANSWER, Pods::of(&client)).await {
            let fewest = seen.fewest.unwrap_or(pods.ready);
            seen.fewest = Some(fewest.min(pods.ready));
            seen.restarted.extend(pods.restarted);
            if seen
                .story
                .last()
                .is_none_or(|(_, last)| *last != pods.picture)
            {
                seen.story.push((start.elapsed(), pods.picture));
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    seen
}

async fn answers(client: &Client) -> bool {
    let Ok(request) = http::Request::get(URL).body(Vec::new()) else {
        return false;
    };
    matches!(
        timeout(ANSWER, client.request_text(request)).await,
        Ok(Ok(_))
    )
}

impl Seen {
    /// Was the budget kept, and did no pod go down with its host?
    #[must_use]
    pub fn within_budget(&self) -> bool {
        self.fewest.is_some_and(|fewest| fewest >= BUDGET) && self.restarted.is_empty()
    }
}

impl Seen {
    /// All that happened to the pods, a line for each change: for a test that failed.
    #[must_use]
    pub fn story(&self) -> String {
        let line = |(at, pods): &(Duration, Vec<String>)| {
            format!("[{:6.1} s] {}\n", at.as_secs_f32(), pods.join("; "))
        };
        self.story.iter().map(line).collect()
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Workload: never fewer than {} of {REPLICAS} pods ready (budget {BUDGET}), {} went down with their hosts; {} of {} requests failed, the slowest took {:.0} ms",
            self.fewest
                .map_or("?".to_owned(), |fewest| fewest.to_string()),
            self.restarted.len(),
            self.failed,
            self.requests,
            self.longest.as_secs_f32() * 1000.0
        )?;
        for container in &self.restarted {
            writeln!(f, "  {container}")?;
        }
        Ok(())
    }
}
