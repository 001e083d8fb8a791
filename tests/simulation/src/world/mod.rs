//! The world: all who act in a cluster, and what time it is.

mod turns;

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
    host::{Host, Power},
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
        let mut host = Host::new(&name, api::image(1).as_str(), can, START);
        host.plain = setup.plain;
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

    pub(crate) fn nodes(&self) -> Vec<NodeName> {
        self.cluster.hosts.keys().cloned().collect()
    }
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
