//! All pools and nodes: inputs in, commands out.
//!
//! | file | says |
//! |---|---|
//! | `nodes` | what one node needs now |
//! | `place` | which pool a node belongs to and what that wants of it |
//! | `outcome` | what a finished decision changes |
//! | `tally` | what one node shows to its pools |
//! | `grants` | who gets a slot, who may stage |
//! | `pools` | a pool's own objects: finalizer, tag, secret |
//! | `figures` | a pool in numbers, for metrics |
//! | `status` | a pool's status and when it is written |
//! | `waiting` | the condition Waiting of a node |
//! | `notices` | Events for people |

mod entry;
mod figures;
mod grants;
mod nodes;
mod notices;
mod outcome;
mod place;
mod pools;
mod status;
mod tally;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    command::Command,
    input::{DrainReport, Input},
    names::{NodeName, PoolName},
    node::{DrainStage, Record, waiting::Wait},
    pool::Sum,
    time::{Seconds, Timestamp},
};
use entry::{Node, Pool};
pub use figures::Figures;

/// More rounds than this for one input would be a circle.
const MAX_ROUNDS: usize = 64;

/// What the operator is started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// How often a tag is resolved again.
    pub tag_interval: Seconds,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tag_interval: Seconds(300),
        }
    }
}

/// Something that can have a timer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Node(NodeName),
    Pool(PoolName),
}

/// Everything that the operator knows and has under way.
#[derive(Clone, Debug, Default)]
pub struct Rollout {
    config: Config,
    now: Timestamp,
    synced: bool,
    nodes: BTreeMap<NodeName, Box<Node>>,
    pools: BTreeMap<PoolName, Pool>,
    dirty_nodes: BTreeSet<NodeName>,
    dirty_pools: BTreeSet<PoolName>,
    control_plane: grants::ControlPlane,
    paces: [waiting::Pace; 2],
    timers: BTreeSet<(Timestamp, Key)>,
    wake: Option<Timestamp>,
    last_id: u64,
    out: Vec<Command>,
}

impl Rollout {
    /// Knows nothing yet: feed it the first lists, then [`Input::Synced`].
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            ..Self::default()
        }
    }

    /// Takes one input at the time `now` and says what to do. A clock that runs backwards is taken
    /// as standing still.
    pub fn handle(&mut self, now: Timestamp, input: Input) -> Vec<Command> {
        self.now = self.now.max(now);
        self.take(input);
        self.ring();
        for _ in 0..MAX_ROUNDS {
            if !self.round() {
                break;
            }
        }
        self.set_alarm();
        std::mem::take(&mut self.out)
    }

    /// The record of a node as it stands, with the hops that need no write.
    #[must_use]
    pub fn record(&self, node: &NodeName) -> Option<&Record> {
        self.nodes.get(node)?.record.as_deref()
    }

    /// The same as it will be once the decision under way is carried out.
    #[must_use]
    pub fn upcoming(&self, node: &NodeName) -> Option<&Record> {
        self.nodes.get(node)?.shown()
    }

    /// What a node waits for; `None` of one that runs what it shall, or that no pool has.
    #[must_use]
    pub fn waiting(&self, node: &NodeName) -> Option<&Wait> {
        self.nodes.get(node)?.waits.as_ref()
    }

    /// A pool as the sum of its nodes.
    #[must_use]
    pub fn sum(&self, pool: &PoolName) -> Option<&Sum> {
        Some(&self.pools.get(pool)?.sum)
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Node(name, view) => {
                let now = self.now;
                self.node(&name).see(view, now);
                self.dirty_nodes.insert(name);
            }
            Input::BootcNode(name, view) => {
                self.count_stage_failure(&name, view.as_ref());
                self.node(&name).see_bootc(view);
                self.dirty_nodes.insert(name);
            }
            Input::Pool(name, view) => self.see_pool(name, view),
            Input::Synced => {
                self.synced = true;
                self.dirty_nodes = self.nodes.keys().cloned().collect();
                self.dirty_pools = self.pools.keys().cloned().collect();
            }
            Input::Tick => self.wake = None,
            Input::Drain {
                node,
                attempt,
                report,
            } => self.take_drain(node, attempt, report),
            Input::Resolved {
                pool,
                reference,
                result,
            } => {
                self.take_digest(&pool, &reference, result);
            }
            Input::Secret {
                pool,
                secret,
                result,
            } => self.take_secret(pool, secret, result),
            Input::Done {
                node,
                decision,
                done,
                outcome,
            } => {
                self.take_done(&node, decision, done, outcome);
            }
            Input::PoolDone {
                pool,
                write,
                outcome,
            } => self.take_pool_done(&pool, write, &outcome),
            Input::WaitingDone { node, outcome } => self.take_waiting_done(node, &outcome),
        }
    }

    fn take_drain(&mut self, name: NodeName, attempt: u32, report: DrainReport) {
        let Some(node) = self.nodes.get_mut(&name) else {
            return;
        };
        let Some(drain) = node.drain.as_mut().filter(|drain| drain.attempt == attempt) else {
            return;
        };
        match report {
            DrainReport::Done if drain.stage == DrainStage::Void => {}
            DrainReport::Done => {
                drain.stage = DrainStage::Done;
                node.pods.clear();
            }
            DrainReport::Pods(pods) => node.pods = pods,
        }
        self.dirty_nodes.insert(name);
    }

    /// One pass over what has changed; says whether there was anything.
    fn round(&mut self) -> bool {
        if !self.synced || (self.dirty_nodes.is_empty() && self.dirty_pools.is_empty()) {
            return false;
        }
        for name in std::mem::take(&mut self.dirty_nodes) {
            self.evaluate(&name, grants::Grant::None);
        }
        for name in std::mem::take(&mut self.dirty_pools) {
            self.evaluate_pool(&name);
        }
        true
    }

    fn node(&mut self, name: &NodeName) -> &mut Node {
        self.nodes.entry(name.clone()).or_default()
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// What is due is looked at again, whatever the input was: a lost tick loses nothing.
    fn ring(&mut self) {
        while let Some((at, _)) = self.timers.first()
            && *at <= self.now
        {
            match self.timers.pop_first() {
                Some((_, Key::Node(name))) => {
                    self.dirty_nodes.insert(name);
                }
                Some((_, Key::Pool(name))) => {
                    self.dirty_pools.insert(name);
                }
                None => {}
            }
        }
    }

    fn set_timer(&mut self, key: Key, old: Option<Timestamp>, new: Option<Timestamp>) {
        if old == new && new.is_some_and(|new| self.timers.contains(&(new, key.clone()))) {
            return;
        }
        if let Some(old) = old {
            self.timers.remove(&(old, key.clone()));
        }
        if let Some(new) = new {
            self.timers.insert((new, key));
        }
    }

    fn set_alarm(&mut self) {
        let next = self.timers.first().map(|(at, _)| *at);
        if next != self.wake {
            self.wake = next;
            self.out.push(Command::WakeAt(next));
        }
    }
}
