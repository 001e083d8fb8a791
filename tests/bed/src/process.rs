//! Programs that run beside us, and never longer than we do.
//!
//! Each is started through `setpriv --pdeathsig` (util-linux), so that the
//! kernel kills it when we die, however that happens. The kernel takes the
//! death of the *thread* that forked for the parent's death, so one thread that
//! never ends does all the starting.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::run_dir::Mark;

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(10);
/// How much of a log's end an error shows.
const TAIL_BYTES: i64 = 4096;
const TAIL_LINES: usize = 12;

/// A program to run beside us, as often as it is needed.
#[derive(Debug, Clone)]
pub struct Program {
    /// What it is called in messages, its log file and its mark.
    pub name: String,
    /// The program and its arguments.
    pub argv: Vec<OsString>,
    /// Its environment, beside `PATH`; nothing else is inherited.
    pub env: Vec<(String, OsString)>,
    /// Where its log and its mark go.
    pub dir: PathBuf,
}

impl Program {
    /// The file that its output is appended to.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }

    /// Starts it.
    pub fn start(&self) -> Result<Daemon> {
        let log = File::options().create(true).append(true).open(self.log());
        let log = log.with_context(|| format!("cannot open the log of {}", self.name))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).args(&self.argv);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // A Ctrl-C at the terminal is ours to handle, in good order.
        command.process_group(0);
        let child = spawn(command).with_context(|| {
            format!(
                "cannot start {} with setpriv (package util-linux)",
                self.name
            )
        })?;
        let daemon = Daemon {
            name: self.name.clone(),
            log: self.log(),
            child,
        };
        if let Some(mark) = Mark::of(daemon.child.id()) {
            mark.leave(&self.dir, &self.name)?;
        }
        Ok(daemon)
    }
}

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// Forks in the thread that lives as long as the process.
fn spawn(command: Command) -> Result<Child> {
    static STARTER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in orders {
                let _nobody_waits = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, child) = mpsc::channel();
    starter
        .send((command, answer))
        .map_err(|_| anyhow!("the starting thread is gone"))?;
    Ok(child.recv().context("the starting thread is gone")??)
}

/// A program that was started. Dropped, it is killed.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Daemon {
    /// Its process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error with its last words when it has ended; to be asked while
    /// waiting for anything that it should do.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!(
                "{} ended with {status}; the end of {}:\n{}",
                self.name,
                self.log.display(),
                self.last_words()
            ),
        }
    }

    /// The last lines of its log.
    #[must_use]
    pub fn last_words(&self) -> String {
        last_words(&self.log)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Asks it to end and kills it when it has not after `patience`.
    pub fn stop(mut self, patience: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(POLL);
        }
        self.child.kill()?;
        Ok(self.child.wait()?)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
    }
}

/// The last lines of a log, or why there are none.
#[must_use]
pub fn last_words(log: &Path) -> String {
    tail(log).unwrap_or_else(|error| format!("({error})"))
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = i64::try_from(fs::metadata(path)?.len()).unwrap_or(i64::MAX);
    file.seek(SeekFrom::End(-TAIL_BYTES.min(length)))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines
        .get(lines.len().saturating_sub(TAIL_LINES)..)
        .unwrap_or_default()
        .join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(dir: &Path, script: &str) -> Program {
        let argv = ["sh", "-c", script].map(OsString::from).to_vec();
        Program {
            name: "shell".into(),
            argv,
            env: Vec::new(),
            dir: dir.into(),
        }
    }

    #[test]
    fn the_dead_are_reported_with_their_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut daemon = shell(dir.path(), "seq 30; exit 3").start().unwrap();
        let error = loop {
            match daemon.check() {
                Ok(()) => thread::sleep(POLL),
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(
            error.ends_with("\n29\n30") && !error.contains("\n18\n"),
            "{error}"
        );
    }

    #[test]
    fn a_dropped_daemon_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let daemon = shell(dir.path(), "exec sleep 600").start().unwrap();
        let mark = Mark::of(daemon.pid()).unwrap();
        drop(daemon);
        assert!(!mark.lives());
    }

    #[test]
    fn stop_is_polite_first() {
        let dir = tempfile::tempdir().unwrap();
        let script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done";
        let program = shell(dir.path(), script);
        let daemon = program.start().unwrap();
        while !daemon.last_words().contains("ready") {
            thread::sleep(POLL);
        }
        assert_eq!(
            daemon.stop(Duration::from_secs(20)).unwrap().code(),
            Some(7)
        );
    }
}
