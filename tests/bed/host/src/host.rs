//! A host as its cluster sees it: something with a power button.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::HELPER;
use crate::boots::{self, Boot};
use crate::config::{HostConfig, Paths};
use crate::guard::{Init, assert_bed_host_init};
use crate::network;

/// How often something that has no event is looked at.
const TICK: Duration = Duration::from_millis(20);

/// One host, on or off. All it is lies in its directory, so any process may
/// hold such a value.
#[derive(Clone, Debug)]
pub struct Host {
    paths: Paths,
}

impl Host {
    /// Makes a host that is off, with an empty disk: [`Host::disk`] must be
    /// installed before it can boot.
    pub fn create(directory: &Path, config: &HostConfig) -> Result<Self> {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let directory = fs::canonicalize(directory)?;
        let host = Self::at(Paths { directory });
        fs::create_dir_all(host.paths.disk())?;
        config.write_layer(&host.paths.layer())?;
        fs::write(host.paths.config(), serde_json::to_vec_pretty(config)?)?;
        Ok(host)
    }

    /// A host that was made before.
    pub fn open(directory: &Path) -> Result<Self> {
        let directory = fs::canonicalize(directory)
            .with_context(|| format!("no host at {}", directory.display()))?;
        let host = Self::at(Paths { directory });
        host.paths.load()?;
        Ok(host)
    }

    pub(crate) fn at(paths: Paths) -> Self {
        Self { paths }
    }

    /// Its configuration.
    pub fn config(&self) -> Result<HostConfig> {
        self.paths.load()
    }

    /// Its directory on the machine.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.paths.directory
    }

    /// Its disk, `/sysroot` of the running host.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.paths.disk()
    }

    /// What it wrote to its console, over all boots.
    #[must_use]
    pub fn console_log(&self) -> PathBuf {
        self.paths.console()
    }

    /// All its boots, the oldest first.
    pub fn boots(&self) -> Result<Vec<Boot>> {
        boots::read(&self.paths.boots())
    }

    /// Whether it has power, be it in its firmware or in its system.
    pub fn is_on(&self) -> Result<bool> {
        match File::open(self.paths.lock()) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).context("cannot open the host's lock"),
            Ok(lock) => match lock.try_lock_shared() {
                Ok(()) => Ok(false),
                Err(TryLockError::WouldBlock) => Ok(true),
                Err(TryLockError::Error(error)) => Err(error).context("cannot try the host's lock"),
            },
        }
    }

    /// Switches it on. It has power for as long as the returned value lives,
    /// and loses it when the calling process ends, however that ends.
    ///
    /// `program` is the binary `bed-host`, or any that begins with
    /// [`crate::cli::run_as_helper`]. What the supervisor has to say goes to
    /// this process's standard error.
    pub fn power_on(&self, program: &Path) -> Result<Power> {
        let supervisor = Command::new(program)
            .arg0(HELPER)
            .arg("run")
            .arg(&self.paths.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        Ok(Power { supervisor })
    }

    /// Its PID 1, checked to be that of a host and not the machine's.
    pub fn init(&self) -> Result<Init> {
        let name = self.config()?.name;
        let pid = fs::read_to_string(self.paths.init())
            .ok()
            .and_then(|text| text.trim().parse().ok());
        match pid {
            Some(pid) => assert_bed_host_init(pid, &name),
            None => bail!(
                "{name} does not run; see {}",
                self.paths.console().display()
            ),
        }
    }

    /// A command that runs in all namespaces of the host, with the standard
    /// streams that it is given. `program` is as for [`Host::power_on`]. Its
    /// exit code is the command's; 255 says that the host could not be entered.
    pub fn command<A: AsRef<OsStr>>(
        &self,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = Command::new(program);
        command
            .arg0(HELPER)
            .arg("exec")
            .arg(&self.paths.directory)
            .arg("--")
            .args(arguments);
        command
    }

    /// Cuts its power and gives it back at once: it boots again.
    pub fn cut_power(&self) -> Result<()> {
        self.kill()
    }

    /// Cuts its power; it stays off.
    pub fn pull_plug(&self) -> Result<()> {
        fs::write(self.paths.off(), "")?;
        self.kill()
    }

    fn kill(&self) -> Result<()> {
        self.init()?.kill()
    }

    /// How long it takes from power on to its system, at each boot from now on.
    pub fn set_boot_delay(&self, delay: Duration) -> Result<()> {
        fs::write(self.paths.boot_delay(), delay.as_secs_f64().to_string())?;
        Ok(())
    }

    /// Pulls its network cable out, or plugs it in; it must have power.
    pub fn plug_cable(&self, is_in: bool) -> Result<()> {
        let config = self.config()?;
        let network = config.network.context("the host has no network")?;
        network::plug(&network, &config.base, is_in)
    }

    /// Waits until it is off.
    pub fn wait_off(&self, deadline: Duration) -> Result<()> {
        let end = Instant::now() + deadline;
        while self.is_on()? {
            if Instant::now() > end {
                bail!(
                    "{} is still on after {deadline:?}",
                    self.directory().display()
                );
            }
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// Deletes all of it. It must be off.
    pub fn remove(self) -> Result<()> {
        if self.is_on()? {
            bail!("{} is on: switch it off first", self.directory().display());
        }
        crate::cgroup::remove(&crate::cgroup::recorded(&self.paths.cgroups())?)?;
        fs::remove_dir_all(self.directory())
            .with_context(|| format!("cannot remove {}", self.directory().display()))
    }
}

/// A host's power: dropped, the host is off.
#[derive(Debug)]
pub struct Power {
    supervisor: Child,
}

impl Power {
    /// Process id of the supervisor.
    #[must_use]
    pub fn supervisor(&self) -> u32 {
        self.supervisor.id()
    }

    /// Whether the host has gone off by itself, and how its supervisor ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.supervisor.try_wait()?)
    }
}

impl Drop for Power {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        // It ends by itself within seconds; there is nothing to do if not.
        let _ = self.supervisor.wait();
    }
}
