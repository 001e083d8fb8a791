//! Who gets a slot and who may stage: first come in name order, holders before all.

use std::{collections::BTreeSet, ops::Bound};

use super::{Rollout, entry::Node};
use crate::names::{NodeName, PoolName};

/// What a pool gives a node for one evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// Nothing.
    None,
    /// A reboot slot.
    Slot,
    /// Room to stage.
    Room,
}

/// The control plane over all pools: one of its nodes at a time is in a slot.
#[derive(Clone, Debug, Default)]
pub(super) struct ControlPlane {
    holders: BTreeSet<NodeName>,
    down: BTreeSet<NodeName>,
    members: BTreeSet<NodeName>,
}

impl ControlPlane {
    /// May this node go down, as far as the control plane is concerned?
    pub(super) fn allows(&self, name: &NodeName) -> bool {
        let others = |set: &BTreeSet<NodeName>| set.iter().any(|other| other != name);
        !self.members.contains(name) || !(others(&self.holders) || others(&self.down))
    }
}

impl Rollout {
    /// Notes a node's part in the control plane; where that changed, all pools are asked again, and
    /// the rest of it is looked at: what that waits for may be another now.
    pub(super) fn count_control_plane(&mut self, name: &NodeName, node: &Node) {
        let is = node.view.as_ref().is_some_and(|view| view.control_plane);
        let down = node
            .view
            .as_ref()
            .is_some_and(|view| view.ready == Some(false));
        let all = &mut self.control_plane;
        let changed = [
            put(&mut all.members, name, is),
            put(&mut all.holders, name, is && node.holds()),
            put(&mut all.down, name, is && down),
        ];
        if changed.contains(&true) {
            self.dirty_pools.extend(self.pools.keys().cloned());
            self.dirty_nodes
                .extend(self.control_plane.members.iter().cloned());
        }
    }

    /// Gives out what is free. A grant counts at once: the node is decided on and counted before
    /// the next one is looked at.
    pub(super) fn hand_out(&mut self, pool: &PoolName) {
        self.hand_out_slots(pool);
        self.hand_out_room(pool);
    }

    fn hand_out_slots(&mut self, pool: &PoolName) {
        let mut last = None;
        while let Some(name) = self.next_candidate(pool, last.as_ref()) {
            if self.control_plane.allows(&name) {
                self.evaluate(&name, Grant::Slot);
            }
            last = Some(name);
        }
    }

    fn next_candidate(&self, pool: &PoolName, last: Option<&NodeName>) -> Option<NodeName> {
        let pool = self.pools.get(pool)?;
        let spec = &pool.alive()?.spec;
        let free = !spec.paused && pool.sum.free_slots(spec.max_unavailable) > 0;
        after(&pool.sum.candidates, last).filter(|_| free)
    }

    fn hand_out_room(&mut self, pool: &PoolName) {
        let mut last = None;
        while let Some(name) = self.next_for_room(pool, last.as_ref()) {
            self.evaluate(&name, Grant::Room);
            last = Some(name);
        }
    }

    fn next_for_room(&self, pool: &PoolName, last: Option<&NodeName>) -> Option<NodeName> {
        let pool = self.pools.get(pool)?;
        let max = pool.alive()?.spec.max_concurrent_staging;
        let free = max.is_some() && pool.sum.free_room(max) > 0;
        after(&pool.sum.waiting_for_room, last).filter(|_| free)
    }
}

fn after(set: &BTreeSet<NodeName>, last: Option<&NodeName>) -> Option<NodeName> {
    let from = last.map_or(Bound::Unbounded, Bound::Excluded);
    set.range::<NodeName, _>((from, Bound::Unbounded))
        .next()
        .cloned()
}

/// Puts the name in or takes it out; says whether that changed anything.
fn put(set: &mut BTreeSet<NodeName>, name: &NodeName, is: bool) -> bool {
    if is {
        set.insert(name.clone())
    } else {
        set.remove(name)
    }
}
