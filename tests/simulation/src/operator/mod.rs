//! The operator's shell around `fsm::Rollout`: what `operator` does with watches, lanes and drains,
//! done with the model's API server, one step at a time.

mod answers;
mod halts;
mod table;
mod writes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fsm::{
    Command, Config, Input, NodeName, PoolName, Rollout, Timestamp,
    command::{Effect, PoolWrite},
    input::{BlockedPod, DrainReport},
    view::{NodeView, PoolView, SecretRef, Waiting},
};

use self::{
    answers::Message,
    halts::Halts,
    table::{Table, same_bootc},
    writes::Lane,
};
use crate::{
    api::{BootcNode, Named as _, Stamp},
    cluster::Cluster,
};

/// A kind of object that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Nodes,
    BootcNodes,
    Pools,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Nodes, Self::BootcNodes, Self::Pools];
}

/// A drain under way.
#[derive(Clone, Debug)]
struct Draining {
    attempt: u32,
    told: bool,
}

/// One operator process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Operator {
    pub(crate) rollout: Rollout,
    nodes: Table<NodeName, NodeView>,
    bootc: Table<NodeName, BootcNode>,
    pools: Table<PoolName, PoolView>,
    synced: bool,
    inbox: VecDeque<Message>,
    lanes: BTreeMap<NodeName, Lane>,
    /// What is to be shown of a node once its lane has ended.
    shown_later: BTreeMap<NodeName, Waiting>,
    pool_writes: BTreeMap<PoolName, (u64, PoolWrite, Option<Stamp>)>,
    waiting_writes: BTreeMap<NodeName, (Waiting, Option<Stamp>)>,
    questions: Vec<(PoolName, String)>,
    secrets: BTreeMap<PoolName, SecretRef>,
    drains: BTreeMap<NodeName, Draining>,
    wake: Option<Timestamp>,
    /// The clock when it was last read, and the true time of that.
    clock: Option<(Timestamp, Timestamp)>,
    /// For how long it held up each pool.
    halts: Halts,
    /// `BootcNode`s that it has deleted, by UID.
    deleted: BTreeSet<String>,
    /// No leader any more: it hears nothing, and still writes.
    pub(crate) old: bool,
}

impl Operator {
    pub(crate) fn start() -> Self {
        Self {
            rollout: Rollout::new(Config::default()),
            ..Self::default()
        }
    }

    /// The time as this process has it: the wall clock, but never backwards.
    fn now(&mut self, cluster: &Cluster) -> Timestamp {
        let wall = Timestamp(cluster.now.0 + cluster.operator_clock);
        let told = match self.clock {
            None => wall,
            Some((last, at)) => wall.max(Timestamp(last.0 + cluster.now.since(at))),
        };
        self.clock = Some((told, cluster.now));
        told
    }

    /// When its timer rings, in true time.
    pub(crate) fn wakes(&self, cluster: &Cluster) -> Option<Timestamp> {
        let (mut last, at) = self.clock?;
        last = last.max(Timestamp(at.0 + cluster.operator_clock));
        Some(Timestamp(
            cluster.now.0 + self.wake?.since(Timestamp(last.0 + cluster.now.since(at))),
        ))
    }

    pub(crate) fn has_news(&self, kind: Kind, cluster: &Cluster) -> bool {
        let server = &cluster.server;
        match kind {
            Kind::Nodes => self.nodes.has_news(&server.nodes),
            Kind::BootcNodes => self.bootc.has_news(&server.bootc),
            Kind::Pools => self.pools.has_news(&server.pools),
        }
    }

    /// How many changes a watch has not told of yet.
    pub(crate) fn lags(&self, kind: Kind, cluster: &Cluster) -> usize {
        let server = &cluster.server;
        match kind {
            Kind::Nodes => self.nodes.lags(&server.nodes),
            Kind::BootcNodes => self.bootc.lags(&server.bootc),
            Kind::Pools => self.pools.lags(&server.pools),
        }
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.synced
    }

    /// The watch of a kind breaks; what comes next is a list.
    pub(crate) fn break_watch(&mut self, kind: Kind) {
        match kind {
            Kind::Nodes => self.nodes.relist = self.nodes.cursor.is_some(),
            Kind::BootcNodes => self.bootc.relist = self.bootc.cursor.is_some(),
            Kind::Pools => self.pools.relist = self.pools.cursor.is_some(),
        }
    }

    pub(crate) fn has_mail(&self) -> bool {
        !self.inbox.is_empty()
    }

    pub(crate) fn lanes(&self) -> impl Iterator<Item = &NodeName> {
        let ready = self.lanes.iter().filter(|(_, lane)| !lane.waits);
        ready.map(|(name, _)| name)
    }

    pub(crate) fn pool_writes(&self) -> impl Iterator<Item = &PoolName> {
        self.pool_writes.keys()
    }

    pub(crate) fn waiting_writes(&self) -> impl Iterator<Item = &NodeName> {
        self.waiting_writes.keys()
    }

    pub(crate) fn has_questions(&self) -> bool {
        !self.questions.is_empty()
    }

    /// Drains that can make a step.
    pub(crate) fn drains<'a>(&'a self, cluster: &'a Cluster) -> impl Iterator<Item = &'a NodeName> {
        self.drains
            .iter()
            .filter(|(name, drain)| {
                let host = cluster.hosts.get(*name);
                !drain.told || host.is_none_or(|host| !host.blocked || host.pods == 0)
            })
            .map(|(name, _)| name)
    }

    /// A watch tells the next change, or all in a list.
    pub(crate) fn watch(&mut self, kind: Kind, cluster: &mut Cluster) {
        let server = &cluster.server;
        let inputs: Vec<Input> = match kind {
            Kind::Nodes => {
                let news = self.nodes.next(&server.nodes, PartialEq::eq);
                news.into_iter().map(|it| self.node_input(it)).collect()
            }
            Kind::BootcNodes => {
                let news = self.bootc.next(&server.bootc, same_bootc);
                news.into_iter().map(|it| self.bootc_input(it)).collect()
            }
            Kind::Pools => {
                let news = self.pools.next(&server.pools, PartialEq::eq);
                news.into_iter().map(|it| self.pool_input(it)).collect()
            }
        };
        for input in inputs {
            self.feed(input, cluster);
        }
        let all = self.nodes.cursor.is_some() && self.bootc.cursor.is_some();
        if !self.synced && all && self.pools.cursor.is_some() {
            self.synced = true;
            self.feed(Input::Synced, cluster);
        }
    }

    fn node_input(&self, name: NodeName) -> Input {
        let view = self.nodes.get(&name).cloned();
        Input::Node(name, view)
    }

    fn bootc_input(&self, name: NodeName) -> Input {
        let view = self.bootc.get(&name).map(|node| node.view.clone());
        Input::BootcNode(name, view)
    }

    fn pool_input(&self, name: PoolName) -> Input {
        let view = self.pools.get(&name).cloned();
        Input::Pool(name, view)
    }

    fn feed(&mut self, input: Input, cluster: &mut Cluster) {
        let now = self.now(cluster);
        if let Input::Pool(pool, view) = &input {
            self.name_secret(pool, view.as_ref(), cluster);
        }
        cluster.say(|| format!("operator hears {}", crate::words::input(&input)));
        self.halts.pass(now);
        let commands = self.rollout.handle(now, input);
        cluster.guard.sums(&self.rollout, self.pools.known.keys());
        self.halts.look(&self.rollout, self.pools.known.keys());
        let (shown, rest): (Vec<_>, Vec<_>) = commands
            .into_iter()
            .partition(|command| matches!(command, Command::Waiting { .. }));
        for command in rest.into_iter().chain(shown) {
            self.obey(command, cluster);
        }
    }

    fn name_secret(&mut self, pool: &PoolName, view: Option<&PoolView>, cluster: &Cluster) {
        let Some(secret) = view.and_then(|view| view.spec.secret.clone()) else {
            self.secrets.remove(pool);
            return;
        };
        if self.secrets.get(pool) != Some(&secret) {
            self.secrets.insert(pool.clone(), secret.clone());
            let hash = cluster.secret.to_string();
            self.inbox
                .push_back(Message::Secret(pool.clone(), secret, hash));
        }
    }

    /// The content of the secrets changed.
    pub(crate) fn secret_changed(&mut self, cluster: &Cluster) {
        for (pool, secret) in &self.secrets {
            let hash = cluster.secret.to_string();
            self.inbox
                .push_back(Message::Secret(pool.clone(), secret.clone(), hash));
        }
    }

    fn obey(&mut self, command: Command, cluster: &mut Cluster) {
        match command {
            Command::Decide(decision) => {
                cluster.say(|| {
                    let names: Vec<_> = decision.effects.iter().map(crate::words::effect).collect();
                    format!("{}: #{} {}", decision.node, decision.id, names.join(", "))
                });
                self.judge(&decision, cluster);
                let node = self.nodes.stamp(&decision.node);
                let lane = Lane {
                    id: decision.id,
                    left: decision.effects.into(),
                    done: 0,
                    decided_on: node.as_ref().map(|stamp| stamp.version),
                    node,
                    bootc: self.bootc.stamp(&decision.node),
                    waits: false,
                };
                self.halts
                    .begin(&decision.node, &self.rollout, decision.pool.as_ref());
                self.lanes.insert(decision.node.clone(), lane);
                self.take_drains(&decision.node);
            }
            Command::Pool { pool, write, what } => {
                let stamp = self.pools.stamp(&pool);
                self.pool_writes.insert(pool, (write, what, stamp));
            }
            Command::Waiting { node, waiting } => self.show_waiting(node, waiting),
            Command::Resolve {
                pool, reference, ..
            } => self.questions.push((pool, reference)),
            Command::WakeAt(at) => self.wake = at,
            Command::Hop { node, hop, .. } => cluster.hop(&node, &hop),
            Command::Notice(notice) => cluster.notice(&notice),
        }
    }

    /// What it may decide, as far as it knows.
    fn judge(&self, decision: &fsm::command::Decision, cluster: &mut Cluster) {
        let (drained_for, halted_for) = self.halts.of_drain(&decision.node, &self.rollout);
        let facts = crate::guard::Knowledge {
            nodes: self
                .nodes
                .known
                .iter()
                .map(|(k, v)| (k, &*v.object))
                .collect(),
            // What it has deleted itself it knows before its watch tells.
            bootc: self
                .bootc
                .known
                .iter()
                .filter(|(_, known)| !self.deleted.contains(known.object.uid()))
                .map(|(name, known)| (name, &known.object.view))
                .collect(),
            pool: decision
                .pool
                .as_ref()
                .and_then(|pool| Some((pool, self.pools.get(pool)?))),
            granting: self.granting(),
            drained_for,
            halted_for,
        };
        cluster.guard.decision(decision, &facts, &mut cluster.marks);
    }

    /// Nodes whose lanes are about to give them a slot.
    fn granting(&self) -> BTreeSet<NodeName> {
        let grants = |effect: &Effect| match effect {
            Effect::Commit(write) | Effect::Create { write, .. } => write.in_reboot_slot,
            _ => false,
        };
        let lanes = self.lanes.iter();
        lanes
            .filter(|(_, lane)| lane.left.iter().any(grants))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn show_waiting(&mut self, node: NodeName, waiting: Waiting) {
        if self.lanes.contains_key(&node) {
            self.shown_later.insert(node, waiting);
        } else {
            let stamp = self.bootc.stamp(&node);
            self.waiting_writes.insert(node, (waiting, stamp));
        }
    }

    /// A registry answers.
    pub(crate) fn resolve(&mut self, cluster: &mut Cluster) {
        if self.questions.is_empty() {
            return;
        }
        let (pool, reference) = self.questions.remove(0);
        let result = cluster.ask_registry(&reference);
        self.inbox
            .push_back(Message::Resolved(pool, reference, result));
    }

    /// One pod goes, or the drain is done, or it says what it waits for.
    pub(crate) fn drain(&mut self, name: &NodeName, cluster: &mut Cluster) {
        let Some(drain) = self.drains.get_mut(name) else {
            return;
        };
        let attempt = drain.attempt;
        let Some(host) = cluster.hosts.get_mut(name) else {
            self.drains.remove(name);
            return;
        };
        let report = if host.pods == 0 {
            cluster.guard.drained(name);
            self.drains.remove(name);
            DrainReport::Done
        } else if host.blocked {
            drain.told = true;
            DrainReport::Pods(vec![BlockedPod {
                pod: "shop/a".into(),
                why: Some("PodDisruptionBudget shop/a allows 0 disruptions".into()),
            }])
        } else {
            host.pods -= 1;
            drain.told = false;
            let idle = !self.lanes.contains_key(name);
            let uncordoned = idle && self.nodes.get(name).is_some_and(|node| !node.cordoned);
            cluster.guard.evicted(name, uncordoned);
            return;
        };
        let node = name.clone();
        self.feed(
            Input::Drain {
                node,
                attempt,
                report,
            },
            cluster,
        );
    }

    pub(crate) fn tick(&mut self, cluster: &mut Cluster) {
        self.wake = None;
        self.feed(Input::Tick, cluster);
    }
}
