//! A cluster without anything in it that is not measured: etcd and kube-apiserver of the bed with
//! `deploy/` installed, big Nodes, played hosts, and the operator as a process of its own.
//!
//! No controller runs, no scheduler and no kubelet. etcd does not wait for the disk.

pub(crate) mod counts;
mod host;
pub(crate) mod hosts;
pub(crate) mod nodes;
pub(crate) mod operator;
pub(crate) mod wire;

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use bed::{
    control_plane::{AuditEvent, Config, ControlPlane, Identity},
    paths,
};
use crd::{
    BootcNodePool,
    names::{LABEL_MANAGED, NAMESPACE_OPERATOR, SERVICE_ACCOUNT_OPERATOR},
};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{process::Command, time::sleep};

use hosts::Hosts;
use nodes::{LABEL, POOL};
use operator::{Extra, Operator};

/// Thousands of big Nodes, each of their versions kept until the next compaction.
const QUOTA: u64 = 16 << 30;
/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(200);
/// Notes who asked for what.
const AUDIT: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules: [{ level: Metadata }]
";

/// Requests under way at once where a cluster is made ready.
pub(crate) const AT_ONCE: usize = 16;

/// A control plane with `deploy/` installed. Dropped, it is gone.
pub(crate) struct Cluster {
    control_plane: ControlPlane,
    /// May do everything.
    pub(crate) admin: Client,
}

impl Cluster {
    /// Starts one.
    pub(crate) async fn start() -> Result<Self> {
        Self::start_with(None).await
    }

    /// The same with a log of all requests.
    pub(crate) async fn start_audited() -> Result<Self> {
        Self::start_with(Some(AUDIT.to_owned())).await
    }

    async fn start_with(audit_policy: Option<String>) -> Result<Self> {
        let control_plane = ControlPlane::start(Config {
            audit_policy,
            etcd_flags: vec![format!("--quota-backend-bytes={QUOTA}")],
            ..Config::default()
        })
        .await?;
        let cluster = Self {
            admin: control_plane.client().await?,
            control_plane,
        };
        cluster.install().await?;
        Ok(cluster)
    }

    async fn install(&self) -> Result<()> {
        let output = Command::new(paths::bin()?.join("kubectl"))
            .args(["apply", "-f"])
            .arg(paths::project().join("deploy/install.yaml"))
            .env("KUBECONFIG", self.control_plane.kubeconfig())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("cannot start kubectl")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl apply: {errors}");
        Ok(())
    }

    /// Who the operator is: the user of its service account, by certificate.
    fn operator_identity() -> Identity {
        let user = format!("system:serviceaccount:{NAMESPACE_OPERATOR}:{SERVICE_ACCOUNT_OPERATOR}");
        Identity::member(&user, "system:serviceaccounts")
    }

    /// A kubeconfig with the operator's rights, and its namespace.
    pub(crate) fn operator_kubeconfig(&self) -> Result<String> {
        let text = self
            .control_plane
            .kubeconfig_for(&Self::operator_identity())?;
        let mut config: Value = serde_json::from_str(&text)?;
        let context = config.pointer_mut("/contexts/0/context");
        context.context("a kubeconfig without context")?["namespace"] = NAMESPACE_OPERATOR.into();
        Ok(config.to_string())
    }

    /// Starts the operator and waits until it has the whole cluster in view.
    pub(crate) async fn operator(&self) -> Result<Operator> {
        self.operator_with(Extra::default()).await
    }

    /// The same with more flags and variables.
    pub(crate) async fn operator_with(&self, extra: Extra) -> Result<Operator> {
        let mut operator = self.spawn(extra)?;
        operator.until_synced().await?;
        Ok(operator)
    }

    /// Starts the operator.
    pub(crate) fn start_operator(&self) -> Result<Operator> {
        self.spawn(Extra::default())
    }

    fn spawn(&self, extra: Extra) -> Result<Operator> {
        let kubeconfig = self.operator_kubeconfig()?;
        Operator::start(self.control_plane.dir(), &kubeconfig, extra)
    }

    /// Nodes as big as real ones, a pool of them all on `image`, the operator, and hosts that play
    /// along, once everybody is settled.
    pub(crate) async fn settled(
        &self,
        size: usize,
        image: &str,
        rollout: Value,
    ) -> Result<(Operator, Hosts)> {
        nodes::create(&self.admin, size).await?;
        self.create_pool(image, rollout).await?;
        let hosts = Hosts::play(&self.admin, size, image);
        let mut operator = self.operator().await?;
        let settled = async {
            hosts.until_all_run(image).await?;
            self.until_all_managed().await
        };
        tokio::select! {
            done = settled => done?,
            ended = operator.ended() => return Err(ended),
        }
        Ok((operator, hosts))
    }

    /// The label is the last that a node gets: what is measured next should not find it missing.
    async fn until_all_managed(&self) -> Result<()> {
        let nodes = Api::<Node>::all(self.admin.clone());
        let without = format!("{LABEL}={POOL},!{LABEL_MANAGED}");
        let one = ListParams::default().labels(&without).limit(1);
        while !nodes.list_metadata(&one).await?.items.is_empty() {
            sleep(POLL).await;
        }
        Ok(())
    }

    async fn create_pool(&self, image: &str, rollout: Value) -> Result<()> {
        let pool: BootcNodePool = serde_json::from_value(json!({
            "apiVersion": "node.bootc.dev/v1alpha1", "kind": "BootcNodePool",
            "metadata": { "name": POOL },
            "spec": {
                "image": { "ref": image },
                "nodeSelector": { "matchLabels": { LABEL: POOL } },
                "rollout": rollout,
            },
        }))?;
        Api::all(self.admin.clone())
            .create(&PostParams::default(), &pool)
            .await?;
        Ok(())
    }

    /// Changes the pool's spec.
    pub(crate) async fn spec(&self, spec: Value) -> Result<()> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        let pools = Api::<BootcNodePool>::all(self.admin.clone());
        pools.patch(POOL, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// What the operator has asked for so far. A watch is noted when it ends.
    pub(crate) fn asked_by_operator(&self) -> Result<Vec<AuditEvent>> {
        let user = Self::operator_identity().user;
        let mut all = self.control_plane.audit()?;
        all.retain(|event| event.user.username == user);
        Ok(all)
    }
}

/// The `n`-th image of a run: a reference by digest.
pub(crate) fn image(n: usize) -> String {
    format!("registry.example.com/platform/os@sha256:{n:064x}")
}
