//! What the tests of faults share: a workload with a budget, a rollout over all
//! hosts that is disturbed, and what must be true of it in the end.

use std::time::Duration;

use anyhow::{Result, ensure};
use crd::BootcNodePool;
use e2e::images::Image;
use e2e::view::{NodeLine, View};
use e2e::wait::until;
use e2e::workload::{self, Probe};
use e2e::{Config, Env};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::host_rig::Rig;

/// How long any step of a rollout may take, a fault in the middle of it included.
const STEP: Duration = Duration::from_secs(300);
/// How long a host stays in its firmware: long enough to be met there.
const FIRMWARE: &str = "5s";
/// So long is a node watched after its reboot: the state Verifying is met too.
const MIN_READY: u32 = 8;

/// A rollout over all hosts of a cluster.
pub(crate) struct Disturbed {
    pub(crate) rig: Rig,
    pool: BootcNodePool,
    probe: Probe,
    image: Image,
}

impl Disturbed {
    /// A cluster whose hosts run the first image, and a workload of which no
    /// pod may be missing for now: drains wait.
    pub(crate) async fn prepare(nodes: usize) -> Result<Self> {
        let config = Config {
            nodes,
            ..Config::default()
        };
        let rig = Rig::of(Env::new(config).await?);
        let env = &rig.env;
        workload::deploy(env).await?;
        workload::set_budget(env, workload::REPLICAS).await?;
        let image = env.booted(&env.nodes[0]).await?;
        let pool = env.pool("hosts", &image).await?;
        let patient = json!({ "spec": { "rollout": { "minReadySeconds": MIN_READY } } });
        Api::<BootcNodePool>::all(env.client.clone())
            .patch("hosts", &PatchParams::default(), &Patch::Merge(patient))
            .await?;
        for node in &env.nodes {
            env.bink.bed(["boot-delay", node, FIRMWARE]).await?;
        }
        let disturbed = Self {
            probe: Probe::start(env),
            pool,
            image,
            rig,
        };
        disturbed.all_on_image().await?;
        Ok(disturbed)
    }

    /// Wants an image of this version on all hosts.
    pub(crate) async fn begin(&mut self, version: &str) -> Result<()> {
        self.image = self.rig.env.images.push_os(version).await?;
        self.rig.env.set_image(&self.pool, &self.image).await
    }

    /// Lets drains go on.
    pub(crate) async fn loosen(&self) -> Result<()> {
        workload::set_budget(&self.rig.env, workload::BUDGET).await
    }

    /// Waits until a node is in this state; answers its name.
    pub(crate) async fn reached(&self, state: &str) -> Result<String> {
        let what = format!("a node is {state}");
        let node = self.find(&what, |node| node.state == state).await?;
        Ok(node.name)
    }

    /// Waits until a node is like this.
    pub(crate) async fn find(
        &self,
        what: &str,
        is: impl Fn(&NodeLine) -> bool,
    ) -> Result<NodeLine> {
        until(what, STEP, async || {
            let view = View::of(&self.rig.env.client, &self.pool.name_any()).await?;
            let found = view.nodes.iter().find(|node| is(node)).cloned();
            Ok(found.ok_or_else(|| format!("{:?}", view.nodes)))
        })
        .await
    }

    /// Waits until a host that had not rebooted before is down, between its
    /// system's end and the next one's start; answers its name.
    pub(crate) async fn down(&self) -> Result<String> {
        let mut before = Vec::new();
        for node in &self.rig.env.nodes {
            before.push((node, self.rig.boots(node).await?.len()));
        }
        until("a host goes down", STEP, async || {
            for (node, boots) in &before {
                if self.rig.boots(node).await?.len() > *boots {
                    return Ok(Ok((*node).clone()));
                }
            }
            Ok(Err("none did".to_owned()))
        })
        .await
    }

    /// Waits for the end of the rollout, and judges it.
    pub(crate) async fn end(self) -> Result<()> {
        self.all_on_image().await?;
        let seen = self.probe.stop().await?;
        eprint!("{seen}");
        ensure!(
            seen.within_budget(),
            "the budget was broken: {seen}{}",
            seen.story()
        );
        for node in &self.rig.env.nodes {
            self.rig.boots_were(node, &["reboot"]).await?;
            ensure!(
                self.rig.env.booted(node).await? == self.image,
                "{node} does not run the new image"
            );
        }
        Ok(())
    }

    async fn all_on_image(&self) -> Result<()> {
        let what = format!("all hosts run {}", self.image.digest);
        until(&what, STEP, async || {
            let view = View::of(&self.rig.env.client, &self.pool.name_any()).await?;
            let all = view.all_on(&self.image.digest)
                && view.nodes.len() == self.rig.env.nodes.len()
                && view.degraded.is_none();
            Ok(if all {
                Ok(())
            } else {
                Err(format!("{} {:?}", view.up_to_date, view.nodes))
            })
        })
        .await
    }
}
