//! A node with its `BootcNode` on the real API server, its played host, and the agent's real code
//! between them, in this process.

use std::{pin::pin, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use api_tests::{Suite, hosts, wait};
use crd::{BootcNode, BootcNodeSpec, BootcNodeStatus};
use futures::StreamExt as _;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use nodeagent::{agent::Agent, api::Server, hands::Hands};
use serde_json::{Value, json};

#[path = "../../../../../nodeagent/tests/played/mod.rs"]
mod played;

pub(crate) use played::PlayedHost;

pub(crate) const A: &str =
    "quay.io/os@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub(crate) const B: &str =
    "quay.io/os@sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
pub(crate) const C: &str =
    "quay.io/os@sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";

/// A node with its object, its host and its agent.
pub(crate) struct Bench {
    pub(crate) suite: Arc<Suite>,
    pub(crate) host: PlayedHost,
    name: String,
    server: Server,
}

impl Bench {
    /// A node whose host booted A; its object wants A.
    pub(crate) async fn new(suite: Arc<Suite>, name: &str) -> Result<Self> {
        let name = format!("agent-{name}");
        hosts::node(&suite.admin, &name, json!({})).await?;
        let client = hosts::agent_on(&suite, &name).await?;
        let bench = Self {
            server: Server::with(client, &name),
            host: PlayedHost::booted(A)?,
            suite,
            name,
        };
        let spec = BootcNodeSpec {
            desired_image: Some(A.into()),
            ..BootcNodeSpec::default()
        };
        let node = BootcNode::new(&bench.name, spec);
        bench.api().create(&PostParams::default(), &node).await?;
        Ok(bench)
    }

    fn api(&self) -> Api<BootcNode> {
        Api::all(self.suite.breaker.clone())
    }

    async fn patch(&self, patch: Value) -> Result<()> {
        let patch = Patch::Merge(patch);
        let params = PatchParams::default();
        self.api().patch(&self.name, &params, &patch).await?;
        Ok(())
    }

    pub(crate) async fn spec(&self, spec: Value) -> Result<()> {
        self.patch(json!({ "spec": spec })).await
    }

    /// Another image is wanted, staged.
    pub(crate) async fn want(&self, image: &str) -> Result<()> {
        let spec = json!({ "desiredImage": image, "desiredImageState": "Staged" });
        self.spec(spec).await
    }

    /// The approval for the boot that the agent reported.
    pub(crate) async fn approve(&self) -> Result<()> {
        let boot = self.status().await?.boot;
        let spec = json!({ "desiredImageState": "Booted", "approvedBoot": boot });
        self.spec(spec).await
    }

    /// The object is deleted, and stays by somebody's finalizer.
    pub(crate) async fn delete_but_keep(&self) -> Result<()> {
        let finalizers = json!({ "metadata": { "finalizers": ["example.com/keep"] } });
        self.patch(finalizers).await?;
        let api = self.api();
        api.delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// A person asks for another try.
    pub(crate) async fn retry(&self) -> Result<()> {
        let now = k8s_openapi::jiff::Timestamp::now().to_string();
        let annotations = json!({ crd::names::ANNOTATION_RETRY: now });
        self.patch(json!({ "metadata": { "annotations": annotations } }))
            .await
    }

    pub(crate) async fn node(&self) -> Result<BootcNode> {
        Ok(self.api().get(&self.name).await?)
    }

    pub(crate) async fn status(&self) -> Result<BootcNodeStatus> {
        Ok(self.node().await?.status.unwrap_or_default())
    }

    /// The message of a condition.
    pub(crate) async fn message(&self, kind: &str) -> Result<String> {
        let conditions = self.status().await?.conditions;
        let found = conditions.into_iter().find(|it| it.type_ == kind);
        Ok(found.context("no such condition")?.message)
    }

    /// Runs an agent until `steps` are through; it is killed then.
    pub(crate) async fn agent<T>(&self, steps: impl Future<Output = Result<T>>) -> Result<T> {
        self.agent_that_polls(Duration::from_secs(300), steps).await
    }

    pub(crate) async fn agent_that_polls<T>(
        &self,
        poll: Duration,
        steps: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let hands = Hands::new(self.host.host(), self.server.clone());
        let agent = Box::pin(Agent::start(hands, poll)).await?;
        tokio::select! {
            () = Box::pin(agent.run()) => anyhow::bail!("the agent ended"),
            done = steps => done,
        }
    }

    /// Waits until reasons of Idle and Degraded are so.
    pub(crate) async fn says(&self, wanted: &str) -> Result<BootcNodeStatus> {
        wait::until(wanted, || async {
            let status = self.status().await?;
            let shown = shown(&status);
            ensure!(shown == wanted, "the conditions are {shown}");
            Ok(status)
        })
        .await
    }

    /// Stages B on a host that is idle, and lets it be booted.
    pub(crate) async fn send_to_b(&self) -> Result<()> {
        self.says("Idle Healthy").await?;
        self.want(B).await?;
        self.says("Staged Healthy").await?;
        self.approve().await
    }

    pub(crate) async fn rebooted(&self, times: u32) -> Result<()> {
        wait::until("the host reboots", || async {
            let boots = self.host.boots();
            ensure!(boots == times, "it booted {boots} times");
            Ok(())
        })
        .await
    }

    /// Every status that the API server stores from now on, in order, until `steps` are through.
    pub(crate) async fn statuses<T>(
        &self,
        steps: impl Future<Output = Result<T>>,
    ) -> Result<(T, Vec<BootcNodeStatus>)> {
        let node = self.node().await?;
        let from = node.metadata.resource_version.unwrap_or_default();
        let only = WatchParams::default().fields(&format!("metadata.name={}", self.name));
        let mut events = pin!(self.api().watch(&only, &from).await?);
        let mut steps = pin!(steps);
        let mut statuses = vec![node.status.unwrap_or_default()];
        let done = loop {
            tokio::select! {
                Some(event) = events.next() => {
                    let WatchEvent::Modified(node) = event? else { continue };
                    let status = node.status.unwrap_or_default();
                    if statuses.last() != Some(&status) {
                        statuses.push(status);
                    }
                }
                done = &mut steps => break done?,
            }
        };
        statuses.remove(0);
        Ok((done, statuses))
    }

    /// How often the host did this.
    pub(crate) fn did(&self, what: &str) -> usize {
        let log = self.host.log();
        log.iter().filter(|line| line.starts_with(what)).count()
    }

    /// Waits until the host did this so often.
    pub(crate) async fn does(&self, what: &str, times: usize) -> Result<()> {
        wait::until(what, || async {
            let did = self.did(what);
            ensure!(did == times, "it did so {did} times");
            Ok(())
        })
        .await
    }
}

/// The reasons of Idle and Degraded.
pub(crate) fn shown(status: &BootcNodeStatus) -> String {
    let reasons = ["Idle", "Degraded"].map(|kind| {
        let found = status.conditions.iter().find(|it| it.type_ == kind);
        found.map_or("unset", |it| &it.reason).to_owned()
    });
    reasons.join(" ")
}
