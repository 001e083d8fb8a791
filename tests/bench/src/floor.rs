//! The floor of a rollout: the same writes to the same objects, with the same fields, in the same
//! order for each node and with as many at once, and no logic at all. It is told when a host has done
//! its part, so it needs no watch either.
//!
//! Its requests are made by threads of a name of their own, so that their CPU time can be told from
//! that of the played hosts.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use fsm::{
    Image, NodeName, Record, State, Timestamp,
    command::{Effect, NodeWrite},
    node::{Approval, Slot},
    view::NodeSpec,
};
use kube::{
    Client,
    api::{ListParams, Patch, PatchParams},
    core::Request,
};
use operator::{
    apply::body::{self, Body, Kind},
    observe::Stamp,
};
use serde::Deserialize;
use tokio::{runtime::Handle, sync::Semaphore, task::JoinSet};

use crate::{
    cluster::{
        hosts::Hosts,
        nodes,
        wire::{self, Nothing, Object},
    },
    threads::Threads,
};

/// Writes under way at once, as in the operator.
const AT_ONCE: usize = 16;
/// What the threads that write are called.
pub(crate) const THREAD: &str = "floor";

/// The program without logic.
pub(crate) struct Floor {
    threads: Threads,
}

/// What one pass over all nodes shares.
struct Pass {
    threads: Handle,
    client: Client,
    of_nodes: Client,
    hosts: Arc<Hosts>,
    image: Image,
    before: Image,
    turns: Semaphore,
    slots: Semaphore,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Object<Nothing>>,
}

impl Floor {
    /// Has its threads, and writes as the user of this kubeconfig.
    pub(crate) async fn new(kubeconfig: String) -> Result<Self> {
        let threads = Threads::new(THREAD, kubeconfig).await?;
        Ok(Self { threads })
    }

    /// The UIDs and versions of all Nodes, in their order: what a rollout knows when it begins.
    pub(crate) async fn nodes(&self) -> Result<Vec<Stamp>> {
        let request = Request::new(wire::NODES).list_metadata(&ListParams::default())?;
        let list: List = self.threads.client.request(request).await?;
        let mut all: Vec<_> = list.items.into_iter().map(|node| node.metadata).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let stamp = |meta: wire::Meta| Stamp {
            uid: meta.uid,
            version: meta.resource_version,
        };
        Ok(all.into_iter().map(stamp).collect())
    }

    /// Brings all hosts from one image to another, so many of them in a slot at once.
    pub(crate) async fn roll_out(
        &self,
        hosts: &Arc<Hosts>,
        nodes: Vec<Stamp>,
        [before, image]: [&str; 2],
        slots: usize,
    ) -> Result<()> {
        let pass = Arc::new(Pass {
            threads: self.threads.handle()?,
            client: self.threads.client.clone(),
            of_nodes: self.threads.of_nodes.clone(),
            hosts: Arc::clone(hosts),
            image: Image::new(image).context("an image without digest")?,
            before: Image::new(before).context("an image without digest")?,
            turns: Semaphore::new(AT_ONCE),
            slots: Semaphore::new(slots),
        });
        let mut all = JoinSet::new();
        for (n, node) in nodes.into_iter().enumerate() {
            all.spawn(Arc::clone(&pass).node(n, node));
        }
        while let Some(done) = all.join_next().await {
            done??;
        }
        Ok(())
    }
}

/// One node on its way.
struct OneNode {
    n: usize,
    name: NodeName,
    node: Stamp,
    record: Record,
    spec: NodeSpec,
}

impl OneNode {
    fn take_slot(&mut self) {
        self.record.state = State::Cordoned;
        self.record.slot = Some(Slot {
            was_cordoned: false,
            since: now(),
        });
    }

    fn commit(&self) -> Effect {
        Effect::Commit(NodeWrite {
            spec: self.spec.clone(),
            record: Arc::new(self.record.clone()),
            in_reboot_slot: self.record.slot.is_some(),
            was_cordoned: self.record.slot.is_some().then_some(false),
            retry: None,
        })
    }
}

impl Pass {
    /// All writes of one node's update, in their order.
    async fn node(self: Arc<Self>, n: usize, node: Stamp) -> Result<()> {
        let mut one = self.begin(n, node);
        let image = self.image.as_str();
        self.write(&mut one, OneNode::commit).await?;
        self.hosts.until_staged(n, image).await?;
        let slot = self.slots.acquire().await?;
        one.take_slot();
        self.write(&mut one, OneNode::commit).await?;
        let by = nodes::POOL.into();
        self.write(&mut one, |_| Effect::Cordon { by }).await?;
        self.approve(&mut one)?;
        self.write(&mut one, OneNode::commit).await?;
        self.hosts.until_runs(n, image).await?;
        one.node.version = self.hosts.node_version(n)?.to_string();
        self.write(&mut one, |_| Effect::Uncordon).await?;
        one.record.state = State::Idle;
        one.record.slot = None;
        self.write(&mut one, OneNode::commit).await?;
        drop(slot);
        Ok(())
    }

    fn begin(&self, n: usize, node: Stamp) -> OneNode {
        let now = now();
        OneNode {
            n,
            name: nodes::name(n).into(),
            record: Record {
                state: State::Staging,
                since: now,
                clock: now,
                written: now,
                image: Some(self.image.clone()),
                node_uid: node.uid.clone(),
                ..Record::default()
            },
            spec: NodeSpec {
                image: Some(self.image.clone()),
                ..NodeSpec::default()
            },
            node,
        }
    }

    fn approve(&self, one: &mut OneNode) -> Result<()> {
        let boot = self.hosts.boot(one.n)?;
        one.record.state = State::Rebooting;
        one.record.attempt = 1;
        one.record.approval = Some(Approval {
            boot: Some(boot.clone()),
            before: Some(self.before.digest().to_owned()),
            at: now(),
        });
        one.spec.booted = true;
        one.spec.approved_boot = Some(boot);
        Ok(())
    }

    /// One write, when it is its turn.
    async fn write(
        self: &Arc<Self>,
        one: &mut OneNode,
        effect: impl FnOnce(&OneNode) -> Effect,
    ) -> Result<()> {
        let effect = effect(one);
        let kind = body::kind(&effect).context("no write")?;
        let stamp = match kind {
            Kind::Node => one.node.clone(),
            Kind::BootcNode => {
                let (uid, version) = self.hosts.bootc_node(one.n)?;
                let version = version.to_string();
                Stamp { uid, version }
            }
        };
        let (this, name) = (Arc::clone(self), one.name.clone());
        let sent = self
            .threads
            .spawn(async move { this.send(&name, kind, &effect, &stamp).await });
        let written = sent.await??;
        match kind {
            Kind::Node => one.node.version = written.resource_version,
            Kind::BootcNode => self.hosts.written(one.n, written.version())?,
        }
        Ok(())
    }

    async fn send(
        &self,
        name: &NodeName,
        kind: Kind,
        effect: &Effect,
        stamp: &Stamp,
    ) -> Result<wire::Meta> {
        let _turn = self.turns.acquire().await?;
        let patch = match body::body(name, effect, Some(stamp)) {
            Some(Body::Merge(patch)) => Patch::Merge(patch),
            Some(Body::Strategic(patch)) => Patch::Strategic(patch),
            other => anyhow::bail!("no patch: {other:?}"),
        };
        let (client, of_kind) = match kind {
            Kind::Node => (&self.of_nodes, wire::NODES),
            Kind::BootcNode => (&self.client, wire::BOOTC_NODES),
        };
        let params = PatchParams {
            field_manager: Some(crd::names::FIELD_MANAGER_OPERATOR.to_owned()),
            ..PatchParams::default()
        };
        let request = Request::new(of_kind).patch(name.as_str(), &params, &patch)?;
        let object: Object<Nothing> = client.request(request).await?;
        Ok(object.metadata)
    }
}

fn now() -> Timestamp {
    Timestamp(k8s_openapi::jiff::Timestamp::now().as_millisecond())
}
