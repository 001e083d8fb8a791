//! A pool with nodes whose agents, kubelets and hosts are played, and a witness who looks whether
//! the guarantees hold while the operator works.

mod host;
mod played;
mod view;

use std::{
    ops::RangeBounds,
    sync::{Arc, PoisonError},
};

use anyhow::{Context as _, Result, ensure};
use crd::{BootcNode, BootcNodePool, names};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::watcher,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

pub use host::{Boot, Plan, Stage};
pub use view::View;

use crate::{Suite, hosts, kubelet::Kubelet, wait};
use played::Played;

/// The image that every host has booted at first.
pub const A: char = 'a';
/// Another image.
pub const B: char = 'b';
/// A third one.
pub const C: char = 'c';

/// Whose digest every image has on a host whose plan says so.
const PLATFORM: char = 'f';

/// Label of the nodes of a fleet, and of its pools; its value is the fleet's name.
pub const LABEL: &str = "test.bootc.dev/fleet";

/// A digest of one repeated hex digit.
#[must_use]
pub fn digest(image: char) -> String {
    format!("sha256:{}", image.to_string().repeat(64))
}

/// A reference to that digest.
#[must_use]
pub fn reference(image: char) -> String {
    format!("registry.test/os@{}", digest(image))
}

/// A pool, its nodes and what plays them.
pub struct Fleet {
    suite: Arc<Suite>,
    name: String,
    /// What its Nodes and `BootcNode`s are listed by.
    listed: ListParams,
    played: Arc<Played>,
    _players: JoinSet<()>,
    _kubelets: Vec<Kubelet>,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_tuple("Fleet").field(&self.name).finish()
    }
}

impl Fleet {
    /// Nodes `NAME-1` to `NAME-N`, booted on [`A`], each with a pod to be drained, without a pool.
    pub async fn new(suite: &Arc<Suite>, name: &str, size: usize) -> Result<Self> {
        Self::listed_by(suite, name, size, ListParams::default()).await
    }

    /// The same for one whose Nodes keep their label and whose `BootcNode`s have it too: then nothing
    /// is seen of other fleets, which is cheaper where there are many.
    pub async fn apart(suite: &Arc<Suite>, name: &str, size: usize) -> Result<Self> {
        let label = ListParams::default().labels(&format!("{LABEL}={name}"));
        Self::listed_by(suite, name, size, label).await
    }

    async fn listed_by(
        suite: &Arc<Suite>,
        name: &str,
        size: usize,
        listed: ListParams,
    ) -> Result<Self> {
        let names: Vec<_> = (1..=size).map(|n| format!("{name}-{n}")).collect();
        let seen = watcher::Config {
            label_selector: listed.label_selector.clone(),
            ..watcher::Config::default()
        };
        let played = Played::new(suite.admin.clone(), name, &names, seen);
        let played = Arc::new(played);
        let mut players = JoinSet::new();
        players.spawn(Arc::clone(&played).agents());
        let kubelet = |name: &String| Kubelet::start(suite.admin.clone(), name);
        let fleet = Self {
            suite: Arc::clone(suite),
            name: name.to_owned(),
            listed,
            played,
            _players: players,
            _kubelets: names.iter().map(kubelet).collect(),
        };
        fleet.namespace().await?;
        for n in 1..=size {
            fleet.add_node(n).await?;
        }
        Ok(fleet)
    }

    /// The Node of host `n`, new or again, with a pod to be drained.
    pub async fn add_node(&self, n: usize) -> Result<()> {
        let name = self.node(n);
        hosts::node(&self.suite.admin, &name, json!({ LABEL: self.name })).await?;
        self.workload(&name, json!({})).await
    }

    /// The same with a pool of that name on [`A`], `rollout` being its `spec.rollout`, once the
    /// operator says that all nodes are updated.
    pub async fn settled(
        suite: &Arc<Suite>,
        name: &str,
        size: usize,
        rollout: Value,
    ) -> Result<Self> {
        let fleet = Self::new(suite, name, size).await?;
        fleet.create_pool(name, rollout).await?;
        fleet.until_updated(A).await?;
        Ok(fleet)
    }

    async fn namespace(&self) -> Result<()> {
        let namespace: Namespace =
            serde_json::from_value(json!({ "metadata": { "name": self.name } }))?;
        let api = Api::all(self.client());
        api.create(&PostParams::default(), &namespace).await?;
        Ok(())
    }

    /// A client of an admin.
    #[must_use]
    pub fn client(&self) -> Client {
        self.suite.admin.clone()
    }

    /// The name of node `n`, from 1.
    #[must_use]
    pub fn node(&self, n: usize) -> String {
        format!("{}-{n}", self.name)
    }

    /// A pod on a node, which a drain has to evict; `labels` are the pod's.
    pub async fn workload(&self, node: &str, labels: Value) -> Result<()> {
        self.pod(node, json!({ "metadata": { "labels": labels } }))
            .await
    }

    /// A pod on a node, with `change` merged over it.
    pub async fn pod(&self, node: &str, change: Value) -> Result<()> {
        let pods = Api::<Pod>::namespaced(self.client(), &self.name);
        let mut pod = json!({
            "metadata": { "generateName": "web-" },
            "spec": { "nodeName": node, "containers": [{ "name": "web", "image": "none" }] },
        });
        hosts::merge(&mut pod, change);
        let pod: Pod = serde_json::from_value(pod)?;
        wait::until("a pod can be made", || async {
            pods.create(&PostParams::default(), &pod).await
        })
        .await?;
        Ok(())
    }

    /// A pool named `pool` that selects the fleet's nodes and wants [`A`].
    pub async fn create_pool(&self, pool: &str, rollout: Value) -> Result<()> {
        self.create_pool_of(pool, A, rollout).await
    }

    /// The same for any image.
    pub async fn create_pool_of(&self, pool: &str, image: char, rollout: Value) -> Result<()> {
        let pool: BootcNodePool = serde_json::from_value(json!({
            "apiVersion": "node.bootc.dev/v1alpha1", "kind": "BootcNodePool",
            "metadata": { "name": pool, "labels": { LABEL: self.name } },
            "spec": {
                "image": { "ref": reference(image) },
                "nodeSelector": { "matchLabels": { LABEL: self.name } },
                "rollout": rollout,
            },
        }))?;
        let api = Api::all(self.client());
        api.create(&PostParams::default(), &pool).await?;
        Ok(())
    }

    /// Changes the pool's spec.
    pub async fn spec(&self, spec: Value) -> Result<()> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        let pools = Api::<BootcNodePool>::all(self.client());
        pools
            .patch(&self.name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// Changes the pool's image.
    pub async fn want(&self, image: char) -> Result<()> {
        self.spec(json!({ "image": { "ref": reference(image) } }))
            .await
    }

    /// Wants another image, and holds the rollout until every node has staged it: slots are given
    /// in the order in which nodes are staged, and by name only among those that are.
    pub async fn want_staged(&self, image: char) -> Result<()> {
        self.pause(true).await?;
        self.want(image).await?;
        self.until("every node is staged", |view| {
            let staged = view.states().iter().all(|state| state == "Staged");
            ensure!(staged && view.is_wanted(&reference(image)), "{view}");
            Ok(())
        })
        .await?;
        self.pause(false).await
    }

    /// Changes a Node.
    pub async fn patch_node(&self, n: usize, patch: Value) -> Result<()> {
        let nodes = Api::<Node>::all(self.client());
        let patch = Patch::Merge(patch);
        nodes
            .patch(&self.node(n), &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// Cordons or uncordons a node as an admin does.
    pub async fn cordon(&self, n: usize, unschedulable: bool) -> Result<()> {
        let spec = json!({ "spec": { "unschedulable": unschedulable.then_some(true) } });
        self.patch_node(n, spec).await
    }

    /// Makes a node Ready or not. In which boot it is its host says: that may be on its way.
    pub async fn node_ready(&self, n: usize, is_ready: bool) -> Result<()> {
        let mut status = hosts::ready(if is_ready { "True" } else { "False" }, "");
        if let Some(status) = status["status"].as_object_mut() {
            status.remove("nodeInfo");
        }
        self.node_status(n, status).await
    }

    async fn node_status(&self, n: usize, status: Value) -> Result<()> {
        let nodes = Api::<Node>::all(self.client());
        let (params, patch) = (PatchParams::default(), Patch::Merge(status));
        nodes.patch_status(&self.node(n), &params, &patch).await?;
        Ok(())
    }

    /// Takes a node out of the fleet by its label.
    pub async fn take_out(&self, n: usize) -> Result<()> {
        self.patch_node(n, json!({ "metadata": { "labels": { LABEL: null } } }))
            .await
    }

    /// Takes a node into the fleet again.
    pub async fn take_in(&self, n: usize) -> Result<()> {
        self.patch_node(n, json!({ "metadata": { "labels": { LABEL: self.name } } }))
            .await
    }

    /// Changes what host `n` will do.
    pub fn plan(&self, n: usize, change: impl FnOnce(&mut Plan)) {
        self.played.plan(&self.node(n), change);
    }

    /// Host `n` boots in this way once, and as it should after that.
    pub fn plan_once(&self, n: usize, boot: Boot) {
        self.plan(n, |plan| (plan.boot, plan.once) = (boot, true));
    }

    /// Asks for another try of these nodes, as a person does.
    pub async fn retry(&self, nodes: &[usize]) -> Result<()> {
        let names: Vec<_> = nodes.iter().map(|n| self.node(*n)).collect();
        let at = k8s_openapi::jiff::Timestamp::now();
        let note = json!({ names::ANNOTATION_RETRY: format!("{}@{at:.3}", names.join(",")) });
        let patch = Patch::Merge(json!({ "metadata": { "annotations": note } }));
        let pools = Api::<BootcNodePool>::all(self.client());
        pools
            .patch(&self.name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// Changes what every host will do.
    pub fn plan_all(&self, change: impl Fn(&mut Plan)) {
        self.played.plan_all(change);
    }

    /// Somebody on host `n` boots this image, as `bootc rollback` and a reboot would.
    pub async fn boot_into(&self, n: usize, image: char) -> Result<()> {
        let name = self.node(n);
        self.played.boot_into(&name, &reference(image));
        let status = hosts::ready("True", &self.played.boot(&name));
        self.node_status(n, status).await
    }

    /// Somebody on host `n` drops the staged image; its plan says what the agent does about that.
    pub fn unstage(&self, n: usize) {
        self.played.unstage(&self.node(n));
    }

    /// Every version of the `BootcNode` of node `n` so far, in order.
    #[must_use]
    pub fn history(&self, n: usize) -> Vec<BootcNode> {
        self.played.history(&self.node(n))
    }

    /// How often each host rebooted, in their order.
    #[must_use]
    pub fn reboots(&self) -> Vec<u32> {
        self.played.reboots()
    }

    /// The most nodes that held a slot at once.
    #[must_use]
    pub fn most_slots(&self) -> usize {
        self.played
            .most_slots
            .load(std::sync::atomic::Ordering::Acquire)
    }

    /// Everything as it is now; the pool first, so that whatever it claims must be seen on the
    /// nodes already.
    pub async fn view(&self) -> Result<View> {
        let pool = Api::<BootcNodePool>::all(self.client())
            .get_opt(&self.name)
            .await?;
        let nodes = Api::<Node>::all(self.client()).list(&self.listed).await?;
        let bootc = Api::<BootcNode>::all(self.client())
            .list(&self.listed)
            .await?;
        Ok(View::new(
            pool,
            self.played.names(),
            nodes.items,
            bootc.items,
        ))
    }

    /// The nodes alone, where the kinds of the API may be gone.
    pub async fn nodes(&self) -> Result<View> {
        let nodes = Api::<Node>::all(self.client());
        let nodes = nodes.list(&ListParams::default()).await?;
        Ok(View::new(
            None,
            self.played.names(),
            nodes.items,
            Vec::new(),
        ))
    }

    /// Waits until `holds` has no complaint; answers what it saw then.
    pub async fn until(&self, what: &str, holds: impl Fn(&View) -> Result<()>) -> Result<View> {
        wait::until(what, || async {
            self.suite.operator.check().await?;
            let view = self.view().await?;
            holds(&view).map(|()| view)
        })
        .await
        .with_context(|| format!("fleet {}", self.name))
    }

    /// Waits until the agents say that they are in these states, in the nodes' order.
    pub async fn until_states(&self, states: &[&str]) -> Result<View> {
        self.until(&format!("the nodes are {states:?}"), |view| {
            ensure!(view.states() == states, "{view}");
            Ok(())
        })
        .await
    }

    /// Waits until every node is told to run the image.
    pub async fn until_told(&self, image: char) -> Result<View> {
        self.until("all nodes are told of the image", |view| {
            ensure!(view.is_wanted(&reference(image)), "{view}");
            Ok(())
        })
        .await
    }

    /// Pauses the pool, or lets it go on.
    pub async fn pause(&self, paused: bool) -> Result<()> {
        self.spec(json!({ "rollout": { "paused": paused } })).await
    }

    /// Complains unless each host rebooted just so often.
    pub fn rebooted(&self, times: &[u32]) -> Result<()> {
        let reboots = self.reboots();
        ensure!(reboots == times, "reboots {reboots:?}, not {times:?}");
        Ok(())
    }

    /// Complains unless the most nodes that held a slot at once are so many.
    pub fn used_slots(&self, wanted: impl RangeBounds<usize> + std::fmt::Debug) -> Result<()> {
        let most = self.most_slots();
        ensure!(
            wanted.contains(&most),
            "{most} slots at once, not {wanted:?}"
        );
        Ok(())
    }

    /// Waits until every node runs the image and the pool says so.
    pub async fn until_updated(&self, image: char) -> Result<View> {
        self.until_runs(&digest(image)).await
    }

    /// The same by the image's digest. What the pool says must be so at that moment: nobody is
    /// cordoned any more.
    pub async fn until_runs(&self, digest: &str) -> Result<View> {
        let view = self
            .until("all nodes are updated", |view| {
                view.pool_is("UpToDate=True/AllUpdated")?;
                ensure!(view.deployed().as_deref() == Some(digest), "{view}");
                view.is_current()
            })
            .await?;
        ensure!(view.cordoned().is_empty(), "cordoned: {view}");
        ensure!(view.in_slot().is_empty(), "slots are held: {view}");
        self.check()?;
        Ok(view)
    }

    /// What the witness has to say so far.
    pub fn check(&self) -> Result<()> {
        let faults = self
            .played
            .faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        ensure!(faults.is_empty(), "broken guarantees: {faults:#?}");
        Ok(())
    }

    /// Deletes a pool and waits until nothing is left of it on the nodes.
    pub async fn delete_pool(&self) -> Result<View> {
        let pools = Api::<BootcNodePool>::all(self.client());
        // A connection that the API server closes meanwhile says nothing about the pool.
        wait::until("the pool can be deleted", || async {
            match pools.delete(&self.name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if !status.is_not_found() => {
                    Err(kube::Error::Api(status))
                }
                Err(error) if !matches!(error, kube::Error::Api(_)) => Err(error),
                _ => Ok(()),
            }
        })
        .await?;
        self.until("nothing is left of the pool", |view| {
            ensure!(view.pool.is_none(), "the pool is there: {view}");
            ensure!(view.bootc.is_empty(), "BootcNodes are there: {view}");
            ensure!(
                view.labelled(names::LABEL_MANAGED).is_empty(),
                "labels are there: {view}"
            );
            Ok(())
        })
        .await
    }

    /// Ends a test: the pool goes without a trace, and no guarantee was broken on the way.
    pub async fn finish(self) -> Result<()> {
        let view = wait::until("the fleet can be seen", || self.view()).await?;
        if view.pool.is_some() {
            self.delete_pool().await?;
        }
        for name in self.played.names() {
            let gone = || hosts::delete_node(&self.suite.admin, name);
            wait::until("the node can be deleted", gone).await?;
        }
        self.check()
    }
}
