//! The supervisor of one host: its power supply, its firmware, its console.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::pty::openpty;
use nix::unistd::{Uid, setsid};
use sha2::{Digest as _, Sha256};

use crate::boots::{End, Record};
use crate::cgroup::{self, Machine};
use crate::config::{HostConfig, Paths, fresh_uuid};
use crate::host::Host;
use crate::{HELPER, boot, network};

/// How often something that has no event is looked at.
const TICK: Duration = Duration::from_millis(20);
/// How long a host may take to die when its power is cut.
const DEATH_DEADLINE: Duration = Duration::from_secs(5);
/// A host that fails to boot this often in a row is given up.
const TRIES: u32 = 3;

/// Runs the host until it is off. The host is off when it switches itself
/// off, when its `off` file says so, or when our standard input is closed,
/// which whoever started us holds open.
pub(crate) fn run(paths: &Paths) -> Result<()> {
    if !Uid::effective().is_root() {
        bail!("a host of the bed is made of namespaces and mounts, which needs root: run as root");
    }
    // A leader already has a session of its own.
    let _ = setsid();
    let _lock = lock(paths)?;
    let config = paths.load()?;
    remove_file(&paths.off())?;
    clear_cgroups(paths)?;
    network::make(config.network.as_ref(), &config.base)?;
    let console = console(paths)?;
    switch_off_with_starter(paths.clone());
    let done = Supervisor {
        record: Record::open(&paths.boots())?,
        cgroups: Machine::find()?.directories(&cgroup_name(&config, paths)),
        config,
        paths: paths.clone(),
        console,
    }
    .boot_until_off();
    remove_file(&paths.init())?;
    clear_cgroups(paths)?;
    done
}

/// Taken for as long as the host has power. The kernel lets go of it when we die.
fn lock(paths: &Paths) -> Result<File> {
    let file = File::create(paths.lock())
        .with_context(|| format!("no host at {}", paths.directory.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("the host at {} is on already", paths.directory.display())
        }
        Err(TryLockError::Error(error)) => Err(error).context("cannot lock the host"),
    }
}

/// Removes the cgroups that we or a killed supervisor before us made.
fn clear_cgroups(paths: &Paths) -> Result<()> {
    cgroup::remove(&cgroup::recorded(&paths.cgroups())?)?;
    remove_file(&paths.cgroups())
}

/// Unique on the machine: hosts of two clusters may have one name.
fn cgroup_name(config: &HostConfig, paths: &Paths) -> String {
    let hash = Sha256::digest(paths.directory.as_os_str().as_encoded_bytes());
    format!("bed-{}-{}", config.name, crate::hex(&hash[..4]))
}

/// Copies what the host writes to its terminal into `console.log`; returns
/// the host's end.
fn console(paths: &Paths) -> Result<OwnedFd> {
    let mut log = OpenOptions::new()
        .append(true)
        .create(true)
        .open(paths.console())
        .context("cannot open the host's console log")?;
    let terminal = openpty(None, None).context("cannot make a terminal for the host")?;
    let mut ours = File::from(terminal.master);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count) = ours.read(&mut buffer) {
            // A full disk must not stop the host.
            let _ = log.write_all(buffer.get(..count).unwrap_or_default());
        }
    });
    Ok(terminal.slave)
}

/// Ends the host when whoever started us is gone, however it went.
fn switch_off_with_starter(paths: Paths) {
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while std::io::stdin()
            .read(&mut buffer)
            .is_ok_and(|count| count > 0)
        {}
        let host = Host::at(paths);
        let deadline = Instant::now() + DEATH_DEADLINE;
        // The host may be between two boots, where there is nothing to kill.
        while Instant::now() < deadline {
            let _ = host.pull_plug();
            thread::sleep(TICK);
        }
        // All that is left dies with us.
        std::process::exit(1);
    });
}

struct Supervisor {
    config: HostConfig,
    paths: Paths,
    record: Record,
    cgroups: Vec<PathBuf>,
    console: OwnedFd,
}

impl Supervisor {
    fn boot_until_off(&mut self) -> Result<()> {
        let mut failures = 0;
        loop {
            let boot_id = fresh_uuid()?;
            self.record.powered(&boot_id)?;
            if !self.wait_for_firmware()? {
                self.record.ended(&boot_id, End::PowerCut)?;
                return Ok(());
            }
            let end = self.boot(&boot_id)?;
            self.record.ended(&boot_id, end)?;
            failures = if end == End::Failed { failures + 1 } else { 0 };
            if failures == TRIES {
                bail!(
                    "{} did not boot {TRIES} times in a row; {} says why",
                    self.config.name,
                    self.paths.console().display()
                );
            }
            if end == End::PowerOff || self.paths.off().exists() {
                return Ok(());
            }
        }
    }

    /// Waits as long as the host's firmware takes; false when it is switched
    /// off meanwhile.
    fn wait_for_firmware(&self) -> Result<bool> {
        let ready = Instant::now() + read_delay(&self.paths.boot_delay())?;
        while Instant::now() < ready && !self.paths.off().exists() {
            thread::sleep(TICK);
        }
        Ok(!self.paths.off().exists())
    }

    fn boot(&mut self, boot_id: &str) -> Result<End> {
        // Those of the boot before must go: the kubelet would ask containerd
        // about each of them, seconds apiece, before its node is ready.
        clear_cgroups(&self.paths)?;
        cgroup::record(&self.paths.cgroups(), &self.cgroups)?;
        Machine::find()?.make(&self.cgroups)?;
        let mut held = Command::new("/proc/self/exe")
            .arg0(HELPER)
            .arg("boot")
            .arg(&self.paths.directory)
            .args(["--boot-id", boot_id, "--supervisor"])
            .arg(std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(self.terminal()?)
            .stderr(self.terminal()?)
            .spawn()
            .context("cannot start a boot")?;
        self.record.started(boot_id)?;
        let status: ExitStatus = held.wait()?;
        Ok(boot::end(status))
    }

    fn terminal(&self) -> Result<Stdio> {
        Ok(Stdio::from(self.console.as_fd().try_clone_to_owned()?))
    }
}

/// The seconds in a file; none when there is no file.
fn read_delay(file: &Path) -> Result<Duration> {
    let Ok(text) = fs::read_to_string(file) else {
        return Ok(Duration::ZERO);
    };
    let seconds: f64 = text
        .trim()
        .parse()
        .with_context(|| format!("{} must hold a number of seconds", file.display()))?;
    Duration::try_from_secs_f64(seconds)
        .with_context(|| format!("{} holds no delay", file.display()))
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_delay_is_in_seconds() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("boot-delay");
        assert_eq!(read_delay(&file).unwrap(), Duration::ZERO);
        fs::write(&file, "1.5\n").unwrap();
        assert_eq!(read_delay(&file).unwrap(), Duration::from_millis(1500));
        for bad in ["-1", "soon"] {
            fs::write(&file, bad).unwrap();
            assert!(read_delay(&file).is_err(), "{bad}");
        }
    }
}
