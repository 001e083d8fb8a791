//! What the tests on single hosts share: a pool for each host, its faults, its
//! boots, and what its agent says.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crd::names::{ANNOTATION_IN_REBOOT_SLOT, NAMESPACE_AGENT, condition, node_reason};
use crd::{BootcNode, BootcNodePool};
use e2e::images::Image;
use e2e::view;
use e2e::wait::until;
use e2e::{Config, Env};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

/// How long an update of one host may take, back-offs and a second boot included.
pub(crate) const UPDATE: Duration = Duration::from_secs(240);
/// How long anything may take that needs no reboot.
pub(crate) const SOON: Duration = Duration::from_secs(90);

/// A cluster in which each host is a pool of its own.
pub(crate) struct Rig {
    pub(crate) env: Env,
}

/// What is known of a host at one moment.
pub(crate) struct Seen {
    pub(crate) bn: BootcNode,
    pub(crate) node: Node,
}

impl Rig {
    /// Starts hosts whose agents have nothing to do yet.
    pub(crate) async fn new(nodes: usize) -> Result<Self> {
        let config = Config {
            nodes,
            ..Config::default()
        };
        Ok(Self::of(Env::new(config).await?))
    }

    /// The same with a cluster that is there.
    pub(crate) fn of(env: Env) -> Self {
        Self { env }
    }

    /// Makes a pool of this host alone, on the image that it runs, and waits
    /// until its agent has said so.
    pub(crate) async fn pool(&self, node: &str) -> Result<BootcNodePool> {
        let image = self.env.booted(node).await?;
        let pool = self.pool_of(node, &image.reference(), None).await?;
        self.updated(node, &image).await?;
        Ok(pool)
    }

    /// The same for any image, perhaps with a pull secret.
    pub(crate) async fn pool_of(
        &self,
        node: &str,
        reference: &str,
        secret: Option<&str>,
    ) -> Result<BootcNodePool> {
        let secret =
            secret.map(|name| json!({ "name": name, "namespace": crd::names::NAMESPACE_OPERATOR }));
        let pool = serde_json::from_value(json!({
            "metadata": { "name": format!("only-{node}") },
            "spec": {
                "nodeSelector": { "matchLabels": { "kubernetes.io/hostname": node } },
                "image": { "ref": reference },
                "pullSecretRef": secret,
            },
        }))?;
        let pools = Api::<BootcNodePool>::all(self.env.client.clone());
        Ok(pools.create(&PostParams::default(), &pool).await?)
    }

    /// Changes the image of a host's pool.
    pub(crate) async fn set(&self, node: &str, image: &Image) -> Result<()> {
        let pools = Api::<BootcNodePool>::all(self.env.client.clone());
        let pool = pools.get(&format!("only-{node}")).await?;
        self.env.set_image(&pool, image).await
    }

    /// Changes anything of a host's pool.
    pub(crate) async fn patch(&self, node: &str, patch: Value) -> Result<()> {
        Api::<BootcNodePool>::all(self.env.client.clone())
            .patch(
                &format!("only-{node}"),
                &PatchParams::default(),
                &Patch::Merge(patch),
            )
            .await?;
        Ok(())
    }

    /// Runs a command on a host, which must succeed.
    pub(crate) async fn on(&self, node: &str, command: &str) -> Result<String> {
        let said = self.env.bink.ssh(node, command).await?;
        ensure!(
            said.code == 0,
            "`{command}` on {node} ended with {}: {}",
            said.code,
            said.stderr
        );
        Ok(said.stdout)
    }

    /// Tells a host's bootc how to misbehave, from its next command on.
    pub(crate) async fn faults(&self, node: &str, faults: Value) -> Result<()> {
        let command = format!(
            "mkdir -p /var/lib/bed && printf %s '{faults}' > /var/lib/bed/faults.new && mv /var/lib/bed/faults.new /var/lib/bed/faults.json"
        );
        self.on(node, &command).await.map(drop)
    }

    /// How each boot of a host ended, the oldest first; `None` runs.
    pub(crate) async fn boots(&self, node: &str) -> Result<Vec<Option<String>>> {
        let said = self.env.bink.bed(["boots", node]).await?;
        said.lines()
            .map(|line| {
                let boot: Value = serde_json::from_str(line)?;
                Ok(boot["end"].as_str().map(str::to_owned))
            })
            .collect()
    }

    /// Says how the boots of a host ended that have ended; the next must run.
    pub(crate) async fn boots_were(&self, node: &str, ends: &[&str]) -> Result<()> {
        let boots = self.boots(node).await?;
        let expected: Vec<Option<String>> = ends
            .iter()
            .map(|end| Some((*end).to_owned()))
            .chain([None])
            .collect();
        ensure!(boots == expected, "the boots of {node} ended by {boots:?}");
        Ok(())
    }

    /// What is known of a host now.
    pub(crate) async fn look(&self, node: &str) -> Result<Seen> {
        let client = &self.env.client;
        Ok(Seen {
            bn: Api::all(client.clone()).get(node).await?,
            node: Api::all(client.clone()).get(node).await?,
        })
    }

    /// Waits until a host is as `is` wants it.
    pub(crate) async fn when(
        &self,
        node: &str,
        what: &str,
        deadline: Duration,
        is: impl Fn(&Seen) -> bool,
    ) -> Result<Seen> {
        until(&format!("{node} {what}"), deadline, async || {
            let seen = self.look(node).await?;
            Ok(if is(&seen) {
                Ok(seen)
            } else {
                Err(seen.text())
            })
        })
        .await
    }

    /// Waits until a host runs an image and nothing is left of its update.
    pub(crate) async fn updated(&self, node: &str, image: &Image) -> Result<Seen> {
        self.when(
            node,
            &format!("runs {} and is done", image.digest),
            UPDATE,
            |seen| seen.is_done_on(&image.digest),
        )
        .await
    }

    /// Waits until a host's agent complains with these words.
    pub(crate) async fn degraded(&self, node: &str, reason: &str, words: &str) -> Result<Seen> {
        self.when(
            node,
            &format!("is Degraded by {reason} with `{words}`"),
            UPDATE,
            |seen| {
                let degraded = seen.condition(condition::DEGRADED);
                degraded == Some(("True".into(), reason.to_owned()))
                    && seen.message(condition::DEGRADED).contains(words)
            },
        )
        .await
    }

    /// Kills a host's agent without grace and waits for the next one.
    pub(crate) async fn kill_agent(&self, node: &str) -> Result<()> {
        let old = self
            .agent(node)
            .await?
            .context("there is no agent to kill")?;
        let pods = Api::<Pod>::namespaced(self.env.client.clone(), NAMESPACE_AGENT);
        pods.delete(&old.name_any(), &DeleteParams::default().grace_period(0))
            .await?;
        until(&format!("{node} has another agent"), SOON, async || {
            let agent = self.agent(node).await?;
            let runs = agent.as_ref().is_some_and(|pod| {
                let phase = pod
                    .status
                    .as_ref()
                    .and_then(|status| status.phase.as_deref());
                pod.uid() != old.uid() && phase == Some("Running")
            });
            Ok(if runs {
                Ok(())
            } else {
                Err("none runs".to_owned())
            })
        })
        .await
    }

    async fn agent(&self, node: &str) -> Result<Option<Pod>> {
        let pods = Api::<Pod>::namespaced(self.env.client.clone(), NAMESPACE_AGENT);
        let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let mut pods = pods.list(&on_node).await?.items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(pods.pop())
    }
}

impl Seen {
    /// Status and reason of a condition of the `BootcNode`.
    pub(crate) fn condition(&self, type_: &str) -> Option<(String, String)> {
        let status = self.bn.status.as_ref()?;
        let condition = view::condition(&status.conditions, type_)?;
        Some((condition.status.clone(), condition.reason.clone()))
    }

    /// Message of a condition of the `BootcNode`; empty without it.
    pub(crate) fn message(&self, type_: &str) -> String {
        let conditions = self.bn.status.as_ref().map(|status| &status.conditions);
        conditions
            .and_then(|all| view::condition(all, type_))
            .map(|condition| condition.message.clone())
            .unwrap_or_default()
    }

    /// Is the agent in this state?
    pub(crate) fn is(&self, reason: &str) -> bool {
        self.condition(condition::IDLE)
            .is_some_and(|(_, it)| it == reason)
    }

    /// Digest of what is staged.
    pub(crate) fn staged(&self) -> Option<&str> {
        let staged = self.bn.status.as_ref()?.staged.as_ref()?;
        Some(&staged.image_digest)
    }

    /// Does the node hold a reboot slot?
    pub(crate) fn holds_slot(&self) -> bool {
        self.bn
            .annotations()
            .contains_key(ANNOTATION_IN_REBOOT_SLOT)
    }

    /// Is the node cordoned?
    pub(crate) fn is_cordoned(&self) -> bool {
        let spec = self.node.spec.as_ref();
        spec.and_then(|spec| spec.unschedulable) == Some(true)
    }

    /// Reason of the condition Degraded; empty without it.
    pub(crate) fn reason_of_degraded(&self) -> String {
        self.condition(condition::DEGRADED)
            .map(|(_, reason)| reason)
            .unwrap_or_default()
    }

    /// Is the Node Ready?
    pub(crate) fn is_ready(&self) -> bool {
        e2e::is_ready(&self.node)
    }

    /// The boot in which the agent's report was made, if the kubelet reports
    /// the same one.
    pub(crate) fn boot(&self) -> Option<String> {
        let boot = self.bn.status.as_ref()?.boot.clone()?;
        let info = self.node.status.as_ref()?.node_info.as_ref()?;
        boot.starts_with(&info.boot_id).then_some(boot)
    }

    fn is_done_on(&self, digest: &str) -> bool {
        let status = self.bn.status.as_ref();
        let booted = status.and_then(|status| status.booted.as_ref());
        booted.is_some_and(|booted| booted.matches(digest))
            && self.is(node_reason::IDLE)
            && self.condition(condition::DEGRADED)
                == Some(("False".into(), node_reason::HEALTHY.into()))
            && !self.holds_slot()
            && !self.is_cordoned()
    }

    fn text(&self) -> String {
        format!(
            "idle {:?} `{}`, degraded {:?} `{}`, slot {}, cordoned {}",
            self.condition(condition::IDLE),
            self.message(condition::IDLE),
            self.condition(condition::DEGRADED),
            self.message(condition::DEGRADED),
            self.holds_slot(),
            self.is_cordoned(),
        )
    }
}
