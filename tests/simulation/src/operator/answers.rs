//! What comes back to the deciding task, and what it makes of that.

use std::sync::Arc;

use fsm::{
    Input, NodeName, PoolName,
    input::Outcome,
    view::{NodeView, PoolView, SecretRef},
};

use super::{Operator, table::same_bootc};
use crate::{
    api::{BootcNode, Stamp, Target},
    cluster::Cluster,
};

/// What comes back to the deciding task.
#[derive(Clone, Debug)]
pub(super) enum Message {
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

impl Operator {
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
