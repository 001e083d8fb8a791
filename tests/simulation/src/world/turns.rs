//! Who can make a step, and what each step is.

use fsm::{NodeName, PoolName};

use super::World;
use crate::{
    agent::Agent,
    cluster::Cluster,
    host::{Fate, Host, Power},
    marks::Mark,
    operator::{Kind, Operator},
};

/// Somebody's next step.
#[derive(Clone, Debug)]
pub(super) enum Turn {
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
    pub(super) fn turns_of_operators(&self, turns: &mut Vec<Turn>) {
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

    pub(super) fn turns_of_hosts(&self, turns: &mut Vec<Turn>) {
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
            if !there && !stored.object.view.deleting {
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

    pub(super) fn take(&mut self, turn: Turn) {
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
}

fn is_ready(host: &Host) -> bool {
    !matches!(host.power, Power::Down { .. }) && !host.cut_off
}
