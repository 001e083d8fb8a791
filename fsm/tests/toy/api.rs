//! The toy's API server: does the writes and checks what must hold of them.

use std::sync::Arc;

use super::{Crash, Draining, News, Toy};
use fsm::{
    Command, Input, NodeName, PoolName,
    command::{Decision, Effect, NodeWrite, PoolWrite},
    input::Outcome,
    view::{BootcNodeView, Kept, Waiting},
};

impl Toy {
    pub(super) fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Decide(decision) => return self.decide(&decision),
            Command::Pool { pool, write, what } => {
                if let Some(outcome) = self.pool_answers.pop_front() {
                    self.answers.push_back(Input::PoolDone {
                        pool,
                        write,
                        outcome,
                    });
                    return true;
                }
                if !self.write_pool(&pool, &what) {
                    return false;
                }
                self.answers.push_back(Input::PoolDone {
                    pool,
                    write,
                    outcome: Outcome::Ok,
                });
            }
            Command::Waiting { node, waiting } => self.write_waiting(node, waiting),
            Command::Resolve {
                pool, reference, ..
            } => {
                self.resolved += 1;
                let result = self
                    .tags
                    .get(&reference)
                    .cloned()
                    .unwrap_or(Err("no such tag".into()));
                self.answers.push_back(Input::Resolved {
                    pool,
                    reference,
                    result,
                });
            }
            Command::WakeAt(at) => self.wake = at,
            Command::Hop { node, hop, .. } => {
                self.log.push(format!(
                    "{node}: {} -> {} ({})",
                    hop.from, hop.to, hop.cause
                ));
            }
            Command::Notice(notice) => self.log.push(format!(
                "{:?} {}: {}",
                notice.about, notice.reason, notice.note
            )),
        }
        true
    }

    pub(super) fn write_waiting(&mut self, node: NodeName, waiting: Waiting) {
        let outcome = match self.bootc.get_mut(&node) {
            Some(bootc) => {
                bootc.waiting = Some(waiting);
                self.waiting_writes += 1;
                Outcome::Ok
            }
            None => Outcome::Gone,
        };
        self.written(News::Bootc(node.clone()));
        self.answers.push_back(Input::WaitingDone { node, outcome });
    }

    pub(super) fn write_pool(&mut self, name: &PoolName, what: &PoolWrite) -> bool {
        if !self.counted(Crash::Before) {
            return false;
        }
        if let Some(pool) = self.pools.get_mut(name) {
            match what {
                PoolWrite::AddFinalizer => pool.finalizer = true,
                PoolWrite::RemoveFinalizer => {
                    assert!(pool.deleting);
                    self.pools.remove(name);
                }
                PoolWrite::Status(status) => {
                    assert_ne!(
                        pool.status.as_ref(),
                        Some(&**status),
                        "a status is not written again"
                    );
                    pool.status = Some((**status).clone());
                    self.status_writes += 1;
                }
            }
        }
        self.written(News::Pool(name.clone()));
        self.writes += 1;
        self.survives(Crash::After)
    }

    /// Does the operator live to make this write?
    pub(super) fn counted(&self, crash: fn(usize) -> Crash) -> bool {
        self.crash != Some(crash(self.writes))
    }

    /// Does it live to see the answer?
    pub(super) fn survives(&self, crash: fn(usize) -> Crash) -> bool {
        self.crash != Some(crash(self.writes - 1))
    }

    pub(super) fn decide(&mut self, decision: &Decision) -> bool {
        let mut done = 0;
        let mut outcome = Outcome::Ok;
        let names: Vec<_> = decision.effects.iter().map(name_of).collect();
        self.log.push(format!(
            "{}: #{} {}",
            decision.node,
            decision.id,
            names.join(", ")
        ));
        for effect in &decision.effects {
            if effect.is_write() {
                if let Some(refusal) = self.refuse.get(&decision.node) {
                    outcome = refusal.clone();
                    break;
                }
                if !self.counted(Crash::Before) {
                    return false;
                }
            }
            match self.effect(&decision.node, effect) {
                Outcome::Ok => done += 1,
                other => {
                    outcome = other;
                    break;
                }
            }
            if effect.is_write() {
                self.writes += 1;
                *self.node_writes.entry(decision.node.clone()).or_default() += 1;
                self.check(&decision.node);
                if !self.survives(Crash::After) {
                    return false;
                }
            }
        }
        self.answers.push_back(Input::Done {
            node: decision.node.clone(),
            decision: decision.id,
            done,
            outcome,
        });
        true
    }

    pub(super) fn effect(&mut self, name: &NodeName, effect: &Effect) -> Outcome {
        match effect {
            Effect::CancelDrain => {
                self.drains.remove(name);
                return Outcome::Ok;
            }
            Effect::StartDrain { attempt } => {
                let blocked = self.blocked.contains(name);
                self.drains.insert(
                    name.clone(),
                    Draining {
                        attempt: *attempt,
                        blocked,
                    },
                );
                return Outcome::Ok;
            }
            Effect::Create { owner, write } => {
                if self.bootc.contains_key(name) {
                    return Outcome::Conflict;
                }
                let view = BootcNodeView {
                    uid: self.uid(),
                    generation: 1,
                    owner: Some(owner.clone()),
                    ..BootcNodeView::default()
                };
                self.bootc.insert(name.clone(), view);
                self.creations += 1;
                self.commit(name, write, true);
                return Outcome::Ok;
            }
            Effect::Commit(write) => {
                if !self.bootc.contains_key(name) {
                    return Outcome::Gone;
                }
                if !self.is_known(&News::Bootc(name.clone())) {
                    return Outcome::Conflict;
                }
                self.commit(name, write, false);
                return Outcome::Ok;
            }
            Effect::Delete => {
                self.let_go.insert(name.clone());
                self.written(News::Bootc(name.clone()));
                return self
                    .bootc
                    .remove(name)
                    .map_or(Outcome::Gone, |_| Outcome::Ok);
            }
            _ => {}
        }
        if !self.is_known(&News::Node(name.clone())) {
            return Outcome::Conflict;
        }
        let Some(node) = self.nodes.get_mut(name) else {
            return Outcome::Gone;
        };
        let before = node.clone();
        match effect {
            Effect::Uncordon => (node.cordoned, node.cordoned_by) = (false, None),
            Effect::ForgetCordon => node.cordoned_by = None,
            Effect::Unlabel => node.labelled = false,
            Effect::Label => node.labelled = true,
            Effect::Cordon { by } => (node.cordoned, node.cordoned_by) = (true, Some(by.clone())),
            _ => {}
        }
        assert_ne!(before, *node, "{name}: {effect:?} changes nothing");
        if !node.cordoned {
            assert!(
                !self.drains.contains_key(name),
                "{name} is uncordoned while it is drained"
            );
            self.drained.remove(name);
        }
        self.written(News::Node(name.clone()));
        Outcome::Ok
    }

    pub(super) fn commit(&mut self, name: &NodeName, write: &NodeWrite, fresh: bool) {
        let known = self.is_known(&News::Node(name.clone()));
        let bootc = self.bootc.get_mut(name).unwrap();
        let approves = write.spec.booted
            && (!bootc.spec.booted || bootc.spec.approved_boot != write.spec.approved_boot);
        if approves {
            let wanted = write.spec.image.as_ref().unwrap();
            let report = bootc.report.as_ref().unwrap();
            // What was not told yet cannot be minded; the write is fenced by the BootcNode alone.
            if known {
                assert!(
                    self.nodes[name].cordoned,
                    "{name} is approved and not cordoned"
                );
                assert!(
                    self.drained.contains(name),
                    "{name} is approved and not drained"
                );
            }
            assert!(
                report.staged.as_ref().unwrap().is(wanted),
                "{name} is approved for another image"
            );
            assert_eq!(
                bootc.spec.image.as_ref(),
                Some(wanted),
                "approved with the image in one write"
            );
            assert!(write.in_reboot_slot, "{name} is approved without a slot");
        }
        if bootc.spec.image != write.spec.image {
            assert!(!write.spec.booted, "{name}: a new image comes with Staged");
        }
        if bootc.spec != write.spec && !fresh {
            bootc.generation += 1;
        }
        bootc.spec = write.spec.clone();
        let json = serde_json::to_string(&write.record).unwrap();
        bootc.kept = Kept::Is(Arc::new(serde_json::from_str(&json).unwrap()));
        bootc.in_reboot_slot = write.in_reboot_slot;
        bootc.was_cordoned = write.was_cordoned;
        bootc.retry = write.retry;
        self.written(News::Bootc(name.clone()));
    }

    /// The guarantees that hold after every write.
    pub(super) fn check(&self, _: &NodeName) {
        for (name, pool) in &self.pools {
            let of = |bootc: &&BootcNodeView| {
                bootc
                    .owner
                    .as_ref()
                    .is_some_and(|owner| owner.pool == *name)
            };
            let held = self
                .bootc
                .values()
                .filter(of)
                .filter(|bootc| bootc.in_reboot_slot)
                .count();
            let nodes = self
                .nodes
                .values()
                .filter(|node| node.claims.contains(name))
                .count();
            let allowed = pool.spec.max_unavailable.of(nodes).max(self.slack());
            assert!(held <= allowed, "{held} slots of {allowed}");
        }
    }

    /// Lowering the limit throws nobody out: tests that do so say how many there may be.
    pub(super) fn slack(&self) -> usize {
        self.tags.get("slack").map_or(0, |_| usize::MAX)
    }

    pub fn allow_more_holders(&mut self) {
        self.tags.insert("slack".into(), Err(String::new()));
    }
}

/// An effect in few words.
pub fn name_of(effect: &Effect) -> String {
    match effect {
        Effect::Commit(write) => format!("Commit({})", write.record.state),
        Effect::Create { write, .. } => format!("Create({})", write.record.state),
        other => format!("{other:?}"),
    }
}
