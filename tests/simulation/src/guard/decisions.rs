//! Decisions, judged by what their operator knows.

use std::collections::{BTreeMap, BTreeSet};

use fsm::{
    NodeName, PoolName, Record,
    command::{Decision, Effect, NodeWrite},
    view::{BootcNodeView, ImageRef, Kept, NodeView, PoolView},
};

use super::{Guard, approval_out, approves};
use crate::marks::{Mark, Marks};

/// What an operator knows when it decides.
pub(crate) struct Knowledge<'a> {
    pub(crate) nodes: BTreeMap<&'a NodeName, &'a NodeView>,
    pub(crate) bootc: BTreeMap<&'a NodeName, &'a BootcNodeView>,
    pub(crate) pool: Option<(&'a PoolName, &'a PoolView)>,
    /// Nodes that decisions under way give a slot.
    pub(crate) granting: BTreeSet<NodeName>,
    /// Milliseconds for which the node has been on its way down.
    pub(crate) drained_for: i64,
    /// For how many of them its pool was halted, as far as this process saw.
    pub(crate) halted_for: i64,
}

impl Guard {
    /// A decision, by what its operator knows.
    pub(crate) fn decision(
        &mut self,
        decision: &Decision,
        knows: &Knowledge<'_>,
        marks: &mut Marks,
    ) {
        let name = &decision.node;
        let known = knows.bootc.get(name);
        // Where one is made, the one before it was deleted by the last decision.
        let makes = |effect: &Effect| matches!(effect, Effect::Create { .. });
        if let Some(known) = known.filter(|_| !decision.effects.iter().any(makes))
            && known.owner.as_ref().map(|owner| &owner.pool) != decision.pool.as_ref()
        {
            self.fail(|| format!("(8) {name}: decided for a pool that is not its own"));
        }
        let ends = |effect: &Effect| matches!(effect, Effect::Commit(_) | Effect::Delete);
        for (n, effect) in decision.effects.iter().enumerate() {
            match effect {
                Effect::Uncordon
                    if known.is_some_and(|known| approval_out(known))
                        && !decision.effects.iter().take(n).any(ends) =>
                {
                    self.fail(|| format!("(16) {name}: uncordoned, and it may reboot"));
                }
                Effect::Cordon { by } if Some(by) != decision.pool.as_ref() => {
                    self.fail(|| format!("(8) {name}: cordoned for {by}"));
                }
                Effect::Commit(write) => {
                    let Some(known) = known else { continue };
                    self.target(name, known, write, knows);
                    if known.deleting {
                        self.fail(|| format!("{name} is told something while it is deleted"));
                    }
                    if is_grant(known, write, knows.nodes.get(name).copied()) {
                        marks.hit(Mark::Granted);
                        self.grant(name, knows);
                    }
                    if approves(known, write) {
                        self.approval(name, knows);
                    }
                    self.drain_late(name, known, write, knows, marks);
                }
                _ => {}
            }
        }
    }

    /// A new image is that of the pool, by the reference that it has now.
    fn target(
        &mut self,
        name: &NodeName,
        known: &BootcNodeView,
        write: &NodeWrite,
        knows: &Knowledge<'_>,
    ) {
        let Some((_, pool)) = knows.pool else { return };
        let Some(image) = write.spec.image.as_ref() else {
            return;
        };
        if known.spec.image.as_ref() == Some(image) {
            return;
        }
        let right = match &pool.spec.image {
            ImageRef::Pinned(wanted) => wanted == image,
            ImageRef::Tag { repository, .. } => image
                .as_str()
                .strip_prefix(repository)
                .is_some_and(|rest| rest.starts_with('@')),
            ImageRef::Invalid(_) => false,
        };
        if !right {
            self.fail(|| {
                format!(
                    "(13) {name} is told of {image}, and {:?} is wanted",
                    pool.spec.image
                )
            });
        }
    }

    /// A drain that is given up has had its time, in which the pool was not halted.
    fn drain_late(
        &mut self,
        name: &NodeName,
        known: &BootcNodeView,
        write: &NodeWrite,
        knows: &Knowledge<'_>,
        marks: &mut Marks,
    ) {
        let times = |record: &Record| record.fault.as_ref().map_or(0, |fault| fault.times);
        let before = match &known.kept {
            Kept::Is(record) => times(record),
            Kept::Missing | Kept::Unreadable(_) => return,
        };
        if times(&write.record) <= before {
            return;
        }
        let limit = knows.pool.and_then(|(_, pool)| pool.spec.drain_timeout);
        let enough = limit.map(|limit| i64::from(limit.0) * 1000);
        let (all, halted) = (knows.drained_for, knows.halted_for);
        if enough.is_none_or(|enough| all - halted < enough) {
            self.fail(|| {
                format!(
                    "the drain of {name} is given up after {all} ms, {halted} of them in a halt; \
                     it may take {limit:?}"
                )
            });
        }
        if knows.halted_for > 0 {
            marks.hit(Mark::DrainClockStood);
        }
    }

    fn grant(&mut self, name: &NodeName, knows: &Knowledge<'_>) {
        let Some((pool_name, pool)) = knows.pool else {
            return self.fail(|| format!("(1) {name} gets a slot of a pool that is not there"));
        };
        let of_pool = |node: &NodeName| {
            let bootc = knows.bootc.get(node);
            let owner = bootc.and_then(|bootc| bootc.owner.as_ref());
            owner.is_some_and(|owner| owner.pool == *pool_name && owner.uid == pool.uid)
        };
        let holds = |node: &NodeName| {
            knows.granting.contains(node)
                || knows
                    .bootc
                    .get(node)
                    .is_some_and(|bootc| bootc.in_reboot_slot)
        };
        let owned: Vec<&NodeName> = knows
            .bootc
            .keys()
            .copied()
            .filter(|it| of_pool(it))
            .collect();
        let holders = owned.iter().filter(|it| **it != name && holds(it)).count();
        // One that was made anew under its name is let go first.
        let same =
            |node: &NodeName, view: &NodeView| match &knows.bootc.get(node).map(|it| &it.kept) {
                Some(Kept::Is(record)) => record.node_uid == view.uid,
                _ => true,
            };
        // The node itself may be down: then it is not one more that is.
        let down = |node: &&&NodeName| {
            **node != name
                && !holds(node)
                && knows.nodes.get(**node).is_some_and(|view| {
                    view.claims.contains(pool_name)
                        && same(node, view)
                        && (view.ready == Some(false)
                            || (view.cordoned && view.cordoned_by.is_none()))
                })
        };
        let down = owned.iter().filter(down).count();
        // One that is let go is none of the pool's any more.
        let goes = |node: &NodeName, view: &NodeView| {
            let bootc = knows.bootc.get(node).filter(|bootc| {
                let owner = bootc.owner.as_ref();
                owner.is_some_and(|owner| owner.pool == *pool_name)
            });
            bootc.is_some_and(|bootc| bootc.deleting || !of_pool(node) || !same(node, view))
        };
        let claimed = |(node, view): &(&&NodeName, &&NodeView)| {
            view.claims.contains(pool_name) && !goes(node, view)
        };
        let nodes = knows.nodes.iter().filter(claimed).count();
        let limit = match pool.spec.max_unavailable.of(nodes) {
            0 => 0,
            max => max.saturating_sub(down).max(1),
        };
        if holders >= limit || pool.spec.paused || pool.deleting {
            self.fail(|| {
                format!(
                    "(1) {name} gets a slot beside {holders}, of {limit}, paused {}",
                    pool.spec.paused
                )
            });
        }
        let view = knows.nodes.get(name);
        if view.is_some_and(|view| view.ready == Some(false)) {
            self.fail(|| format!("(1) {name} gets a slot and is not Ready"));
        }
        self.halt(name, "gets a slot", knows, pool_name);
        let control_plane = |node: &NodeName| {
            node != name && knows.nodes.get(node).is_some_and(|view| view.control_plane)
        };
        let mut others = knows.nodes.keys().filter(|node| control_plane(node));
        let busy = others.any(|node| {
            holds(node)
                || knows
                    .nodes
                    .get(*node)
                    .is_some_and(|view| view.ready == Some(false))
        });
        if busy && view.is_some_and(|view| view.control_plane) {
            self.fail(|| {
                format!("(1) {name} gets a slot while another control-plane node is down")
            });
        }
    }

    /// Two slot holders whose agents say that something is wrong hold everything up.
    fn halt(&mut self, name: &NodeName, what: &str, knows: &Knowledge<'_>, pool: &PoolName) {
        let unhealthy = |bootc: &&&BootcNodeView| {
            bootc.in_reboot_slot
                && bootc
                    .owner
                    .as_ref()
                    .is_some_and(|owner| owner.pool == *pool)
                && bootc
                    .report
                    .as_ref()
                    .is_some_and(|report| report.degraded.is_some())
        };
        let of_pool = knows.bootc.iter().filter(|(node, _)| {
            knows
                .nodes
                .get(**node)
                .is_some_and(|view| view.claims.contains(pool))
        });
        let unhealthy = of_pool.filter(|(_, bootc)| unhealthy(bootc)).count();
        if unhealthy >= 2 {
            self.fail(|| format!("{name} {what} while {unhealthy} slot holders are unhealthy"));
        }
    }

    fn approval(&mut self, name: &NodeName, knows: &Knowledge<'_>) {
        if knows.nodes.get(name).is_none_or(|node| !node.cordoned) {
            self.fail(|| format!("(2) {name} is approved and known not to be cordoned"));
        }
        if let Some((pool, _)) = knows.pool {
            self.halt(name, "is approved", knows, pool);
        }
    }
}

/// Does the write give the node a slot that it did not have in any form?
fn is_grant(known: &BootcNodeView, write: &NodeWrite, node: Option<&NodeView>) -> bool {
    let had = match &known.kept {
        Kept::Is(record) => record.slot.is_some(),
        Kept::Missing | Kept::Unreadable(_) => true,
    };
    write.in_reboot_slot
        && !had
        && !known.in_reboot_slot
        && node.is_none_or(|node| node.cordoned_by.is_none())
}
