//! Writes on their way: a decision's effects one after the other, and those beside them.

use std::collections::VecDeque;

use fsm::{NodeName, PoolName, command::Effect, input::Outcome};

use super::{Draining, Operator, answers::Message};
use crate::{
    api::{Origin, Request, Stamp, Target, What},
    cluster::Cluster,
};

/// A decision on its way.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub(super) id: u64,
    pub(super) left: VecDeque<Effect>,
    pub(super) done: usize,
    pub(super) node: Option<Stamp>,
    pub(super) bootc: Option<Stamp>,
    /// The version of the Node that it was decided on.
    pub(super) decided_on: Option<u64>,
    /// The shell has to take a drain's effect first.
    pub(super) waits: bool,
}

impl Operator {
    /// A drain's effects are taken by the shell itself.
    pub(super) fn take_drains(&mut self, name: &NodeName) {
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
        if matches!(request.what, What::Effect(Effect::Delete)) {
            let uid = request.stamp.as_ref().map(|stamp| stamp.uid.clone());
            self.deleted.extend(uid);
        }
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
}
