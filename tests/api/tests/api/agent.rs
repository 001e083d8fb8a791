//! The agent's real code, in this process, between the real API server and a played host.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use api_tests::{Suite, hosts, wait};
use crd::{BootcNode, BootcNodeSpec};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use libtest_mimic::Trial;
use nodeagent::{agent::Agent, api::Server, hands::Hands};
use serde_json::{Value, json};

#[path = "../../../../nodeagent/tests/played/mod.rs"]
mod played;

use played::PlayedHost;

pub fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![suite.trial("agent::a_host_is_updated", a_host_is_updated)]
}

const A: &str =
    "quay.io/os@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str =
    "quay.io/os@sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// A node with its object, its host and its agent.
struct Bench {
    suite: Arc<Suite>,
    name: String,
    host: PlayedHost,
    server: Server,
}

impl Bench {
    /// A node whose host booted A; its object wants A.
    async fn new(suite: Arc<Suite>, name: &str) -> Result<Self> {
        hosts::node(&suite.admin, name, json!({})).await?;
        let client = hosts::agent_on(&suite, name).await?;
        let bench = Self {
            server: Server::with(client, name),
            name: name.to_owned(),
            host: PlayedHost::booted(A)?,
            suite,
        };
        let node = BootcNode::new(
            name,
            BootcNodeSpec {
                desired_image: Some(A.into()),
                ..BootcNodeSpec::default()
            },
        );
        bench.api().create(&PostParams::default(), &node).await?;
        Ok(bench)
    }

    fn api(&self) -> Api<BootcNode> {
        Api::all(self.suite.breaker.clone())
    }

    async fn spec(&self, spec: Value) -> Result<()> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        let params = PatchParams::default();
        self.api().patch(&self.name, &params, &patch).await?;
        Ok(())
    }

    /// The approval for the boot that the agent reported.
    async fn approve(&self) -> Result<()> {
        let boot = self.node().await?.status.unwrap_or_default().boot;
        self.spec(json!({ "desiredImageState": "Booted", "approvedBoot": boot }))
            .await
    }

    async fn node(&self) -> Result<BootcNode> {
        Ok(self.api().get(&self.name).await?)
    }

    /// Runs an agent until `steps` are through; it is killed then.
    async fn agent<T>(&self, steps: impl Future<Output = Result<T>>) -> Result<T> {
        let hands = Hands::new(self.host.host(), self.server.clone());
        let agent = Agent::start(hands, Duration::from_secs(300)).await?;
        tokio::select! {
            () = agent.run() => anyhow::bail!("the agent ended"),
            done = steps => done,
        }
    }

    /// Waits until the conditions are so: `Idle/Staged Degraded/Healthy`, say.
    async fn conditions(&self, wanted: &str) -> Result<BootcNode> {
        wait::until(wanted, || async {
            let node = self.node().await?;
            let shown = shown(&node);
            ensure!(shown == wanted, "the conditions are {shown}");
            Ok(node)
        })
        .await
    }

    async fn rebooted(&self, times: u32) -> Result<()> {
        wait::until("the host reboots", || async {
            let boots = self.host.boots();
            ensure!(boots == times, "it booted {boots} times");
            Ok(())
        })
        .await
    }
}

fn shown(node: &BootcNode) -> String {
    let status = node.status.clone().unwrap_or_default();
    let reasons = ["Idle", "Degraded"].map(|kind| {
        let found = status.conditions.iter().find(|it| it.type_ == kind);
        found.map_or("unset", |it| &it.reason).to_owned()
    });
    reasons.join(" ")
}

/// Idle, Staging, Staged, Rebooting and back, with four writes.
async fn a_host_is_updated(suite: Arc<Suite>) -> Result<()> {
    let bench = Bench::new(suite, "agent-updates").await?;
    bench
        .agent(async {
            bench.conditions("Idle Healthy").await?;
            bench.host.set("state/slow", "1");
            bench.spec(json!({ "desiredImage": B })).await?;
            bench.conditions("Staging Healthy").await?;
            let node = bench.conditions("Staged Healthy").await?;
            let staged = node.status.unwrap_or_default().staged.context("staged")?;
            ensure!(staged.image == B && staged.download_only, "{staged:?}");
            bench.approve().await?;
            bench.rebooted(1).await
        })
        .await?;
    let before = bench.node().await?;
    ensure!(shown(&before) == "Rebooting Healthy", "{}", shown(&before));
    let node = bench.agent(bench.conditions("Idle Healthy")).await?;
    let status = node.status.clone().unwrap_or_default();
    ensure!(
        status.boot.as_deref() == Some("boot-1"),
        "{:?}",
        status.boot
    );
    ensure!(status.booted.is_some_and(|it| it.image == B), "booted");
    ensure!(node.metadata.generation == status.observed_generation);
    ensure!(
        bench.host.log()
            == [
                format!("bootc switch -- {B}"),
                "bootc upgrade --download-only".to_owned(),
                "systemctl stop bootc-operator-stage.service".to_owned(),
                "bootc upgrade --from-downloaded".to_owned(),
                "systemctl reboot".to_owned(),
            ],
        "{:#?}",
        bench.host.log()
    );
    bench
        .api()
        .delete(&node.name_any(), &DeleteParams::default())
        .await?;
    Ok(())
}
