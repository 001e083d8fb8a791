//! What an agent does on its host, judged by the host and the stored object.

use fsm::{NodeName, Timestamp, host, view::BootcNodeView};

use super::Guard;
use crate::{
    api::BootcNode,
    host::{Fate, Host, Staged},
};

impl Guard {
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
        let Some(BootcNode { view, status, .. }) = memory.confirmed.take() else {
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
        let ours = |it: &Staged| it.foreign || (it.disk.image.digest == digest && !it.locked);
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
        if asked_in.is_some_and(|it| it == boot) && host.fate != Fate::Hangs {
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

fn approves_here(view: &BootcNodeView, image: &str, host: &Host) -> bool {
    let boot = host.boot();
    view.spec.booted
        && !view.deleting
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
