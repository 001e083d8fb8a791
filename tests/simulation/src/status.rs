//! What the agent writes into its object and reads of it.

use fsm::{
    Running, host,
    view::{Activity, AgentFault, AgentFaultKind, BootcNodeView, Report},
};

/// The agent's part of the status.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Status {
    pub(crate) generation: i64,
    pub(crate) boot: String,
    pub(crate) booted: Option<host::Image>,
    pub(crate) staged: Option<host::Image>,
    pub(crate) report: host::Report,
    /// The operator is told neither generation nor boot, as by the Go daemon.
    pub(crate) plain: bool,
}

impl Status {
    /// What the operator makes of it.
    pub(crate) fn seen(&self) -> Report {
        let running = |image: &host::Image| Running {
            image: Some(image.reference.clone()),
            digest: image.digest.clone(),
        };
        let fault = |it: &host::Degraded| AgentFault {
            kind: match it.reason {
                host::DegradedReason::Error => AgentFaultKind::Error,
                host::DegradedReason::FellBack => AgentFaultKind::FellBack,
                host::DegradedReason::NotBootc => AgentFaultKind::NotBootc,
            },
            message: it.message.clone(),
        };
        Report {
            observed_generation: (!self.plain).then_some(self.generation),
            boot: (!self.plain).then(|| self.boot.clone()),
            booted: self.booted.as_ref().map(running),
            staged: self.staged.as_ref().map(running),
            activity: match self.report.state {
                host::State::Idle => Activity::Idle,
                host::State::Staging => Activity::Staging,
                host::State::Staged => Activity::Staged,
                host::State::Rebooting => Activity::Rebooting,
            },
            degraded: self.report.degraded.as_ref().map(fault),
            steps: Vec::new(),
        }
    }

    /// What an agent that starts reads back of its predecessor.
    pub(crate) fn reported(&self) -> host::Reported {
        host::Reported {
            report: Some(self.report.clone()),
            boot: Some(self.boot.clone()),
            booted: self.booted.as_ref().map(|it| it.digest.clone()),
            staged: self.staged.as_ref().map(|it| it.reference.clone()),
        }
    }
}

/// What the agent reads of its object; one that is being deleted asks for nothing any more.
pub(crate) fn wanted(view: &BootcNodeView) -> host::Wanted {
    let spec = &view.spec;
    let Some(image) = spec.image.as_ref().filter(|_| !view.deleting) else {
        return host::Wanted::Nothing;
    };
    host::Wanted::Image(host::Spec {
        image: image.as_str().to_owned(),
        boot_it: spec.booted,
        approved_boot: spec.approved_boot.clone(),
        soft_reboot: spec.soft_reboot,
        secret: spec.secret.as_ref().map(|secret| host::Secret {
            namespace: secret.namespace.clone(),
            name: secret.name.clone(),
            hash: spec.secret_hash.clone().unwrap_or_default(),
        }),
        retry: view.retry,
    })
}
