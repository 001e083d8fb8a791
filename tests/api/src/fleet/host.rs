//! One played host: what bootc and the agent would do, without any of them.

use crd::{
    BootcNode, DesiredImageState,
    image::digest_of,
    names::{self, node_reason},
};
use kube::ResourceExt as _;
use serde_json::{Value, json};

/// What a host does when it shall stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Stages at once.
    #[default]
    Go,
    /// Stages until told otherwise.
    Hold,
    /// Fails.
    Fail,
}

/// What a host does when its reboot is approved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Boot {
    /// Reboots into the staged image.
    #[default]
    Go,
    /// Says that it reboots, and goes on running.
    Hold,
    /// Reboots, and is back in the image of before.
    FallBack,
    /// Goes down, and stays down.
    Lost,
    /// Reboots into the staged image; its Node does not get Ready.
    NotReady,
    /// Loses its power before the staged image is final: up again as before, with nothing staged.
    PowerCut,
}

/// What a host will do.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent wishes, not a state"
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    /// When it shall stage.
    pub stage: Stage,
    /// When it shall boot.
    pub boot: Boot,
    /// After the next reboot it boots as it should.
    pub once: bool,
    /// Its agent says and does nothing.
    pub mute: bool,
    /// The image has a digest of its own on this platform: what is booted and staged is named by that,
    /// and by the reference that was asked for.
    pub multi_arch: bool,
    /// Its agent is the Go operator's daemon: it knows no boots, generations and approvals of one boot.
    pub go_daemon: bool,
}

/// A host and what it has on its disk.
#[derive(Clone, Debug)]
pub(super) struct Host {
    booted: String,
    staged: Option<String>,
    rollback: Option<String>,
    /// Boots before the present one.
    pub(super) reboots: u32,
    /// The digest that it fell back from.
    fell_back: Option<String>,
    /// The newest request of a person for another try.
    retry: Option<String>,
    pub(super) plan: Plan,
}

/// What happens next on a host.
#[derive(Debug)]
pub(super) enum Act {
    /// The agent reports this status.
    Report(Value),
    /// The kubelet is gone, or there: is the node ready, in which boot?
    Node(bool, String),
}

impl Host {
    pub(super) fn booted(image: &str) -> Self {
        Self {
            booted: image.to_owned(),
            staged: None,
            rollback: None,
            reboots: 0,
            fell_back: None,
            retry: None,
            plan: Plan::default(),
        }
    }

    /// Somebody on the host boots another image; nothing is staged after that.
    pub(super) fn boot_into(&mut self, image: &str) {
        self.reboots += 1;
        self.staged = None;
        let before = std::mem::replace(&mut self.booted, image.to_owned());
        self.rollback = Some(before);
    }

    /// Somebody on the host drops what is staged.
    pub(super) fn unstage(&mut self) {
        self.staged = None;
    }

    /// The boot that it is in; the Node says the same.
    pub(super) fn boot(&self) -> String {
        format!("boot-{}", self.reboots + 1)
    }

    /// What the host does about its `BootcNode` as it is now.
    pub(super) fn step(&mut self, node: &BootcNode) -> Vec<Act> {
        if self.plan.mute {
            return Vec::new();
        }
        let Some(desired) = node.spec.desired_image.clone() else {
            return vec![self.report(node, node_reason::IDLE, None)];
        };
        if digest_of(&desired) == digest_of(&self.booted) {
            self.staged = None;
            self.fell_back = None;
            return vec![self.report(node, node_reason::IDLE, None)];
        }
        let retry = node.annotations().get(names::ANNOTATION_RETRY).cloned();
        if retry != self.retry {
            (self.retry, self.fell_back) = (retry, None);
        }
        if self.fell_back.as_deref() == digest_of(&desired) {
            return vec![self.report(node, node_reason::IDLE, Some(node_reason::FELL_BACK))];
        }
        if self.staged.as_deref() != Some(desired.as_str()) {
            return self.stage(node, desired);
        }
        if self.is_approved(node) {
            return self.reboot(node, &desired);
        }
        vec![self.report(node, node_reason::STAGED, None)]
    }

    fn is_approved(&self, node: &BootcNode) -> bool {
        let boot = node.spec.approved_boot.as_ref();
        node.spec.desired_image_state == DesiredImageState::Booted
            && (self.plan.go_daemon || boot.is_none_or(|boot| *boot == self.boot()))
    }

    fn stage(&mut self, node: &BootcNode, desired: String) -> Vec<Act> {
        let staging = self.report(node, node_reason::STAGING, None);
        match self.plan.stage {
            Stage::Hold => vec![staging],
            Stage::Fail => vec![self.report(node, node_reason::IDLE, Some(node_reason::ERROR))],
            Stage::Go => {
                self.staged = Some(desired);
                vec![staging, self.report(node, node_reason::STAGED, None)]
            }
        }
    }

    fn reboot(&mut self, node: &BootcNode, desired: &str) -> Vec<Act> {
        let mut acts = vec![self.report(node, node_reason::REBOOTING, None)];
        if self.plan.boot == Boot::Hold {
            return acts;
        }
        acts.push(Act::Node(false, self.boot()));
        if self.plan.boot == Boot::Lost {
            return acts;
        }
        let mut trouble = None;
        match self.plan.boot {
            Boot::FallBack => {
                self.reboots += 1;
                self.rollback = self.staged.take();
                self.fell_back = digest_of(desired).map(ToOwned::to_owned);
                trouble = Some(node_reason::FELL_BACK);
            }
            Boot::PowerCut => {
                self.reboots += 1;
                self.staged = None;
            }
            _ => self.boot_into(desired),
        }
        acts.push(Act::Node(self.plan.boot != Boot::NotReady, self.boot()));
        if std::mem::take(&mut self.plan.once) {
            self.plan.boot = Boot::Go;
        }
        acts.push(self.report(node, node_reason::IDLE, trouble));
        acts
    }

    fn report(&self, node: &BootcNode, idle: &str, degraded: Option<&str>) -> Act {
        let of_platform = super::digest(super::PLATFORM);
        let info = |image: &String| {
            let digest = digest_of(image).filter(|_| !self.plan.multi_arch);
            json!({ "image": image, "imageDigest": digest.unwrap_or(&of_platform) })
        };
        let is_idle = idle == node_reason::IDLE;
        let trouble = degraded.map_or("", |_| "as the test wants it");
        let ours = !self.plan.go_daemon;
        Act::Report(json!({
            "observedGeneration": node.metadata.generation.filter(|_| ours),
            "boot": ours.then(|| self.boot()),
            "booted": info(&self.booted),
            "staged": self.staged.as_ref().map(info),
            "rollback": self.rollback.as_ref().map(info),
            "conditions": [
                condition("Idle", is_idle, idle, ""),
                condition("Degraded", degraded.is_some(), degraded.unwrap_or(node_reason::HEALTHY), trouble),
            ],
        }))
    }
}

fn condition(kind: &str, status: bool, reason: &str, message: &str) -> Value {
    json!({
        "type": kind, "status": if status { "True" } else { "False" }, "reason": reason,
        "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}
