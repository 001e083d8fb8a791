//! What has to be done: the difference between what a record says and what is so.
//!
//! In the order release, commit, acquire: the cordon is taken back before the write that forgets
//! it, the drain starts after the write that claims it. Only an approval that may still be acted on,
//! or may have been given by a write without an answer, goes before its cordon. Everything may be
//! said again after a crash.

use std::sync::Arc;

use super::{
    facts::{DrainStage, Facts},
    record::{Record, State},
};
use crate::{
    command::{Effect, NodeWrite},
    names::PoolName,
    time::Timestamp,
    view::{BootcNodeView, Kept, NodeSpec, Owner, SecretRef},
};

/// What the pool puts into a node's spec, beside the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// The pull secret.
    pub secret: Option<SecretRef>,
    /// Hash of its content.
    pub secret_hash: Option<String>,
    /// Soft reboots are allowed.
    pub soft_reboot: bool,
    /// The newest request of a person.
    pub retry: Option<Timestamp>,
}

/// The node's objects and its pool, as they are.
#[derive(Clone, Debug)]
pub struct Site<'a> {
    /// The pool that the node belongs to or will belong to.
    pub owner: Option<&'a Owner>,
    /// What the spec shall hold beside the image.
    pub extras: &'a Extras,
    /// The `BootcNode`.
    pub bootc: Option<&'a BootcNodeView>,
    /// The record that it holds.
    pub kept: Option<&'a Record>,
    /// A write to it may have taken place or not: it is settled by another one, of which only one of
    /// the two can be accepted.
    pub doubtful: bool,
}

/// All that has to be done for `record`, in order.
#[must_use]
pub fn effects(record: &Record, facts: &Facts<'_>, site: &Site<'_>) -> Vec<Effect> {
    let mut all: Vec<Effect> = adopt(record, facts, site).into_iter().collect();
    all.extend(release(record, facts));
    let commit = commit(record, facts, site);
    if record.state == State::Leaving && facts.approval_out(record) {
        all.splice(0..0, commit);
    } else {
        all.extend(commit);
    }
    all.extend(acquire(record, facts, site.owner.map(|owner| &owner.pool)));
    if record.state == State::Leaving && site.doubtful {
        all.sort_by_key(|effect| *effect != Effect::Delete);
    }
    all
}

/// What a Node without any pool and `BootcNode` must not keep of us.
#[must_use]
pub fn leftovers(facts: &Facts<'_>) -> Vec<Effect> {
    release(
        &Record {
            state: State::Leaving,
            ..Record::default()
        },
        facts,
    )
}

/// The Go operator does not note on the Node that a cordon is its own. So with the first record of a
/// node that it left in a slot, its cordon becomes ours, or nobody would take it back.
fn adopt(record: &Record, facts: &Facts<'_>, site: &Site<'_>) -> Option<Effect> {
    let (node, bootc) = (facts.node?, site.bootc?);
    let taken_over = record.slot.is_some()
        && bootc.was_cordoned == Some(false)
        && !matches!(bootc.kept, Kept::Is(_));
    let by = site.owner?.pool.clone();
    (taken_over && node.cordoned && node.cordoned_by.is_none()).then_some(Effect::Cordon { by })
}

fn release(record: &Record, facts: &Facts<'_>) -> Vec<Effect> {
    let mut effects = Vec::new();
    let running = facts
        .drain
        .is_some_and(|drain| drain.stage != DrainStage::Done);
    if running && record.state != State::Draining {
        effects.push(Effect::CancelDrain);
    }
    let Some(node) = facts.node else {
        return effects;
    };
    let leaving = record.state == State::Leaving;
    if node.cordoned_by.is_some() && (leaving || record.slot.is_none()) {
        effects.push(if node.cordoned {
            Effect::Uncordon
        } else {
            Effect::ForgetCordon
        });
    }
    if leaving && node.labelled {
        effects.push(Effect::Unlabel);
    }
    effects
}

fn commit(record: &Record, facts: &Facts<'_>, site: &Site<'_>) -> Option<Effect> {
    match (site.bootc, site.owner) {
        (Some(bootc), _) if record.state == State::Leaving => {
            (!bootc.deleting).then_some(Effect::Delete)
        }
        (None, _) if record.state == State::Leaving => None,
        (Some(bootc), _) => {
            let written = is_written(record, site.extras, bootc, site.kept);
            (site.doubtful || !written).then(|| Effect::Commit(write(record, facts, site.extras)))
        }
        (None, Some(owner)) => Some(Effect::Create {
            owner: owner.clone(),
            write: write(record, facts, site.extras),
        }),
        (None, None) => None,
    }
}

fn acquire(record: &Record, facts: &Facts<'_>, pool: Option<&PoolName>) -> Vec<Effect> {
    let mut effects = Vec::new();
    let (Some(node), Some(pool)) = (facts.node, pool) else {
        return effects;
    };
    if record.state == State::Leaving {
        return effects;
    }
    if !node.labelled {
        effects.push(Effect::Label);
    }
    if record.state == State::Cordoned && !node.cordoned {
        effects.push(Effect::Cordon { by: pool.clone() });
    }
    let attempt = record.attempt;
    if record.state == State::Draining && facts.drain.is_none_or(|drain| drain.attempt != attempt) {
        effects.push(Effect::StartDrain { attempt });
    }
    effects
}

fn spec(record: &Record, extras: &Extras) -> NodeSpec {
    let approval = record.approval.as_ref();
    NodeSpec {
        image: record.image.clone(),
        booted: approval.is_some(),
        approved_boot: approval.and_then(|approval| approval.boot.clone()),
        secret: extras.secret.clone(),
        secret_hash: extras.secret_hash.clone(),
        soft_reboot: extras.soft_reboot,
    }
}

fn was_cordoned(record: &Record) -> Option<bool> {
    record.slot.as_ref().map(|slot| slot.was_cordoned)
}

fn write(record: &Record, facts: &Facts<'_>, extras: &Extras) -> NodeWrite {
    NodeWrite {
        spec: spec(record, extras),
        record: Arc::new(Record {
            written: facts.now,
            ..record.clone()
        }),
        in_reboot_slot: record.slot.is_some(),
        was_cordoned: was_cordoned(record),
        retry: extras.retry,
    }
}

/// Does the `BootcNode` hold what [`write`] would write?
fn is_written(
    record: &Record,
    extras: &Extras,
    bootc: &BootcNodeView,
    kept: Option<&Record>,
) -> bool {
    matches!(bootc.kept, Kept::Is(_))
        && kept.is_some_and(|kept| record.is_kept_by(kept))
        && bootc.spec == spec(record, extras)
        && bootc.in_reboot_slot == record.slot.is_some()
        && bootc.was_cordoned == was_cordoned(record)
        && bootc.retry == extras.retry
}
