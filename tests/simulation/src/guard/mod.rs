//! What must hold whatever goes wrong, checked at each decision, each write and each deed on a host.

mod decisions;
mod deeds;
mod writes;

use std::collections::BTreeMap;

use fsm::{NodeName, PoolName, Rollout, Timestamp, command::NodeWrite, view::BootcNodeView};

pub(crate) use self::decisions::Knowledge;
use crate::api::BootcNode;

/// What is remembered of one node.
#[derive(Clone, Debug, Default)]
struct Memory {
    /// All its pods went since it was last schedulable.
    drained: bool,
    /// What the agent has just read again.
    confirmed: Option<BootcNode>,
    /// An admin's rollback has dropped what was staged since the agent last looked.
    dropped: bool,
    /// The image that it fell back from, and the newest wish for another try when that was approved;
    /// unless another image was wanted since.
    fell_back: Option<(String, Option<Timestamp>)>,
    /// That wish.
    wished: Option<Timestamp>,
    /// The boot in which we last asked for a reboot.
    asked_in: Option<String>,
}

/// Watches over a schedule.
#[derive(Clone, Debug, Default)]
pub(crate) struct Guard {
    nodes: BTreeMap<NodeName, Memory>,
    /// Somebody who is no leader has written, or a write came late.
    pub(crate) foreign: bool,
    /// Nobody told the operator of `BootcNode`s for longer than it waits for what it made.
    pub(crate) blind: bool,
    /// What does not hold, the first of it.
    pub(crate) broken: Option<String>,
    looks: u32,
}

impl Guard {
    pub(crate) fn fail(&mut self, text: impl FnOnce() -> String) {
        if self.broken.is_none() {
            self.broken = Some(text());
        }
    }

    fn node(&mut self, name: &NodeName) -> &mut Memory {
        self.nodes.entry(name.clone()).or_default()
    }

    /// A pool's incremental sum is the sum.
    pub(crate) fn sums<'a>(
        &mut self,
        rollout: &Rollout,
        pools: impl Iterator<Item = &'a PoolName>,
    ) {
        self.looks += 1;
        if !self.looks.is_multiple_of(16) {
            return;
        }
        for pool in pools {
            if let Some(sum) = rollout.sum(pool)
                && *sum != sum.recount()
            {
                self.fail(|| format!("the sum of {pool} is not that of its nodes"));
            }
        }
    }

    /// A drain found no pod left.
    pub(crate) fn drained(&mut self, name: &NodeName) {
        self.node(name).drained = true;
    }

    /// The node takes pods again.
    pub(crate) fn schedulable(&mut self, name: &NodeName) {
        self.node(name).drained = false;
    }

    pub(crate) fn evicted(&mut self, name: &NodeName, known_uncordoned: bool) {
        if known_uncordoned {
            self.fail(|| {
                format!("(2) a pod of {name} is evicted, and it is known to be uncordoned")
            });
        }
    }
}

/// May a reboot by this approval still come? (Of a report from another boot: not. Where no boot is
/// named: until the image runs. By an object that is being deleted: not.)
fn approval_out(view: &BootcNodeView) -> bool {
    let report = view.report.as_ref();
    let booted = report.and_then(|report| report.booted.as_ref());
    let boot = report.and_then(|report| report.boot.as_deref());
    let out = match view.spec.approved_boot.as_deref() {
        Some(approved) => boot == Some(approved),
        None => !booted
            .zip(view.spec.image.as_ref())
            .is_some_and(|(booted, image)| booted.is(image)),
    };
    view.spec.booted && !view.deleting && out
}

fn approves(before: &BootcNodeView, write: &NodeWrite) -> bool {
    write.spec.booted
        && (!before.spec.booted || before.spec.approved_boot != write.spec.approved_boot)
}
