//! The toy's hosts: an agent, a bootloader and a kubelet each, in a few lines.

use std::sync::Arc;

use super::{News, Toy};
use fsm::{
    Image, NodeName, Running,
    view::{Activity, AgentFault, AgentFaultKind, BootcNodeView, Report},
};

fn running(image: &Image) -> Running {
    Running {
        image: Some(image.as_str().to_owned()),
        digest: image.digest().to_owned(),
    }
}

/// What stands in a host beside the API objects.
#[derive(Clone, Debug)]
pub struct Host {
    pub booted: Image,
    pub staged: Option<Image>,
    pub boots: u32,
    /// Reboots that the agent asked for.
    pub reboots: u32,
    pub down: bool,
    /// The next reboot ends in the old image, and the agent says so.
    pub falls_back: bool,
    /// The next reboots lose the update without a word.
    pub loses_update: u32,
    /// Does not come back from a reboot.
    pub stays_down: bool,
    /// The agent does nothing.
    pub silent: bool,
    /// The agent cannot stage.
    pub broken: Option<String>,
    pub fell_back: Option<Image>,
    pub asked_reboot: bool,
    /// Its reboots are soft ones: the kernel stays.
    pub soft: bool,
}

impl Host {
    /// Runs `booted`, has nothing staged, does as it is told.
    pub fn new(booted: Image) -> Self {
        Self {
            booted,
            staged: None,
            boots: 1,
            reboots: 0,
            down: false,
            falls_back: false,
            loses_update: 0,
            stays_down: false,
            silent: false,
            broken: None,
            fell_back: None,
            asked_reboot: false,
            soft: false,
        }
    }

    /// The boot as the kubelet names it, and as the agent does.
    fn boot_names(&self, name: &NodeName) -> (String, String) {
        let full = format!("{name}-{}", self.boots);
        if !self.soft {
            return (full.clone(), full);
        }
        let kernel = format!("{name}-1");
        let agent = match self.boots {
            1 => kernel.clone(),
            boots => format!("{kernel}+{}", boots - 1),
        };
        (kernel, agent)
    }
}

impl Toy {
    pub(super) fn has_work(&self, name: &NodeName) -> bool {
        let Some(host) = self.hosts.get(name) else {
            return false;
        };
        if host.down {
            return !host.stays_down;
        }
        if host.silent || !self.nodes.get(name).is_some_and(|node| node.labelled) {
            return false;
        }
        let Some(bootc) = self.bootc.get(name) else {
            return false;
        };
        let (report, act) = self.next_report(name, host, bootc);
        host.asked_reboot
            || !matches!(act, Act::Nothing)
            || bootc.report.as_deref() != Some(&report)
    }

    /// What the agent says next, and whether it then stages or reboots.
    pub(super) fn next_report(
        &self,
        name: &NodeName,
        host: &Host,
        bootc: &BootcNodeView,
    ) -> (Report, Act) {
        let (_, boot) = host.boot_names(name);
        let mut report = Report {
            observed_generation: (!self.plain_agents).then_some(bootc.generation),
            boot: (!self.plain_agents).then(|| boot.clone()),
            booted: Some(running(&host.booted)),
            staged: host.staged.as_ref().map(running),
            activity: Activity::Idle,
            degraded: None,
            steps: Vec::new(),
        };
        let Some(wanted) = &bootc.spec.image else {
            return (report, Act::Nothing);
        };
        if *wanted == host.booted {
            return (report, Act::Nothing);
        }
        let fault = |kind, message: &str| {
            Some(AgentFault {
                kind,
                message: message.to_owned(),
            })
        };
        if host.fell_back.as_ref() == Some(wanted) {
            report.degraded = fault(AgentFaultKind::FellBack, "the host fell back");
            return (report, Act::Nothing);
        }
        if let Some(broken) = &host.broken {
            report.degraded = fault(AgentFaultKind::Error, broken);
            return (report, Act::Nothing);
        }
        if host.staged.as_ref() != Some(wanted) {
            let act = if bootc
                .report
                .as_ref()
                .is_some_and(|report| report.activity == Activity::Staging)
            {
                Act::Stage(wanted.clone())
            } else {
                Act::Nothing
            };
            report.activity = Activity::Staging;
            return (report, act);
        }
        if bootc.spec.booted
            && bootc
                .spec
                .approved_boot
                .as_ref()
                .is_none_or(|approved| *approved == boot)
        {
            report.activity = Activity::Rebooting;
            return (report, Act::Reboot);
        }
        report.activity = Activity::Staged;
        (report, Act::Nothing)
    }

    pub(super) fn host_step(&mut self, name: &NodeName) {
        if self.hosts[name].down {
            return self.boot(name);
        }
        let host = self.hosts[name].clone();
        if host.asked_reboot {
            return self.shut_down(name);
        }
        let bootc = self.bootc[name].clone();
        let (mut report, act) = self.next_report(name, &host, &bootc);
        match act {
            Act::Nothing => {}
            Act::Stage(image) => {
                report.staged = Some(running(&image));
                report.activity = Activity::Staged;
                self.hosts.get_mut(name).unwrap().staged = Some(image);
            }
            Act::Reboot => self.hosts.get_mut(name).unwrap().asked_reboot = true,
        }
        self.bootc.get_mut(name).unwrap().report = Some(Arc::new(report));
        self.changed(News::Bootc(name.clone()));
    }

    pub(super) fn shut_down(&mut self, name: &NodeName) {
        let host = self.hosts.get_mut(name).unwrap();
        (host.asked_reboot, host.down) = (false, true);
        host.reboots += 1;
        let since = self.node_time();
        let node = self.nodes.get_mut(name).unwrap();
        let cordoned = node.cordoned || self.let_go.contains(name);
        assert!(cordoned, "{name} goes down and is not cordoned");
        (node.ready, node.ready_since) = (Some(false), Some(since));
        self.changed(News::Node(name.clone()));
    }

    /// The host comes up again: with the staged image, if nothing is in the way.
    pub fn boot(&mut self, name: &NodeName) {
        let host = self.hosts.get_mut(name).unwrap();
        host.down = false;
        host.boots += 1;
        if let Some(staged) = host.staged.take() {
            if host.falls_back {
                host.fell_back = Some(staged);
            } else if host.loses_update > 0 {
                host.loses_update -= 1;
            } else {
                host.booted = staged;
            }
        }
        let (boot, _) = host.boot_names(name);
        let since = self.node_time();
        let node = self.nodes.get_mut(name).unwrap();
        (node.ready, node.ready_since, node.boot_id) = (Some(true), Some(since), Some(boot));
        self.changed(News::Node(name.clone()));
    }

    /// Power is cut: a boot that nobody asked for.
    pub fn power_cut(&mut self, name: &str) {
        let name = NodeName::from(name);
        let host = self.hosts.get_mut(&name).unwrap();
        host.asked_reboot = false;
        host.staged = None;
        self.boot(&name);
    }
}

#[derive(Clone, Debug)]
pub(super) enum Act {
    Nothing,
    Stage(Image),
    Reboot,
}
