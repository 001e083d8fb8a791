//! A decision on its way: its effects one after the other, stopping at the first that fails.
//!
//! The deciding task owns the drains, so it takes a drain's effects itself and hands the writes
//! between them to a [`Writer`] elsewhere.

use std::collections::VecDeque;

use fsm::{
    NodeName,
    command::{Decision, Effect},
    input::Outcome,
};
use tracing::{info, warn};

use super::{
    body::{self, Kind},
    outcome::Failure,
    turns::Line,
    writer::Writer,
};
use crate::observe::{Stamp, Target, Written};

/// A decision on its way.
#[derive(Debug)]
pub struct Lane {
    /// The node that is decided on.
    pub node: NodeName,
    /// The decision's number.
    pub id: u64,
    line: Line,
    pool: String,
    left: VecDeque<Effect>,
    done: usize,
    node_at: Trail,
    bootc_node_at: Trail,
}

/// One object under a decision: the version it was decided on and those that its writes made.
#[derive(Debug, Default)]
struct Trail {
    now: Option<Stamp>,
    before: Vec<String>,
}

/// What a lane has come to.
#[derive(Debug)]
pub enum Step {
    /// A drain's effect is next: for the deciding task, which takes it with [`Lane::take_drain`] and
    /// lets the lane go on.
    Drain(Box<Lane>),
    /// It ended.
    End(End),
}

/// How a lane ended.
#[derive(Debug)]
pub struct End {
    /// The node that was decided on.
    pub node: NodeName,
    /// The decision's number.
    pub id: u64,
    /// How many effects took place.
    pub done: usize,
    /// How the last one ended.
    pub outcome: Outcome,
    /// The version on which a refused write was decided.
    pub stale: Option<(Target, Stamp)>,
}

/// A write that took place, told at once: whoever decides next must not wait for the watch.
#[derive(Debug)]
pub struct Effected {
    /// The object as it is now.
    pub written: Written,
    /// The versions that it had since the decision.
    pub before: Vec<String>,
    /// What was done, in one word.
    pub effect: &'static str,
}

impl Lane {
    /// A lane for a decision that was made on these versions; its writes wait in `line`.
    #[must_use]
    pub fn new(
        decision: Decision,
        line: Line,
        node: Option<Stamp>,
        bootc_node: Option<Stamp>,
    ) -> Self {
        Self {
            node: decision.node,
            id: decision.id,
            line,
            pool: decision
                .pool
                .map(|pool| pool.to_string())
                .unwrap_or_default(),
            left: decision.effects.into(),
            done: 0,
            node_at: Trail {
                now: node,
                before: Vec::new(),
            },
            bootc_node_at: Trail {
                now: bootc_node,
                before: Vec::new(),
            },
        }
    }

    /// The next effect if it is a drain's, which counts as done by the time of the next call.
    pub fn take_drain(&mut self) -> Option<Effect> {
        self.left
            .front()
            .filter(|effect| body::kind(effect).is_none())?;
        self.done += 1;
        self.left.pop_front()
    }

    /// Writes until a drain's effect is next or the lane has ended; `told` takes each object that
    /// was written.
    pub async fn advance(mut self, writer: &Writer, told: impl Fn(Effected)) -> Step {
        while let Some(effect) = self.left.front() {
            let Some(kind) = body::kind(effect) else {
                break;
            };
            let target = self.target(kind);
            let effect = effect.clone();
            match self.write(writer, &target, kind, &effect).await {
                Ok(written) => {
                    self.log(&effect);
                    self.done += 1;
                    self.left.pop_front();
                    if let Some(effected) = written {
                        told(effected);
                    }
                }
                Err(failure) => return Step::End(self.fail(target, kind, &effect, &failure)),
            }
        }
        if self.left.is_empty() {
            return Step::End(self.end(Outcome::Ok, None));
        }
        Step::Drain(Box::new(self))
    }

    fn target(&self, kind: Kind) -> Target {
        match kind {
            Kind::Node => Target::Node(self.node.clone()),
            Kind::BootcNode => Target::BootcNode(self.node.clone()),
        }
    }

    fn trail(&mut self, kind: Kind) -> &mut Trail {
        match kind {
            Kind::Node => &mut self.node_at,
            Kind::BootcNode => &mut self.bootc_node_at,
        }
    }

    async fn write(
        &mut self,
        writer: &Writer,
        target: &Target,
        kind: Kind,
        effect: &Effect,
    ) -> Result<Option<Effected>, Failure> {
        let stamp = self.trail(kind).now.clone();
        let body = || body::body(&self.node, effect, stamp.as_ref());
        let Some(written) = writer.write(target, self.line, body).await? else {
            return Ok(None);
        };
        let trail = self.trail(kind);
        trail.before.extend(stamp.map(|stamp| stamp.version));
        trail.now = Some(written.stamp());
        Ok(Some(Effected {
            written,
            before: trail.before.clone(),
            effect: name(effect),
        }))
    }

    fn fail(mut self, target: Target, kind: Kind, effect: &Effect, failure: &Failure) -> End {
        let outcome = Outcome::from(failure);
        let name = name(effect);
        match &outcome {
            Outcome::Conflict | Outcome::Gone => info!(
                node = %self.node, pool = self.pool, effect = name, %failure,
                "the object changed meanwhile, deciding again"
            ),
            _ => warn!(
                node = %self.node, pool = self.pool, effect = name, %failure, "a write failed"
            ),
        }
        let stale = self.trail(kind).now.clone().map(|stamp| (target, stamp));
        self.end(outcome, stale)
    }

    fn end(self, outcome: Outcome, stale: Option<(Target, Stamp)>) -> End {
        End {
            node: self.node,
            id: self.id,
            done: self.done,
            outcome,
            stale,
        }
    }

    fn log(&self, effect: &Effect) {
        info!(node = %self.node, pool = self.pool, effect = name(effect), "written");
    }
}

/// An effect in one word, for logs.
fn name(effect: &Effect) -> &'static str {
    match effect {
        Effect::CancelDrain => "cancel drain",
        Effect::Uncordon => "uncordon",
        Effect::ForgetCordon => "forget cordon",
        Effect::Unlabel => "unlabel",
        Effect::Delete => "delete",
        Effect::Create { .. } => "create",
        Effect::Commit(_) => "commit",
        Effect::Label => "label",
        Effect::Cordon { .. } => "cordon",
        Effect::StartDrain { .. } => "start drain",
    }
}
