//! The operator's shell around `fsm::Rollout`: what `operator` does with watches, lanes and drains,
//! done with the model's API server, one step at a time.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use fsm::{
    Command, Config, Input, NodeName, PoolName, Rollout, Timestamp,
    command::{Effect, PoolWrite},
    input::{BlockedPod, DrainReport, Outcome},
    view::{BootcNodeView, NodeView, PoolView, SecretRef, Waiting},
};

use crate::{
    api::{BootcNode, Named, Origin, Request, Shelf, Stamp, Target, What},
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

/// An object as it is known.
#[derive(Clone, Debug)]
struct Known<T> {
    version: u64,
    object: Arc<T>,
    /// A write was refused since there is a newer version: tell of it even if its facts are equal.
    awaited: bool,
}

/// What one watch has told.
#[derive(Clone, Debug)]
struct Table<K, T> {
    known: BTreeMap<K, Known<T>>,
    /// Up to here the log was read; `None` before the first list.
    cursor: Option<usize>,
    /// The watch broke: it begins with a list.
    relist: bool,
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
            cursor: None,
            relist: false,
        }
    }
}

impl<K: Ord + Clone, T: Named> Table<K, T> {
    fn has_news(&self, shelf: &Shelf<K, T>) -> bool {
        self.relist || self.cursor.is_none_or(|cursor| cursor < shelf.log.len())
    }

    fn lags(&self, shelf: &Shelf<K, T>) -> usize {
        shelf.log.len().saturating_sub(self.cursor.unwrap_or(0))
    }

    /// The names of which there is news.
    fn next(&mut self, shelf: &Shelf<K, T>, same: fn(&T, &T) -> bool) -> Vec<K> {
        match self.cursor {
            Some(cursor) if !self.relist => {
                self.cursor = Some(cursor + 1);
                let Some(change) = shelf.log.get(cursor) else {
                    return Vec::new();
                };
                let known = self.known.get(&change.name);
                if known.is_some_and(|known| known.version >= change.version) {
                    return Vec::new();
                }
                let news = match &change.object {
                    Some(object) => self.put(&change.name, change.version, object.clone(), same),
                    None => self.known.remove(&change.name).is_some(),
                };
                news.then(|| change.name.clone()).into_iter().collect()
            }
            _ => self.list(shelf, same),
        }
    }

    fn list(&mut self, shelf: &Shelf<K, T>, same: fn(&T, &T) -> bool) -> Vec<K> {
        (self.cursor, self.relist) = (Some(shelf.log.len()), false);
        let mut news = Vec::new();
        for (name, stored) in &shelf.now {
            if self.put(name, stored.version, stored.object.clone(), same) {
                news.push(name.clone());
            }
        }
        let gone = |name: &&K| !shelf.now.contains_key(*name);
        let gone: Vec<K> = self.known.keys().filter(gone).cloned().collect();
        for name in gone {
            self.known.remove(&name);
            news.push(name);
        }
        news
    }

    fn put(&mut self, name: &K, version: u64, object: Arc<T>, same: fn(&T, &T) -> bool) -> bool {
        let known = self.known.get(name);
        let news = known.is_none_or(|known| known.awaited || !same(&known.object, &object));
        let known = Known {
            version,
            object,
            awaited: false,
        };
        self.known.insert(name.clone(), known);
        news
    }

    /// An object that a write of ours returned.
    fn answered(
        &mut self,
        name: &K,
        version: u64,
        object: Arc<T>,
        same: fn(&T, &T) -> bool,
    ) -> bool {
        let Some(known) = self.known.get(name) else {
            return false;
        };
        if known.object.uid() != object.uid() || known.version >= version {
            return false;
        }
        self.put(name, version, object, same)
    }

    /// After a conflict; says whether the newer version is here already.
    fn outdated(&mut self, name: &K, stale: &Stamp) -> bool {
        match self.known.get_mut(name) {
            Some(known) if known.version == stale.version => {
                known.awaited = true;
                false
            }
            Some(_) => true,
            None => false,
        }
    }

    fn stamp(&self, name: &K) -> Option<Stamp> {
        let known = self.known.get(name)?;
        Some(Stamp {
            uid: known.object.uid().to_owned(),
            version: known.version,
        })
    }

    fn get(&self, name: &K) -> Option<&T> {
        self.known.get(name).map(|known| &*known.object)
    }
}

/// A decision on its way.
#[derive(Clone, Debug)]
struct Lane {
    id: u64,
    left: VecDeque<Effect>,
    done: usize,
    node: Option<Stamp>,
    bootc: Option<Stamp>,
    /// The version of the Node that it was decided on.
    decided_on: Option<u64>,
    /// The shell has to take a drain's effect first.
    waits: bool,
}

/// What comes back to the deciding task.
#[derive(Clone, Debug)]
enum Message {
    Node(NodeName, u64, Arc<NodeView>),
    BootcNode(NodeName, u64, Arc<BootcNode>),
    Pool(PoolName, u64, Arc<PoolView>),
    Drain(NodeName),
    End(NodeName, Outcome, Option<(Target, Stamp)>),
    PoolDone(PoolName, u64, Outcome, Option<Stamp>),
    WaitingDone(NodeName, Outcome, Option<Stamp>),
    Secret(PoolName, SecretRef, String),
    Resolved(PoolName, String, Result<String, String>),
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
        let commands = self.rollout.handle(now, input);
        cluster.guard.sums(&self.rollout, self.pools.known.keys());
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
                .filter(|(name, known)| {
                    let now = cluster.server.bootc.get(name);
                    now.is_some_and(|now| now.uid() == known.object.uid())
                })
                .map(|(name, known)| (name, &known.object.view))
                .collect(),
            pool: decision
                .pool
                .as_ref()
                .and_then(|pool| Some((pool, self.pools.get(pool)?))),
            granting: self.granting(),
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

    /// A drain's effects are taken by the shell itself.
    fn take_drains(&mut self, name: &NodeName) {
        let Some(lane) = self.lanes.get_mut(name) else {
            return;
        };
        lane.waits = false;
        while let Some(effect) = lane.left.front() {
            match effect {
                Effect::CancelDrain => {
                    self.drains.remove(name);
                }
                Effect::StartDrain { attempt } => {
                    let drain = Draining {
                        attempt: *attempt,
                        told: false,
                    };
                    self.drains.insert(name.clone(), drain);
                }
                _ => break,
            }
            lane.left.pop_front();
            lane.done += 1;
        }
    }

    /// The next effect of a lane, or its end.
    pub(crate) fn advance(&mut self, name: &NodeName, cluster: &mut Cluster) {
        let Some(request) = self.next_request(name) else {
            self.inbox
                .push_back(Message::End(name.clone(), Outcome::Ok, None));
            if let Some(lane) = self.lanes.get_mut(name) {
                lane.waits = true;
            }
            return;
        };
        let outcome = match &request.stamp {
            None if !matches!(request.what, What::Effect(Effect::Create { .. })) => Outcome::Gone,
            _ => cluster.send(&request),
        };
        let Some(lane) = self.lanes.get_mut(name) else {
            return;
        };
        if outcome != Outcome::Ok {
            let stale = request.stamp.clone().map(|stamp| (request.target, stamp));
            lane.waits = true;
            self.inbox
                .push_back(Message::End(name.clone(), outcome, stale));
            return;
        }
        lane.done += 1;
        lane.left.pop_front();
        match &request.target {
            Target::Node(_) => {
                if let Some(stored) = cluster.server.nodes.now.get(name).cloned() {
                    lane.node = Some(Stamp {
                        uid: stored.object.uid.clone(),
                        version: stored.version,
                    });
                    let told = Message::Node(name.clone(), stored.version, stored.object);
                    self.inbox.push_back(told);
                }
            }
            _ if matches!(request.what, What::Effect(Effect::Commit(_))) => {
                if let Some(stored) = cluster.server.bootc.now.get(name).cloned() {
                    lane.bootc = Some(Stamp {
                        uid: stored.object.view.uid.clone(),
                        version: stored.version,
                    });
                    let told = Message::BootcNode(name.clone(), stored.version, stored.object);
                    self.inbox.push_back(told);
                }
            }
            _ => {}
        }
        let drains = |it: &Effect| matches!(it, Effect::CancelDrain | Effect::StartDrain { .. });
        if lane.left.front().is_some_and(drains) {
            lane.waits = true;
            self.inbox.push_back(Message::Drain(name.clone()));
        }
    }

    /// What a lane sends next.
    fn next_request(&self, name: &NodeName) -> Option<Request> {
        let lane = self.lanes.get(name)?;
        let effect = lane.left.front()?.clone();
        let on_node = matches!(
            effect,
            Effect::Uncordon
                | Effect::ForgetCordon
                | Effect::Unlabel
                | Effect::Label
                | Effect::Cordon { .. }
        );
        let (target, stamp) = if on_node {
            (Target::Node(name.clone()), lane.node.clone())
        } else {
            (Target::BootcNode(name.clone()), lane.bootc.clone())
        };
        Some(Request {
            target,
            what: What::Effect(effect),
            stamp,
            by: Origin {
                old: self.old,
                node: lane.decided_on,
            },
        })
    }

    /// What is on its way and may still arrive when this process is gone.
    pub(crate) fn in_the_air(&self) -> Vec<Request> {
        let mut all: Vec<Request> = Vec::new();
        let names: Vec<&NodeName> = self.lanes().collect();
        all.extend(names.into_iter().filter_map(|name| self.next_request(name)));
        all.retain(|it| {
            it.stamp.is_some() || matches!(it.what, What::Effect(Effect::Create { .. }))
        });
        all
    }

    pub(crate) fn is_busy(&self) -> bool {
        !self.lanes.is_empty()
    }

    /// A write beside the lanes; of an object that is not known any more nothing is sent.
    fn write(
        &self,
        target: Target,
        what: What,
        stamp: Option<Stamp>,
        cluster: &mut Cluster,
    ) -> Outcome {
        if stamp.is_none() {
            return Outcome::Gone;
        }
        cluster.send(&Request {
            target,
            what,
            stamp,
            by: Origin {
                old: self.old,
                ..Origin::default()
            },
        })
    }

    pub(crate) fn write_pool(&mut self, pool: &PoolName, cluster: &mut Cluster) {
        let Some((write, what, stamp)) = self.pool_writes.remove(pool) else {
            return;
        };
        let target = Target::Pool(pool.clone());
        let outcome = self.write(target, What::Pool(what), stamp.clone(), cluster);
        if outcome == Outcome::Ok
            && let Some(stored) = cluster.server.pools.now.get(pool).cloned()
        {
            let told = Message::Pool(pool.clone(), stored.version, stored.object);
            self.inbox.push_back(told);
        }
        self.inbox
            .push_back(Message::PoolDone(pool.clone(), write, outcome, stamp));
    }

    pub(crate) fn write_waiting(&mut self, node: &NodeName, cluster: &mut Cluster) {
        let Some((waiting, stamp)) = self.waiting_writes.remove(node) else {
            return;
        };
        let target = Target::BootcNode(node.clone());
        let outcome = self.write(target, What::Waiting(waiting), stamp.clone(), cluster);
        if outcome == Outcome::Ok
            && let Some(stored) = cluster.server.bootc.now.get(node).cloned()
        {
            let told = Message::BootcNode(node.clone(), stored.version, stored.object);
            self.inbox.push_back(told);
        }
        self.inbox
            .push_back(Message::WaitingDone(node.clone(), outcome, stamp));
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

    /// Takes the next message of those that came back.
    pub(crate) fn take(&mut self, cluster: &mut Cluster) {
        let Some(message) = self.inbox.pop_front() else {
            return;
        };
        match message {
            Message::Node(name, version, object) => {
                if self.nodes.answered(&name, version, object, PartialEq::eq) {
                    let input = self.node_input(name);
                    self.feed(input, cluster);
                }
            }
            Message::BootcNode(name, version, object) => {
                if self.bootc.answered(&name, version, object, same_bootc) {
                    let input = self.bootc_input(name);
                    self.feed(input, cluster);
                }
            }
            Message::Pool(name, version, object) => {
                if self.pools.answered(&name, version, object, PartialEq::eq) {
                    let input = self.pool_input(name);
                    self.feed(input, cluster);
                }
            }
            Message::Drain(name) => self.take_drains(&name),
            Message::End(name, outcome, stale) => self.end(name, outcome, stale, cluster),
            Message::PoolDone(pool, write, outcome, stamp) => {
                let stale = conflict(&outcome, Target::Pool(pool.clone()), stamp);
                let input = Input::PoolDone {
                    pool,
                    write,
                    outcome,
                };
                self.feed(input, cluster);
                self.tell_newer(stale, cluster);
            }
            Message::WaitingDone(node, outcome, stamp) => {
                let stale = conflict(&outcome, Target::BootcNode(node.clone()), stamp);
                self.feed(Input::WaitingDone { node, outcome }, cluster);
                self.tell_newer(stale, cluster);
            }
            Message::Secret(pool, secret, hash) => {
                let result = Ok(hash);
                let input = Input::Secret {
                    pool,
                    secret,
                    result,
                };
                self.feed(input, cluster);
            }
            Message::Resolved(pool, reference, result) => {
                let input = Input::Resolved {
                    pool,
                    reference,
                    result,
                };
                self.feed(input, cluster);
            }
        }
    }

    fn end(
        &mut self,
        name: NodeName,
        outcome: Outcome,
        stale: Option<(Target, Stamp)>,
        cluster: &mut Cluster,
    ) {
        let Some(lane) = self.lanes.remove(&name) else {
            return;
        };
        let shown = self.shown_later.remove(&name);
        let stale = stale.filter(|_| outcome == Outcome::Conflict);
        let input = Input::Done {
            node: name.clone(),
            decision: lane.id,
            done: lane.done,
            outcome,
        };
        self.feed(input, cluster);
        self.tell_newer(stale, cluster);
        if let Some(waiting) = shown {
            self.show_waiting(name, waiting);
        }
    }

    fn tell_newer(&mut self, stale: Option<(Target, Stamp)>, cluster: &mut Cluster) {
        let Some((target, stamp)) = stale else {
            return;
        };
        let input = match target {
            Target::Node(name) if self.nodes.outdated(&name, &stamp) => self.node_input(name),
            Target::BootcNode(name) if self.bootc.outdated(&name, &stamp) => self.bootc_input(name),
            Target::Pool(name) if self.pools.outdated(&name, &stamp) => self.pool_input(name),
            _ => return,
        };
        self.feed(input, cluster);
    }
}

fn conflict(outcome: &Outcome, target: Target, stamp: Option<Stamp>) -> Option<(Target, Stamp)> {
    let stamp = stamp.filter(|_| *outcome == Outcome::Conflict)?;
    Some((target, stamp))
}

fn same_bootc(a: &BootcNode, b: &BootcNode) -> bool {
    let (a, b): (&BootcNodeView, &BootcNodeView) = (&a.view, &b.view);
    a == b
}
