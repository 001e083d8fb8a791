//! What must hold whatever goes wrong, checked at each decision, each write and each deed on a host.

use std::collections::{BTreeMap, BTreeSet};

use fsm::{
    NodeName, PoolName, Rollout, Timestamp,
    command::{Decision, Effect, NodeWrite, PoolWrite},
    host,
    view::{Activity, BootcNodeView, ImageRef, Kept, NodeView, PoolView},
};

use crate::{
    api::{BootcNode, Request, Server, Target, What},
    host::Host,
    marks::{Mark, Marks},
};

/// What an operator knows when it decides.
pub(crate) struct Knowledge<'a> {
    pub(crate) nodes: BTreeMap<&'a NodeName, &'a NodeView>,
    pub(crate) bootc: BTreeMap<&'a NodeName, &'a BootcNodeView>,
    pub(crate) pool: Option<(&'a PoolName, &'a PoolView)>,
    /// Nodes that decisions under way give a slot.
    pub(crate) granting: BTreeSet<NodeName>,
}

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
        for effect in &decision.effects {
            match effect {
                Effect::Cordon { by } if Some(by) != decision.pool.as_ref() => {
                    self.fail(|| format!("(8) {name}: cordoned for {by}"));
                }
                Effect::Commit(write) => {
                    let Some(known) = known else { continue };
                    self.target(name, known, write, knows);
                    if is_grant(known, write, knows.nodes.get(name).copied()) {
                        marks.hit(Mark::Granted);
                        self.grant(name, knows);
                    }
                    if approves(known, write) {
                        self.approval(name, knows);
                    }
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
        let down = |node: &&&NodeName| {
            !holds(node)
                && knows.nodes.get(**node).is_some_and(|view| {
                    view.claims.contains(pool_name)
                        && same(node, view)
                        && (view.ready == Some(false)
                            || (view.cordoned && view.cordoned_by.is_none()))
                })
        };
        let down = owned.iter().filter(down).count();
        let limit = match pool.spec.max_unavailable.of(knows.nodes.len()) {
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

    /// A write of an operator took place.
    pub(crate) fn written(
        &mut self,
        request: &Request,
        before: Option<&BootcNodeView>,
        server: &Server,
        hosts: &BTreeMap<NodeName, Host>,
        marks: &mut Marks,
    ) {
        match (&request.target, &request.what) {
            (Target::Node(name), What::Effect(Effect::Uncordon)) => {
                self.uncordoned(name, server);
                self.node(name).drained = false;
            }
            (Target::BootcNode(name), What::Effect(Effect::Commit(write))) => {
                if let Some(before) = before {
                    self.committed(name, before, write, request, server, hosts, marks);
                }
            }
            (Target::BootcNode(name), What::Effect(Effect::Delete)) => {
                self.node(name).fell_back = None;
                if before.is_some_and(|it| it.in_reboot_slot) {
                    marks.hit(Mark::LeftInSlot);
                }
            }
            (Target::Pool(pool), What::Pool(PoolWrite::RemoveFinalizer)) => {
                let uid = request.stamp.as_ref().map(|stamp| stamp.uid.as_str());
                let left = server.bootc.now.iter().find(|(_, stored)| {
                    let owner = stored.object.view.owner.as_ref();
                    owner.map(|owner| owner.uid.as_str()) == uid
                });
                if let Some((node, _)) = left.filter(|_| !self.foreign && !self.blind) {
                    self.fail(|| format!("(5) {pool} goes and {node} was not let go"));
                }
            }
            _ => {}
        }
    }

    fn uncordoned(&mut self, name: &NodeName, server: &Server) {
        let bootc = server.bootc.get(name).map(|it| &it.view);
        if bootc.is_some_and(approval_out) && !self.foreign {
            self.fail(|| format!("(16) {name} is uncordoned while it may reboot"));
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a write and all around it")]
    fn committed(
        &mut self,
        name: &NodeName,
        before: &BootcNodeView,
        write: &NodeWrite,
        request: &Request,
        server: &Server,
        hosts: &BTreeMap<NodeName, Host>,
        marks: &mut Marks,
    ) {
        let retargeted = before.spec.image != write.spec.image;
        if retargeted {
            self.node(name).fell_back = None;
        }
        if retargeted && write.spec.booted {
            self.fail(|| format!("(4) {name}: a new image comes with Booted"));
        }
        if retargeted && write.in_reboot_slot {
            marks.hit(Mark::RetargetedInSlot);
        }
        if approval_out(before) && !write.spec.booted {
            marks.hit(Mark::Revoked);
        }
        if approval_out(before) && !write.in_reboot_slot && before.owner.is_some() {
            self.fail(|| format!("(16) {name} loses its slot while it may reboot"));
        }
        if approves(before, write) {
            marks.hit(Mark::Approved);
            self.approved(name, before, write, request, server, hosts);
        }
        let node = server.nodes.get(name);
        let ours = node.is_some_and(|node| node.cordoned_by.is_some());
        if before.in_reboot_slot && !write.in_reboot_slot && ours && !self.foreign {
            self.fail(|| format!("(5) {name} gives its slot back before its cordon"));
        }
    }

    fn approved(
        &mut self,
        name: &NodeName,
        before: &BootcNodeView,
        write: &NodeWrite,
        request: &Request,
        server: &Server,
        hosts: &BTreeMap<NodeName, Host>,
    ) {
        let Some(image) = &write.spec.image else {
            return self.fail(|| format!("(2) {name} is approved for nothing"));
        };
        self.node(name).wished = write.retry;
        let report = before.report.as_ref();
        let staged = report.is_some_and(|it| {
            it.activity == Activity::Staged && it.staged.as_ref().is_some_and(|it| it.is(image))
        });
        if !staged {
            self.fail(|| format!("(2) {name} is approved for {image}, which is not staged"));
        }
        if before.spec.image.as_ref() != Some(image) {
            self.fail(|| format!("(4) {name} is approved with the image in one write"));
        }
        if !write.in_reboot_slot {
            self.fail(|| format!("(16) {name} is approved without a slot"));
        }
        if report.and_then(|it| it.boot.as_deref()) != write.spec.approved_boot.as_deref() {
            self.fail(|| format!("(16) {name} is approved for another boot than it reports from"));
        }
        // What was not told yet cannot be minded: the write is fenced by the BootcNode alone.
        let node = server.nodes.now.get(name);
        if node.map(|it| it.version) != request.by.node {
            return;
        }
        let drained = self.node(name).drained;
        let pods = hosts.get(name).map_or(0, |host| host.pods);
        let cordoned = node.is_some_and(|it| it.object.cordoned);
        if !cordoned || !drained || pods > 0 {
            self.fail(|| {
                format!(
                    "(2) {name} is approved: cordoned {cordoned}, drained {drained}, {pods} pods"
                )
            });
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

    /// The agent has read everything again.
    pub(crate) fn confirmed(&mut self, name: &NodeName, node: &BootcNode) {
        let memory = self.node(name);
        memory.confirmed = Some(node.clone());
        memory.dropped = false;
    }

    /// An admin's rollback drops what is staged.
    pub(crate) fn dropped(&mut self, name: &NodeName) {
        self.node(name).dropped = true;
    }

    /// The agent is about to do something on the host.
    pub(crate) fn deed(&mut self, effect: &host::Effect, host: &Host) {
        let name = &host.name;
        match effect {
            host::Effect::Confirm { .. } | host::Effect::Reboot { .. } => {}
            host::Effect::Unlock { image, .. } => {
                let confirmed = self.node(name).confirmed.take();
                let right = confirmed.is_some_and(|it| approves_here(&it.view, image, host));
                if !right {
                    self.fail(|| {
                        format!("(3) {name} unlocks {image} and has not just read that it may")
                    });
                }
            }
            _ => self.node(name).confirmed = None,
        }
    }

    /// The agent asked for a reboot and the host said yes.
    pub(crate) fn reboot(&mut self, host: &Host, image: &str) {
        let name = &host.name;
        let boot = host.boot();
        let memory = self.node(name);
        let (fell_back, asked_in) = (
            memory.fell_back.clone(),
            memory.asked_in.replace(boot.clone()),
        );
        let dropped = memory.dropped;
        let Some(BootcNode { view, status }) = memory.confirmed.take() else {
            return self.fail(|| format!("(3) {name} reboots and has not just read that it may"));
        };
        if !approves_here(&view, image, host) {
            self.fail(|| {
                format!(
                    "(3) {name} reboots into {image} and may not: {:?}",
                    view.spec
                )
            });
        }
        let staged = host.staged.as_ref();
        let digest = image.rsplit_once('@').map_or(image, |(_, it)| it);
        // An admin's hand between the last look and the request is not to be seen.
        let ours =
            |it: &crate::host::Staged| it.foreign || (it.disk.image.digest == digest && !it.locked);
        if !staged.map_or(dropped, ours) {
            self.fail(|| format!("(3) {name} reboots into {image}, and {staged:?} is staged"));
        }
        if !view.in_reboot_slot {
            self.fail(|| format!("(16) {name} reboots without a slot"));
        }
        if host.booted.image.digest == digest {
            self.fail(|| format!("(12) {name} reboots into {image}, which runs"));
        }
        // A person's wish is for a try after the one that failed.
        let again =
            |(it, wished): &(String, Option<Timestamp>)| it == digest && view.retry <= *wished;
        if fell_back.as_ref().is_some_and(again) {
            self.fail(|| format!("(9) {name} tries {image} again, which fell back"));
        }
        if asked_in.is_some_and(|it| it == boot) && host.fate != crate::host::Fate::Hangs {
            self.fail(|| format!("(12) {name} is asked to reboot twice in {boot}"));
        }
        let told = status.as_ref().is_some_and(|it| {
            it.report.state == host::State::Rebooting
                && it.report.attempt.as_ref().is_some_and(|it| it.boot == boot)
        });
        if !told {
            self.fail(|| format!("(3) {name} reboots and its status does not say so: {status:?}"));
        }
    }

    /// The host was in that image and is back.
    pub(crate) fn fell_back(&mut self, name: &NodeName, digest: &str) {
        let memory = self.node(name);
        memory.fell_back = Some((digest.to_owned(), memory.wished));
    }

    /// Nobody knows any more what was tried.
    pub(crate) fn forget(&mut self, name: &NodeName) {
        self.node(name).fell_back = None;
    }

    /// A reboot hung and the host is helped: it may be asked once more.
    pub(crate) fn helped(&mut self, name: &NodeName) {
        self.node(name).asked_in = None;
    }
}

/// May a reboot by this approval still come? (Of a report from another boot: not.)
pub(crate) fn approval_out(view: &BootcNodeView) -> bool {
    let boot = view
        .report
        .as_ref()
        .and_then(|report| report.boot.as_deref());
    view.spec.booted && view.spec.approved_boot.as_deref() == boot
}

fn approves(before: &BootcNodeView, write: &NodeWrite) -> bool {
    write.spec.booted
        && (!before.spec.booted || before.spec.approved_boot != write.spec.approved_boot)
}

fn approves_here(view: &BootcNodeView, image: &str, host: &Host) -> bool {
    let boot = host.boot();
    view.spec.booted
        && view
            .spec
            .image
            .as_ref()
            .is_some_and(|it| it.as_str() == image)
        && view
            .spec
            .approved_boot
            .as_ref()
            .is_none_or(|it| *it == boot)
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
