//! One played host: what it says and does next, given what its `BootcNode` wants.

use crd::{image::digest_of, names::node_reason};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    nodes,
    wire::{BootcNodeSpec, Object},
};

/// A host and what it has on its disk.
#[derive(Debug)]
pub(super) struct Host {
    /// Its number.
    n: usize,
    /// Its `BootcNode` as it was last seen.
    pub(super) seen: Option<Object<BootcNodeSpec>>,
    /// The image that it runs.
    pub(super) booted: String,
    staged: Option<String>,
    rollback: Option<String>,
    reboots: u32,
    /// What it did for its image, as an agent tells of it.
    steps: Vec<Value>,
    /// What its agent said last, and about which generation.
    told: Option<(&'static str, i64)>,
    /// It is acting.
    pub(super) busy: bool,
    /// The version that its agent's last report, or a later write, made of the `BootcNode`.
    pub(super) version: u64,
    /// The version that its last boot made of the Node; 0 before that.
    pub(super) node_version: u64,
}

/// What happens next on a host.
#[derive(Debug)]
pub(super) enum Act {
    /// Its agent says this, about this generation.
    Report(&'static str, i64, Value),
    /// It reboots; its kubelet sends this.
    Boot(String, Value),
}

impl Host {
    /// Host `n`, which runs `image`.
    pub(super) fn new(n: usize, image: &str) -> Self {
        Self {
            n,
            seen: None,
            booted: image.to_owned(),
            staged: None,
            rollback: None,
            reboots: 0,
            steps: Vec::new(),
            told: None,
            busy: false,
            version: 0,
            node_version: 0,
        }
    }

    /// The boot that it is in.
    pub(super) fn boot(&self) -> String {
        nodes::boot(self.n, self.reboots)
    }

    /// Whether it holds a slot.
    pub(super) fn holds_slot(&self) -> bool {
        let annotations = self.seen.as_ref().map(|seen| &seen.metadata.annotations);
        annotations.is_some_and(|all| all.contains_key(crd::names::ANNOTATION_IN_REBOOT_SLOT))
    }

    /// Whether it is told to run this image.
    pub(super) fn is_to_run(&self, image: &str) -> bool {
        let wanted =
            |seen: &Object<BootcNodeSpec>| seen.spec.desired_image.as_deref() == Some(image);
        self.seen.as_ref().is_some_and(wanted)
    }

    /// Whether it has staged this image and said so.
    pub(super) fn has_staged(&self, image: &str) -> bool {
        self.staged.as_deref() == Some(image) && self.has_told(node_reason::STAGED)
    }

    /// Whether it runs this image, as it is told to, and has said so.
    pub(super) fn runs(&self, image: &str) -> bool {
        self.booted == image && self.is_to_run(image) && self.has_told(node_reason::IDLE)
    }

    /// Whether it also holds nothing any more.
    pub(super) fn has_settled(&self, image: &str) -> bool {
        self.runs(image) && !self.holds_slot()
    }

    fn has_told(&self, reason: &'static str) -> bool {
        let generation = self.seen.as_ref().map(|seen| seen.metadata.generation);
        self.told
            .zip(generation)
            .is_some_and(|(told, now)| told == (reason, now))
    }

    /// What it does next; nothing if it has said and done everything.
    pub(super) fn next(&mut self) -> Option<Act> {
        let seen = self.seen.as_ref()?;
        let generation = seen.metadata.generation;
        let wanted = seen.spec.desired_image.clone();
        let wanted = wanted.unwrap_or_else(|| self.booted.clone());
        let approved = seen.spec.desired_image_state == "Booted"
            && seen.spec.approved_boot == Some(self.boot());
        let reason = if wanted == self.booted {
            self.staged = None;
            node_reason::IDLE
        } else if self.staged.as_ref() != Some(&wanted) {
            self.stage(wanted, generation)
        } else if !approved {
            node_reason::STAGED
        } else if self.has_told(node_reason::REBOOTING) {
            let boot = nodes::boot(self.n, self.reboots + 1);
            return Some(Act::Boot(wanted, nodes::booted(&boot)));
        } else {
            node_reason::REBOOTING
        };
        let news = self.told != Some((reason, generation));
        news.then(|| Act::Report(reason, generation, self.status(reason, generation)))
    }

    /// Says first that it stages, and has staged after that.
    fn stage(&mut self, wanted: String, generation: i64) -> &'static str {
        if self.told != Some((node_reason::STAGING, generation)) {
            self.steps = vec![step("Staging")];
            return node_reason::STAGING;
        }
        for step in &mut self.steps {
            step["end"] = json!(Timestamp::now());
        }
        self.staged = Some(wanted);
        node_reason::STAGED
    }

    /// The report has been taken.
    pub(super) fn reported(&mut self, reason: &'static str, generation: i64) {
        self.told = Some((reason, generation));
    }

    /// It is up again, in this image.
    pub(super) fn booted_into(&mut self, image: String) {
        self.rollback = Some(std::mem::replace(&mut self.booted, image));
        self.staged = None;
        self.reboots += 1;
        let steps = ["Unlocking", "Stopping", "Booting", "Returning"];
        self.steps.extend(steps.map(step));
    }

    fn status(&self, reason: &str, generation: i64) -> Value {
        let now = Timestamp::now();
        let info = |image: &String| {
            json!({
                "image": image, "imageDigest": digest_of(image), "version": "10.20260801.0",
                "timestamp": "2026-08-01T00:00:00Z", "architecture": "amd64",
                "softRebootCapable": false, "downloadOnly": false, "incompatible": false,
            })
        };
        let condition = |kind: &str, status: bool, reason: &str| {
            json!({
                "type": kind, "status": if status { "True" } else { "False" }, "reason": reason,
                "message": "", "lastTransitionTime": now,
            })
        };
        let idle = reason == node_reason::IDLE;
        json!({
            "observedGeneration": generation,
            "boot": self.boot(),
            "booted": info(&self.booted),
            "staged": self.staged.as_ref().map(info),
            "rollback": self.rollback.as_ref().map(info),
            "lastAttempt": {
                "imageDigest": digest_of(&self.booted), "boot": self.boot(), "time": now,
                "rollback": { "checksum": format!("{:064x}", self.n), "serial": 0 },
            },
            "steps": self.steps,
            "conditions": [
                condition("Idle", idle, reason), condition("Degraded", false, node_reason::HEALTHY),
            ],
        })
    }
}

/// A step that takes no time.
fn step(name: &str) -> Value {
    let now = Timestamp::now();
    json!({ "name": name, "start": now, "end": now })
}
