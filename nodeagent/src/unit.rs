//! Transient units of the host's systemd: everything that changes the host runs in one.
//!
//! A unit outlives the agent, is not charged to its pod, has the host's own environment, and gets its
//! SIGTERM at shutdown in time. (A bootc in the pod's cgroup holds the host's lock until the very end,
//! and an update that waits for it is lost.) Pulling takes long, so its unit is started, looked at, and
//! adopted by the next agent; all else is short and waited for.

use std::time::Duration;

use fsm::host::{Task, Unit};
use tokio::time::{sleep, timeout};

use crate::{
    bootc,
    host::{CommandError, Host, last_words},
};

/// The unit that pulls: one name, so that there are never two.
pub const STAGE_UNIT: &str = "bootc-operator-stage.service";
/// The unit of the short steps.
pub const STEP_UNIT: &str = "bootc-operator-step.service";

/// What a unit's description begins with; the image follows. It is how an adopted unit is recognised.
const STAGE_DESCRIPTION: &str = "bootc-operator: stage ";
/// The longest that a pull may take: an image proxy that lost its registry can hang for ever. Finished
/// layers are kept, so the next try goes on where this one stopped.
const STAGE_DEADLINE: &str = "RuntimeMaxSec=3600";
/// The longest that a short step may take; it may have to wait for the host's lock.
const STEP_DEADLINE: Duration = Duration::from_secs(300);
/// How often a short step of another agent is looked at.
const LOOK_AT_STEP: Duration = Duration::from_secs(1);
/// systemctl, systemd-run and journalctl talk to PID 1 or read a file.
const QUICK: Duration = Duration::from_secs(30);
/// Stopping a unit: systemd kills what does not stop after its own default of 90 seconds.
const STOP_DEADLINE: Duration = Duration::from_secs(120);

/// What systemd says of the unit that pulls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// There is none.
    Absent,
    /// It pulls.
    Running(Unit),
    /// It is through; what went wrong, if anything, in its own words.
    Ended {
        /// What it was for.
        unit: Unit,
        /// Its last words, if it failed.
        error: Option<String>,
    },
}

/// The host's systemd.
#[derive(Clone, Debug)]
pub struct Systemd {
    host: Host,
}

impl Systemd {
    /// That of this host.
    #[must_use]
    pub fn of(host: Host) -> Self {
        Self { host }
    }

    /// Starts to pull `image` by `argv`.
    ///
    /// # Errors
    /// If systemd does not start it.
    pub async fn start_stage(&self, image: &str, argv: &[String]) -> Result<(), CommandError> {
        let unit = format!("--unit={STAGE_UNIT}");
        let description = format!("--description={STAGE_DESCRIPTION}{image}");
        let deadline = format!("--property={STAGE_DEADLINE}");
        let folder = format!("--property=RuntimeDirectory={}", bootc::RUNTIME_FOLDER);
        let mut command = vec!["systemd-run", "--quiet", "--remain-after-exit", &unit];
        command.extend([description.as_str(), &deadline, &folder, "--"]);
        command.extend(argv.iter().map(String::as_str));
        self.host.run(&command, QUICK).await.map(|_| ())
    }

    /// What the unit that pulls does.
    ///
    /// # Errors
    /// If systemd does not answer.
    pub async fn stage(&self) -> Result<Stage, CommandError> {
        let shown = self.show(STAGE_UNIT).await?;
        let Some(image) = shown.description.strip_prefix(STAGE_DESCRIPTION) else {
            return Ok(Stage::Absent);
        };
        let unit = Unit {
            task: Task::Stage,
            image: image.to_owned(),
        };
        Ok(match (shown.active.as_str(), shown.sub.as_str()) {
            ("active", "exited") => Stage::Ended { unit, error: None },
            ("failed", _) => Stage::Ended {
                unit,
                error: Some(self.words(&shown.invocation, &shown.result).await),
            },
            ("inactive", _) => Stage::Absent,
            _ => Stage::Running(unit),
        })
    }

    /// Stops the unit that pulls, with all its children, and forgets it.
    ///
    /// # Errors
    /// If systemd does not stop it.
    pub async fn clear_stage(&self) -> Result<(), CommandError> {
        let stop = ["systemctl", "stop", STAGE_UNIT];
        let stopped = self.host.run(&stop, STOP_DEADLINE).await;
        // Fails where nothing failed, or where the unit is gone already.
        let _ = self.reset_failed(STAGE_UNIT).await;
        match self.stage().await? {
            Stage::Absent => Ok(()),
            _ => stopped.map(|_| ()),
        }
    }

    /// Waits for a short step that an agent before us left running, killed in the middle of it. True if
    /// one ran and has ended: what was decided before does not hold any more.
    ///
    /// One that outlasts even the time in which systemd kills it is not waited for any longer; the next
    /// step is refused then, in systemd's words.
    pub async fn outlast_step(&self) -> bool {
        if !self.is_in_step().await {
            return false;
        }
        tracing::info!("{STEP_UNIT} still runs, waiting for its end");
        let end = async {
            while self.is_in_step().await {
                sleep(LOOK_AT_STEP).await;
            }
        };
        let ended = timeout(STEP_DEADLINE + STOP_DEADLINE, end).await.is_ok();
        if !ended {
            tracing::warn!(
                "{STEP_UNIT} does not end; see systemctl status {STEP_UNIT} on the host"
            );
        }
        ended
    }

    async fn is_in_step(&self) -> bool {
        let shown = self.show(STEP_UNIT).await.unwrap_or_default();
        !matches!(shown.active.as_str(), "" | "inactive" | "failed")
    }

    /// Runs a short step to its end.
    ///
    /// # Errors
    /// If it fails or does not end; with its own last words.
    pub async fn step(&self, argv: &[String]) -> Result<(), CommandError> {
        let unit = format!("--unit={STEP_UNIT}");
        let limit = format!("--property=RuntimeMaxSec={}", STEP_DEADLINE.as_secs());
        let mut command = vec!["systemd-run", "--quiet", "--wait", &unit, &limit, "--"];
        command.extend(argv.iter().map(String::as_str));
        let _ = self.reset_failed(STEP_UNIT).await;
        let before = self.invocation(STEP_UNIT).await;
        let ended = self.host.run(&command, STEP_DEADLINE + QUICK).await;
        let Err(CommandError::Failed { status, words, .. }) = ended else {
            return ended.map(|_| ());
        };
        let invocation = self.invocation(STEP_UNIT).await;
        // Without a run of its own it was systemd-run that failed.
        let words = if invocation.is_empty() || invocation == before {
            words
        } else {
            self.words(&invocation, &words).await
        };
        let _ = self.reset_failed(STEP_UNIT).await;
        Err(CommandError::Failed {
            command: argv.join(" "),
            status,
            words,
        })
    }

    /// Asks for the reboot. If `soft`, for the soft one that is prepared. systemd makes that of any
    /// reboot then, but `systemctl reboot` asks for a full one once more if logind's answer is lost
    /// with the bus, which goes down first. Else for a full one, whatever somebody prepared.
    ///
    /// # Errors
    /// If it is refused (an inhibitor, say).
    pub async fn reboot(&self, soft: bool) -> Result<(), CommandError> {
        let full = "SYSTEMCTL_SKIP_AUTO_SOFT_REBOOT=1";
        let command: &[&str] = if soft {
            &["systemctl", "soft-reboot"]
        } else {
            &["env", full, "systemctl", "reboot"]
        };
        self.host.run(command, QUICK).await.map(|_| ())
    }

    /// How often systemd made a soft reboot since the kernel booted. `None` of a release that does not
    /// count them: there one cannot be told from none.
    ///
    /// # Errors
    /// If systemd does not answer.
    pub async fn soft_reboots(&self) -> Result<Option<u32>, CommandError> {
        let command = [
            "systemctl",
            "show",
            "--value",
            "--property=SoftRebootsCount",
        ];
        let output = self.host.run(&command, QUICK).await?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().parse().ok())
    }

    /// A property of the manager itself; empty where this systemd does not know it.
    pub async fn manager(&self, property: &str) -> String {
        let name = format!("--property={property}");
        let command = ["systemctl", "show", "--value", &name];
        self.value(&command).await
    }

    /// When the manager reached a stage of the boot, in seconds since 1970, where it says so.
    pub async fn reached(&self, stage: &str) -> Option<i64> {
        let name = format!("--property={stage}Timestamp");
        let command = ["systemctl", "show", "--value", "--timestamp=unix", &name];
        self.value(&command).await.strip_prefix('@')?.parse().ok()
    }

    /// Starts a unit of the host anew, if the host has it.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn restart(&self, unit: &str) -> Result<(), CommandError> {
        let is_known = ["systemctl", "show", "--value", "--property=LoadState", unit];
        if self.value(&is_known).await == "not-found" {
            return Ok(());
        }
        let command = ["systemctl", "restart", unit];
        self.host.run(&command, STOP_DEADLINE).await.map(|_| ())
    }

    async fn show(&self, unit: &str) -> Result<Shown, CommandError> {
        let properties = "--property=ActiveState,SubState,Result,Description,InvocationID";
        let command = ["systemctl", "show", properties, unit];
        let output = self.host.run(&command, QUICK).await?;
        Ok(Shown::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    async fn invocation(&self, unit: &str) -> String {
        let command = [
            "systemctl",
            "show",
            "--value",
            "--property=InvocationID",
            unit,
        ];
        self.value(&command).await
    }

    async fn value(&self, command: &[&str]) -> String {
        let output = self.host.run(command, QUICK).await.unwrap_or_default();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    async fn reset_failed(&self, unit: &str) -> Result<(), CommandError> {
        let command = ["systemctl", "reset-failed", unit];
        self.host.run(&command, QUICK).await.map(|_| ())
    }

    /// The last lines of one run of a unit.
    async fn words(&self, invocation: &str, result: &str) -> String {
        let field = format!("_SYSTEMD_INVOCATION_ID={invocation}");
        let command = [
            "journalctl",
            "--quiet",
            "--no-pager",
            "--output=cat",
            "--lines=20",
            &field,
        ];
        match self.host.run(&command, QUICK).await {
            Ok(output) if !output.stdout.trim_ascii().is_empty() => {
                last_words(&String::from_utf8_lossy(&output.stdout))
            }
            _ => format!("the unit ended with {result}, and the journal has none of its words"),
        }
    }
}

/// Properties of a unit, as `systemctl show` prints them.
#[derive(Debug, Default)]
struct Shown {
    active: String,
    sub: String,
    result: String,
    description: String,
    invocation: String,
}

impl Shown {
    fn parse(text: &str) -> Self {
        let mut shown = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let field = match name {
                "ActiveState" => &mut shown.active,
                "SubState" => &mut shown.sub,
                "Result" => &mut shown.result,
                "Description" => &mut shown.description,
                "InvocationID" => &mut shown.invocation,
                _ => continue,
            };
            value.clone_into(field);
        }
        shown
    }
}
