//! bootc's command line: what it is asked, how long it may take, what this release of it can.

use std::time::Duration;

use fsm::host::{Can, Lock};
use serde_json::Value;

use super::{Status, progress};
use crate::host::{CommandError, Host};

/// `bootc status` waits silently while any other command of bootc or ostree holds the host's lock;
/// one that an admin runs by hand is given this long.
const STATUS_DEADLINE: Duration = Duration::from_secs(120);
/// `--help` reads no disk.
const HELP_DEADLINE: Duration = Duration::from_secs(20);

/// bootc on the host.
#[derive(Clone, Debug)]
pub struct Bootc {
    host: Host,
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no bootc.
    #[error(
        "there is no bootc on this host; take the node out of the pool, or install it with bootc"
    )]
    NoBootc,
    /// bootc failed or hung.
    #[error("{0}")]
    Failed(CommandError),
    /// bootc has not answered.
    #[error(
        "bootc status has not answered within {} s: another bootc or ostree command holds the host's lock, \
         or hangs", STATUS_DEADLINE.as_secs()
    )]
    Silent,
    /// bootc printed something else.
    #[error("bootc status printed no status: {0}")]
    Garbage(#[from] serde_json::Error),
}

impl Bootc {
    /// bootc on this host.
    #[must_use]
    pub fn on(host: Host) -> Self {
        Self { host }
    }

    /// What the host has.
    ///
    /// # Errors
    /// If bootc is missing, fails, hangs or prints garbage.
    pub async fn status(&self) -> Result<Status, ReadError> {
        let argv = ["bootc", "status", "--json", "--format-version=1"];
        let output = self.host.run(&argv, STATUS_DEADLINE).await;
        let output = output.map_err(|error| match error {
            CommandError::Missing(_) => ReadError::NoBootc,
            CommandError::TimedOut { .. } => ReadError::Silent,
            other => ReadError::Failed(other),
        })?;
        Ok(Status::parse(&output.stdout)?)
    }

    /// What bootc and ostree offer here; `None` if bootc does not even explain itself. Asked of `--help`:
    /// versions are no guide, vendors backport.
    pub async fn can(&self) -> Option<Can> {
        let switch = self.help(&["bootc", "switch", "--help"]).await?;
        let upgrade = self.help(&["bootc", "upgrade", "--help"]).await?;
        let undeploy = self.help(&["ostree", "admin", "undeploy", "--help"]).await;
        let status = self.help(&["ostree", "admin", "status", "--help"]).await;
        let prepare = ["ostree", "admin", "prepare-soft-reboot", "--help"];
        let undo = self.help(&prepare).await;
        // This option is hidden from the help, but one that bootc does not know makes that fail.
        let progress = ["bootc", "switch", "--progress-fd", "3", "--help"];
        let locks = upgrade.contains("--download-only") && upgrade.contains("--from-downloaded");
        Some(Can {
            lock: match (locks, switch.contains("--download-only")) {
                (false, _) => Lock::No,
                (true, false) => Lock::TwoSteps,
                (true, true) => Lock::OneStep,
            },
            unstage: undeploy.is_some() && status.is_some_and(|text| text.contains("--json")),
            soft_reboot: upgrade.contains("--soft-reboot")
                && undo.is_some_and(|text| text.contains("--reset")),
            progress: self.help(&progress).await.is_some(),
        })
    }

    /// Is the first deployment in boot order the staged one? Told by ostree, without any lock.
    ///
    /// # Errors
    /// If ostree does not say.
    pub async fn first_is_staged(&self) -> Result<bool, String> {
        let argv = ["ostree", "admin", "status", "--json"];
        let output = self.host.run(&argv, HELP_DEADLINE).await;
        let output = output.map_err(|error| error.to_string())?;
        let status: Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("ostree admin status printed no status: {error}"))?;
        let first = status.pointer("/deployments/0/staged");
        Ok(first.and_then(Value::as_bool) == Some(true))
    }

    async fn help(&self, argv: &[&str]) -> Option<String> {
        let output = self.host.run(argv, HELP_DEADLINE).await.ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Pull and deploy `image`, locked as the host can. With two steps the lock follows at once, in the
/// same unit, so that there is no unlocked image even if no agent is there to lock it; that the lock
/// failed is seen in the status and not in the exit code.
#[must_use]
pub fn stage(image: &str, lock: Lock, sigpolicy: bool, progress: bool) -> Vec<String> {
    let mut switch = vec!["bootc", "switch"];
    if sigpolicy {
        switch.push("--enforce-container-sigpolicy");
    }
    if lock == Lock::OneStep {
        switch.push("--download-only");
    }
    if lock != Lock::TwoSteps && !progress {
        switch.extend(["--", image]);
        return owned(&switch);
    }
    if progress {
        switch.extend(["--progress-fd", "3"]);
    }
    let mut script = format!(r#"{} -- "$1""#, switch.join(" "));
    if progress {
        script = progress::kept(&script);
    }
    if lock == Lock::TwoSteps {
        script.push_str(" && { bootc upgrade --download-only || true; }");
    }
    owned(&["sh", "-c", &script, "sh", image])
}

/// Lock what is staged.
#[must_use]
pub fn lock() -> Vec<String> {
    owned(&["bootc", "upgrade", "--download-only"])
}

/// Let the next reboot boot what is staged; if `soft`, prepare a soft one, where it can be. That comes
/// after the unlock: if it fails, the image is unlocked nevertheless.
#[must_use]
pub fn unlock(soft: bool) -> Vec<String> {
    let mut argv = vec!["bootc", "upgrade", "--from-downloaded"];
    if soft {
        argv.push("--soft-reboot=auto");
    }
    owned(&argv)
}

/// Undo the preparation of a soft reboot.
#[must_use]
pub fn undo_soft_reboot() -> Vec<String> {
    owned(&["ostree", "admin", "prepare-soft-reboot", "--reset"])
}

/// Swap the boot order.
#[must_use]
pub fn rollback() -> Vec<String> {
    owned(&["bootc", "rollback"])
}

fn owned(argv: &[&str]) -> Vec<String> {
    argv.iter().map(|&it| it.to_owned()).collect()
}
