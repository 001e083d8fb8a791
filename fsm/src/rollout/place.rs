//! Where a node belongs, and what its pool wants of it. The only place that decides on leaving and
//! on conflicts.

use std::collections::BTreeSet;

use super::{
    Rollout,
    entry::{Node, Pool, Secret},
};
use crate::{
    names::{NodeName, PoolName},
    node::{Limits, Wanted, effects::Extras},
    time::{Seconds, Timestamp},
    view::{Owner, PoolView},
};

/// A node's place.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not a state"
)]
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// The pool that it belongs to, or will.
    pub(super) owner: Option<Owner>,
    pub(super) wanted: Wanted,
    /// Since when the pool wants it.
    pub(super) wanted_since: Option<Timestamp>,
    /// All pools that claim it, if more than one does.
    pub(super) quarrel: BTreeSet<PoolName>,
    pub(super) extras: Extras,
    /// A person's request is not noted on the node yet.
    pub(super) retry: bool,
    pub(super) limits: Limits,
    pub(super) halted: bool,
    /// For how long so far, in milliseconds.
    pub(super) halted_for: i64,
    pub(super) paused: bool,
    /// Its slots are given away now, and no more hold one than there are.
    pub(super) slots_are_given: bool,
    /// Staging is not limited.
    pub(super) unlimited: bool,
    /// It can be decided on now.
    pub(super) ready: bool,
}

impl Rollout {
    /// The place of a node. `Left` needs proof: it is said of what the complete lists do not have.
    pub(super) fn place(&self, name: &NodeName, node: &Node) -> Place {
        let claims = self.live_claims(node);
        let owner = match &node.bootc {
            Some(bootc) => bootc.owner.clone(),
            None => self.sole_claimant(&claims),
        };
        let quarrel = if claims.len() > 1 {
            claims.clone()
        } else {
            BTreeSet::new()
        };
        let stays = owner
            .as_ref()
            .is_some_and(|owner| self.stays(node, owner, &claims));
        let pool = owner.as_ref().and_then(|owner| self.pools.get(&owner.pool));
        match pool
            .and_then(|pool| Some((pool, pool.alive()?)))
            .filter(|_| stays)
        {
            Some((pool, view)) => Place {
                owner,
                quarrel,
                ..self.wanted_by(pool, view, name, node)
            },
            None => Place {
                owner,
                quarrel,
                wanted: Wanted::Left,
                ready: true,
                ..Place::default()
            },
        }
    }

    fn live_claims(&self, node: &Node) -> BTreeSet<PoolName> {
        let claims = node.view.iter().flat_map(|view| &view.claims);
        claims
            .filter(|name| {
                self.pools
                    .get(*name)
                    .is_some_and(|pool| pool.alive().is_some())
            })
            .cloned()
            .collect()
    }

    fn sole_claimant(&self, claims: &BTreeSet<PoolName>) -> Option<Owner> {
        let pool = claims.first().filter(|_| claims.len() == 1)?;
        let uid = self.pools.get(pool)?.alive()?.uid.clone();
        Some(Owner {
            pool: pool.clone(),
            uid,
        })
    }

    fn stays(&self, node: &Node, owner: &Owner, claims: &BTreeSet<PoolName>) -> bool {
        let Some(view) = &node.view else { return false };
        let Some(pool) = self.pools.get(&owner.pool).and_then(Pool::alive) else {
            return false;
        };
        let known =
            |record: &crate::Record| record.node_uid.is_empty() || record.node_uid == view.uid;
        // A selector that cannot be read is a typo, not a wish to let every node go.
        let claimed = claims.contains(&owner.pool) || pool.spec.invalid.is_some();
        claimed
            && pool.uid == owner.uid
            && node.kept.as_deref().is_none_or(known)
            && !node.bootc.as_ref().is_some_and(|bootc| bootc.deleting)
    }

    fn wanted_by(&self, pool: &Pool, view: &PoolView, name: &NodeName, node: &Node) -> Place {
        let spec = &view.spec;
        let asked = view
            .retry
            .as_ref()
            .filter(|retry| retry.nodes.contains(name))
            .map(|retry| retry.at);
        let noted = node.bootc.as_ref().and_then(|bootc| bootc.retry);
        let target = pool.target();
        let ready = pool.is_ready() && (node.bootc.is_some() || target.is_some());
        Place {
            wanted: target.map_or(Wanted::Unknown, Wanted::Wants),
            wanted_since: pool.target_since.as_ref().map(|(_, since)| *since),
            extras: Extras {
                retry: asked.max(noted),
                ..extras(pool, view, node)
            },
            retry: asked > noted,
            limits: Limits {
                drain: spec.drain_timeout.filter(|limit| *limit > Seconds(0)),
                reboot: spec.reboot_timeout,
                min_ready: spec.min_ready,
            },
            halted: pool.sum.halted(),
            halted_for: pool.halted_for(self.now),
            slots_are_given: !spec.paused
                && !pool.sum.halted()
                && pool.sum.holders.len() <= pool.sum.slots(spec.max_unavailable),
            paused: spec.paused || pool.sum.slots(spec.max_unavailable) == 0,
            unlimited: spec.max_concurrent_staging.is_none(),
            ready,
            ..Place::default()
        }
    }
}

/// A secret that cannot be read leaves its last known hash alone: no node is told anything by it.
fn extras(pool: &Pool, view: &PoolView, node: &Node) -> Extras {
    let secret = view.spec.secret.clone();
    let secret_hash = match pool.secret() {
        Secret::Seen(_, Ok(hash)) => Some(hash.to_owned()),
        Secret::Seen(_, Err(_)) => node
            .bootc
            .as_ref()
            .filter(|bootc| bootc.spec.secret == secret)
            .and_then(|bootc| bootc.spec.secret_hash.clone()),
        Secret::None | Secret::Unseen => None,
    };
    Extras {
        secret,
        secret_hash,
        soft_reboot: view.spec.soft_reboot,
        retry: None,
    }
}
