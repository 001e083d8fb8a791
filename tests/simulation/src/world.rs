//! The world: who can make a step, and what time it is.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use fsm::{
    NodeName, PoolName, Timestamp,
    host::{Can, Lock},
    time::Seconds,
    view::{Amount, ImageRef, NodeView, PoolSpec, PoolView},
};

use crate::{
    action::Setup,
    agent::Agent,
    api,
    cluster::Cluster,
    host::{Fate, Host, Power},
    marks::Mark,
    operator::{Kind, Operator},
};

/// When schedules begin.
pub(crate) const START: Timestamp = Timestamp(1_800_000_000_000);
/// After so many steps without a rest a schedule goes round in circles.
const MAX_STEPS: u32 = 60_000;

/// A cluster and all who act in it.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) agents: BTreeMap<NodeName, Agent>,
    pub(crate) operator: Operator,
    /// A deposed operator that goes on for so many steps.
    pub(crate) old: Option<(Operator, u8)>,
    /// Watches that tell nothing for now.
    pub(crate) stalled: BTreeSet<Kind>,
    /// Nodes that shall be cordoned when we are through with them.
    pub(crate) cordoned_by_others: BTreeSet<NodeName>,
    /// Of these nobody can tell.
    pub(crate) whose_cordon_is_unclear: BTreeSet<NodeName>,
    /// Seconds by which the operator's clock was set back in all.
    pub(crate) set_back: u32,
    rng: Rng,
    pub(crate) steps: u32,
}

/// Somebody's next step.
#[derive(Clone, Debug)]
enum Turn {
    Watch(bool, Kind),
    Mail(bool),
    Lane(bool, NodeName),
    PoolWrite(bool, PoolName),
    Waiting(bool, NodeName),
    Resolve,
    Drain(bool, NodeName),
    Tick,
    Late(usize),
    AgentStart(NodeName),
    AgentEnd(NodeName),
    AgentHears(NodeName),
    AgentWorks(NodeName),
    AgentWrites(NodeName),
    AgentWakes(NodeName),
    Pull(NodeName),
    Power(NodeName),
    Kubelet(NodeName),
    Collect(NodeName),
}

impl World {
    pub(crate) fn new(setup: &Setup, verbose: bool) -> Self {
        let mut cluster = Cluster {
            now: START,
            log: verbose.then(Vec::new),
            secret: 1,
            ..Cluster::default()
        };
        for tag in 0..2u8 {
            cluster.move_tag(&tag_name(tag), "sha256:1");
        }
        let mut world = Self {
            cluster,
            agents: BTreeMap::new(),
            operator: Operator::start(),
            old: None,
            stalled: BTreeSet::new(),
            cordoned_by_others: BTreeSet::new(),
            whose_cordon_is_unclear: BTreeSet::new(),
            set_back: 0,
            rng: Rng::with_seed(0),
            steps: 0,
        };
        world.add_pool(&pool_name(0), setup.slots);
        if setup.two_pools {
            world.add_pool(&pool_name(1), setup.slots);
        }
        for n in 0..setup.nodes {
            let pool = pool_name(u8::from(setup.two_pools && n % 2 == 1));
            world.add_node(n, &pool, setup);
        }
        world
    }

    pub(crate) fn add_pool(&mut self, name: &PoolName, slots: u8) {
        let server = &mut self.cluster.server;
        let view = PoolView {
            uid: server.uid(),
            generation: 1,
            deleting: false,
            finalizer: false,
            spec: PoolSpec {
                max_unavailable: Amount::Count(slots.into()),
                ..PoolSpec::of(ImageRef::Pinned(api::image(1)))
            },
            retry: None,
            status: None,
        };
        server.put_pool(name, view);
    }

    fn add_node(&mut self, n: u8, pool: &PoolName, setup: &Setup) {
        let name = node_name(n);
        let can = Can {
            lock: if setup.able { Lock::TwoSteps } else { Lock::No },
            unstage: setup.able,
            soft_reboot: setup.able && setup.soft,
            progress: false,
        };
        let host = Host::new(&name, api::image(1).as_str(), can, START);
        let uid = self.cluster.server.uid();
        let node = NodeView {
            uid,
            ready: Some(true),
            ready_since: Some(START),
            boot_id: Some(host.kernel()),
            control_plane: n < setup.control_plane,
            claims: [pool.clone()].into(),
            ..NodeView::default()
        };
        self.cluster.server.put_node(&name, node);
        self.cluster.hosts.insert(name, host);
        if setup.soft {
            self.cluster
                .server
                .edit_pool(pool, |pool| pool.spec.soft_reboot = true);
        }
    }

    pub(crate) fn broken(&self) -> bool {
        self.cluster.guard.broken.is_some()
    }

    /// Everybody goes on in an order drawn from a seed.
    pub(crate) fn go(&mut self, seed: u32, steps: u8) {
        self.rng = Rng::with_seed(seed.into());
        for _ in 0..steps {
            if self.broken() || !self.step() {
                return;
            }
        }
    }

    /// Time passes, and what is to be done in it is done.
    pub(crate) fn pass(&mut self, seconds: u32) {
        let end = self.cluster.now + Seconds(seconds);
        while !self.broken() && self.cluster.now < end {
            if self.step() {
                continue;
            }
            match self.next_wake().filter(|at| *at <= end) {
                Some(at) => self.cluster.now = at,
                None => self.cluster.now = end,
            }
        }
    }

    /// Goes on until nobody can make a step, and then to the next moment at which somebody can. False
    /// if that does not come, or everybody is busy for ever.
    pub(crate) fn goes_on(&mut self) -> bool {
        while !self.broken() && self.step() {
            if self.steps > MAX_STEPS {
                return false;
            }
        }
        match self.next_wake() {
            Some(at) => self.cluster.now = at,
            None => return self.broken(),
        }
        true
    }

    fn next_wake(&self) -> Option<Timestamp> {
        let now = self.cluster.now;
        let agents = self.agents.values().filter_map(|agent| agent.wakes(now));
        let powers = self
            .cluster
            .hosts
            .values()
            .filter_map(|host| match host.power {
                Power::Down { until } => Some(until),
                _ => None,
            });
        let operator = self.operator.wakes(&self.cluster);
        // A host that stays down for good is no reason to wait.
        let far = now + Seconds(500_000);
        agents
            .chain(powers)
            .chain(operator)
            .filter(|at| *at > now && *at < far)
            .min()
    }

    /// One step of somebody who can make one; false if nobody can.
    fn step(&mut self) -> bool {
        let mut turns = Vec::with_capacity(32);
        self.turns_of_operators(&mut turns);
        self.turns_of_hosts(&mut turns);
        if turns.is_empty() {
            return false;
        }
        self.steps += 1;
        let turn = turns.swap_remove(self.rng.usize(..turns.len()));
        self.cluster.now.0 += i64::from(self.rng.u16(1..300));
        self.take(turn);
        if let Some((_, left)) = &mut self.old {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.old = None;
            }
        }
        true
    }

    fn turns_of_operators(&self, turns: &mut Vec<Turn>) {
        let cluster = &self.cluster;
        for kind in Kind::ALL {
            if self.operator.has_news(kind, cluster) && !self.stalled.contains(&kind) {
                turns.push(Turn::Watch(false, kind));
            }
        }
        turns.extend(self.operator.has_questions().then_some(Turn::Resolve));
        let due = self
            .operator
            .wakes(cluster)
            .is_some_and(|at| at <= cluster.now);
        turns.extend(due.then_some(Turn::Tick));
        turns.extend((0..cluster.late.len()).map(Turn::Late));
        let all = [
            (false, Some(&self.operator)),
            (true, self.old.as_ref().map(|it| &it.0)),
        ];
        for (old, operator) in all {
            let Some(operator) = operator else { continue };
            if operator.has_mail() {
                turns.push(Turn::Mail(old));
            }
            turns.extend(operator.lanes().map(|it| Turn::Lane(old, it.clone())));
            turns.extend(
                operator
                    .pool_writes()
                    .map(|it| Turn::PoolWrite(old, it.clone())),
            );
            turns.extend(
                operator
                    .waiting_writes()
                    .map(|it| Turn::Waiting(old, it.clone())),
            );
            turns.extend(
                operator
                    .drains(cluster)
                    .map(|it| Turn::Drain(old, it.clone())),
            );
        }
    }

    fn turns_of_hosts(&self, turns: &mut Vec<Turn>) {
        let cluster = &self.cluster;
        for (name, host) in &cluster.hosts {
            let node = cluster.server.nodes.get(name);
            let labelled = node.is_some_and(|node| node.labelled);
            match self.agents.get(name) {
                Some(_) if !labelled => turns.push(Turn::AgentEnd(name.clone())),
                Some(agent) => self.turns_of_agent(name, host, agent, turns),
                None if labelled && !matches!(host.power, Power::Down { .. }) => {
                    turns.push(Turn::AgentStart(name.clone()));
                }
                None => {}
            }
            if host.pull.is_some() {
                turns.push(Turn::Pull(name.clone()));
            }
            let moves = match host.power {
                Power::Up => false,
                Power::Stopping { .. } => host.fate != Fate::Hangs,
                Power::Down { until } => until <= cluster.now,
            };
            if moves {
                turns.push(Turn::Power(name.clone()));
            }
            if node.is_some_and(|node| {
                node.ready != Some(is_ready(host))
                    || (is_ready(host) && node.boot_id.as_ref() != Some(&host.kernel()))
            }) {
                turns.push(Turn::Kubelet(name.clone()));
            }
        }
        for (name, stored) in &cluster.server.bootc.now {
            let owner = stored.object.view.owner.as_ref();
            let there = owner.is_some_and(|owner| {
                let pool = cluster.server.pools.get(&owner.pool);
                pool.is_some_and(|pool| pool.uid == owner.uid)
            });
            if !there {
                turns.push(Turn::Collect(name.clone()));
            }
        }
    }

    fn turns_of_agent(&self, name: &NodeName, host: &Host, agent: &Agent, turns: &mut Vec<Turn>) {
        let cluster = &self.cluster;
        if agent.has_news(cluster) {
            turns.push(Turn::AgentHears(name.clone()));
        }
        if agent.work.is_some() {
            turns.push(Turn::AgentWorks(name.clone()));
        }
        if agent.writing.is_some() {
            turns.push(Turn::AgentWrites(name.clone()));
        }
        if agent.is_due(cluster.now, host) {
            turns.push(Turn::AgentWakes(name.clone()));
        }
    }

    fn operator(&mut self, old: bool) -> (&mut Operator, &mut Cluster) {
        match &mut self.old {
            Some((operator, _)) if old => (operator, &mut self.cluster),
            _ => (&mut self.operator, &mut self.cluster),
        }
    }

    fn take(&mut self, turn: Turn) {
        match turn {
            Turn::Watch(old, kind) => {
                self.note_order(kind);
                let (operator, cluster) = self.operator(old);
                operator.watch(kind, cluster);
            }
            Turn::Mail(old) => {
                let (operator, cluster) = self.operator(old);
                operator.take(cluster);
            }
            Turn::Lane(old, name) => {
                let (operator, cluster) = self.operator(old);
                operator.advance(&name, cluster);
            }
            Turn::PoolWrite(old, name) => {
                let (operator, cluster) = self.operator(old);
                operator.write_pool(&name, cluster);
            }
            Turn::Waiting(old, name) => {
                let (operator, cluster) = self.operator(old);
                operator.write_waiting(&name, cluster);
            }
            Turn::Drain(old, name) => {
                let (operator, cluster) = self.operator(old);
                operator.drain(&name, cluster);
            }
            Turn::Resolve => self.operator.resolve(&mut self.cluster),
            Turn::Tick => self.operator.tick(&mut self.cluster),
            Turn::Late(at) => self.cluster.arrive_late(at),
            Turn::AgentStart(name) => {
                if let Some(host) = self.cluster.hosts.get(&name) {
                    let agent = Agent::start(host, self.cluster.now);
                    self.agents.insert(name, agent);
                }
            }
            Turn::AgentEnd(name) => {
                self.agents.remove(&name);
            }
            Turn::AgentHears(name) => self.agent(&name, Agent::hear),
            Turn::AgentWorks(name) => self.agent(&name, Agent::work_ends),
            Turn::AgentWrites(name) => self.agent(&name, Agent::written),
            Turn::AgentWakes(name) => self.agent(&name, Agent::wake),
            Turn::Pull(name) => self.pull(&name),
            Turn::Power(name) => self.power(&name),
            Turn::Kubelet(name) => self.kubelet(&name),
            Turn::Collect(name) => self.cluster.server.remove_bootc(&name),
        }
    }

    fn note_order(&mut self, kind: Kind) {
        let others = Kind::ALL.into_iter().filter(|it| *it != kind);
        let lag = |kind| self.operator.lags(kind, &self.cluster);
        if self.operator.is_synced() && others.map(lag).any(|lag| lag > 1) {
            self.cluster.marks.hit(Mark::WatchesReordered);
        }
    }

    fn agent(&mut self, name: &NodeName, step: fn(&mut Agent, &mut Cluster)) {
        if let Some(agent) = self.agents.get_mut(name) {
            step(agent, &mut self.cluster);
        }
    }

    fn pull(&mut self, name: &NodeName) {
        let Some(host) = self.cluster.hosts.get_mut(name) else {
            return;
        };
        let fails = host.bad_pulls > 0;
        host.pull_ends();
        if fails {
            self.cluster.marks.hit(Mark::PullFailed);
        }
    }

    /// A host goes down or comes up.
    fn power(&mut self, name: &NodeName) {
        let up = match self.cluster.hosts.get(name).map(|host| host.power) {
            Some(Power::Down { .. }) => true,
            Some(Power::Stopping { .. }) => false,
            Some(Power::Up) | None => return,
        };
        if up {
            let now = self.cluster.now;
            let cordoned = self
                .cluster
                .server
                .nodes
                .get(name)
                .is_none_or(|node| node.cordoned);
            if let Some(host) = self.cluster.hosts.get_mut(name) {
                host.come_up(now);
                host.pods = if cordoned { 0 } else { 2 };
            }
            self.cluster.say(|| format!("{name} comes up"));
        } else {
            self.go_down(name, true);
        }
    }

    pub(crate) fn go_down(&mut self, name: &NodeName, orderly: bool) {
        self.agents.remove(name);
        let Cluster {
            hosts, marks, now, ..
        } = &mut self.cluster;
        let Some(host) = hosts.get_mut(name) else {
            return;
        };
        let staged = host.staged.as_ref().filter(|it| orderly && !it.locked);
        let staged = staged.map(|it| it.disk.image.digest.clone());
        let fate = host.fate;
        host.go_down(orderly, *now);
        host.pods = 0;
        match (fate, &staged) {
            (Fate::FallsBack | Fate::FallsBackQueued, Some(_)) => marks.hit(Mark::FellBack),
            (Fate::Lost, Some(_)) => marks.hit(Mark::UpdateLost),
            (Fate::StaysDown, _) => marks.hit(Mark::StayedDown),
            _ => {}
        }
        let state = format!("{:?}", host.booted);
        if let (Fate::FallsBack | Fate::FallsBackQueued, Some(digest)) = (fate, staged) {
            self.cluster.fell_back(name, &digest);
        }
        self.cluster
            .say(|| format!("{name} goes down, orderly {orderly}; it will run {state}"));
    }

    /// The kubelet, or who watches it, says how the node is.
    fn kubelet(&mut self, name: &NodeName) {
        let Some(host) = self.cluster.hosts.get(name) else {
            return;
        };
        let (ready, boot) = (is_ready(host), host.kernel());
        // That it is silent is said by another machine.
        let at = if ready {
            host.clock(self.cluster.now)
        } else {
            self.cluster.now
        };
        self.cluster.server.edit_node(name, |node| {
            if node.ready != Some(ready) {
                (node.ready, node.ready_since) = (Some(ready), Some(at.whole_seconds()));
            }
            if ready {
                node.boot_id = Some(boot);
            }
        });
        self.cluster.say(|| format!("{name}: Ready {ready}"));
    }

    pub(crate) fn nodes(&self) -> Vec<NodeName> {
        self.cluster.hosts.keys().cloned().collect()
    }
}

fn is_ready(host: &Host) -> bool {
    !matches!(host.power, Power::Down { .. }) && !host.cut_off
}

pub(crate) fn node_name(n: u8) -> NodeName {
    format!("w{n}").into()
}

pub(crate) fn pool_name(n: u8) -> PoolName {
    if n == 0 { "p" } else { "q" }.into()
}

pub(crate) fn tag_name(n: u8) -> String {
    format!("r/t{n}:latest")
}
