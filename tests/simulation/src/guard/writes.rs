//! Writes, judged by what is so when they take place.

use std::collections::BTreeMap;

use fsm::{
    NodeName, PoolName,
    command::{Effect, NodeWrite, PoolWrite},
    view::{Activity, BootcNodeView},
};

use super::{Guard, approval_out, approves};
use crate::{
    api::{Request, Server, Target, What},
    host::Host,
    marks::{Mark, Marks},
};

impl Guard {
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
                if server.bootc.get(name).is_some() {
                    marks.hit(Mark::DeletionHeld);
                }
                self.node(name).fell_back = None;
                if before.is_some_and(|it| it.in_reboot_slot) {
                    marks.hit(Mark::LeftInSlot);
                }
            }
            (Target::Pool(pool), What::Pool(PoolWrite::RemoveFinalizer)) => {
                let uid = request.stamp.as_ref().map(|stamp| stamp.uid.as_str());
                self.pool_goes(pool, uid, server);
            }
            _ => {}
        }
    }

    /// Then nothing of it is left, but what others keep from being deleted.
    fn pool_goes(&mut self, pool: &PoolName, uid: Option<&str>, server: &Server) {
        let owned = server.bootc.now.iter().filter(|(_, stored)| {
            let view = &stored.object.view;
            let owner = view.owner.as_ref();
            owner.map(|owner| owner.uid.as_str()) == uid && !view.deleting
        });
        let marked = server.nodes.now.iter().filter(|(name, stored)| {
            let node = &stored.object;
            let alone = node.claims.len() == 1 && node.claims.contains(pool);
            node.cordoned_by.as_ref() == Some(pool)
                || (node.labelled && alone && server.bootc.get(name).is_none())
        });
        let left = owned.map(|it| it.0).chain(marked.map(|it| it.0)).next();
        if let Some(node) = left.filter(|_| !self.foreign && !self.blind) {
            self.fail(|| format!("(5) {pool} goes and {node} was not let go"));
        }
    }

    fn uncordoned(&mut self, name: &NodeName, server: &Server) {
        let bootc = server.bootc.get(name).map(|it| &it.view);
        // What an agent without a boot has said since the decision tells nothing of when it was so.
        let named = |view: &&BootcNodeView| view.spec.approved_boot.is_some();
        if bootc.filter(named).is_some_and(approval_out) && !self.foreign {
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
            if write.spec.approved_boot.is_none() {
                marks.hit(Mark::ApprovedPlain);
            }
            self.approved(name, before, write, request, server, hosts);
        }
        // What was not told yet cannot be minded: the write is fenced by the BootcNode alone.
        let node = server.nodes.now.get(name);
        let node = node.filter(|it| Some(it.version) == request.by.node);
        let ours = node.is_some_and(|node| node.object.cordoned_by.is_some());
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
        // Nor can this.
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
}
