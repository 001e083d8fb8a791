//! A record where there is none: a node that joins, and one whose annotation is lost.

use super::{
    facts::{Facts, Wanted},
    record::{Approval, Record, Slot, State},
};
use crate::view::BootcNodeView;

/// The first record of a node that joins a pool, and the spec that goes with it. A node that still
/// bears our cordon had a `BootcNode` that somebody deleted: it may be on its way down, so it takes
/// its slot back.
#[must_use]
pub fn join(facts: &Facts<'_>) -> Record {
    let ours = facts.node.is_some_and(|node| node.cordoned_by.is_some());
    let image = match &facts.wanted {
        Wanted::Wants(image) if facts.room || ours => Some(image.clone()),
        _ => None,
    };
    let node_uid = facts.node.map(|node| node.uid.clone()).unwrap_or_default();
    let mut record = Record {
        state: if image.is_some() {
            State::Staging
        } else {
            State::Idle
        },
        since: facts.now,
        clock: facts.now,
        written: facts.now,
        slot: ours.then_some(Slot {
            was_cordoned: false,
            since: facts.now,
        }),
        node_uid,
        ..Record::default()
    };
    if let Some(image) = &image {
        record.begin(image, facts.now, facts.now);
    }
    record.image = image;
    record
}

/// What the plain contract (spec, `in-reboot-slot`, `was-cordoned`) says of a node whose own
/// annotation is missing or unreadable. An approval that may still be out keeps its slot.
#[must_use]
pub fn rebuild(bootc: &BootcNodeView, facts: &Facts<'_>) -> Record {
    let image = bootc.spec.image.clone();
    let boot = bootc.spec.approved_boot.clone();
    let booted = facts.report.and_then(|report| report.booted.as_ref());
    let same_boot = boot.is_none() || boot.as_deref() == facts.boot();
    let approval = bootc.spec.booted.then(|| Approval {
        before: booted
            .filter(|_| same_boot)
            .map(|booted| booted.digest.clone()),
        boot,
        at: facts.now,
    });
    let mut record = Record {
        since: facts.now,
        clock: facts.now,
        written: facts.now,
        image,
        approval,
        node_uid: facts.node.map(|node| node.uid.clone()).unwrap_or_default(),
        ..Record::default()
    };
    let ours = facts.node.is_some_and(|node| node.cordoned_by.is_some());
    let out = facts.approval_out(&record);
    if bootc.in_reboot_slot || ours || out {
        let was_cordoned = bootc.was_cordoned.unwrap_or(facts.cordoned() && !ours);
        record.slot = Some(Slot {
            was_cordoned,
            since: facts.now,
        });
    }
    record.state = match (&record.slot, &record.approval) {
        (Some(_), Some(_)) => State::Rebooting,
        (Some(_), None) => State::Staging,
        (None, _) => State::Idle,
    };
    if let Some(image) = record.image.clone().filter(|_| record.slot.is_some()) {
        record.begin(&image, facts.now, facts.now);
    }
    record
}
