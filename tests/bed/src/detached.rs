//! Our own program again, as a daemon that outlives the command that started it.
//!
//! The command shows what the daemon says until that is ready. Until then the
//! daemon also ends, in good order, when the command does.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, dup2_stderr, dup2_stdout, setsid};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use crate::progress::{self, Redirect};

/// Our own program, even when a build has put another one in its place.
pub const SELF: &str = "/proc/self/exe";

/// What a daemon says on its standard output: lines of JSON.
#[derive(Debug, Serialize, Deserialize)]
enum Saying {
    Progress(String),
    Ready,
    Failed(String),
}

/// Starts this program with other arguments and waits until it is ready.
pub fn launch(arguments: &[String]) -> Result<()> {
    let mut command = Command::new(SELF);
    command
        .arg0("bink")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start a daemon")?;
    // Open until the daemon is ready: by its end the daemon knows ours.
    let _stdin = child.stdin.take();
    let stdout = child.stdout.take().context("the daemon has no output")?;
    for line in BufReader::new(stdout).lines() {
        match serde_json::from_str(&line?).context("the daemon said something unknown")? {
            Saying::Progress(line) => progress::say(line),
            Saying::Ready => return Ok(()),
            Saying::Failed(error) => {
                child.wait()?;
                bail!("{error}")
            }
        }
    }
    bail!("the daemon ended without a word ({})", child.wait()?)
}

/// The daemon's side of [`launch`].
#[derive(Debug)]
pub struct Handshake {
    decided: Arc<AtomicBool>,
    progress: Option<Redirect>,
}

impl Handshake {
    /// To be called first: leaves the command's terminal, and asks this process
    /// to end when the command ends before we are ready.
    pub fn begin() -> Result<Self> {
        setsid().context("this is run by bink itself, not by hand")?;
        let decided = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&decided);
        thread::spawn(move || {
            let _until_closed = io::stdin().read(&mut [0]);
            if !seen.load(Ordering::SeqCst) {
                let _asked = kill(Pid::this(), Signal::SIGTERM);
            }
        });
        let progress = progress::redirect(|line| {
            let _nobody_listens = tell(&Saying::Progress(line));
        });
        Ok(Self {
            decided,
            progress: Some(progress),
        })
    }

    /// Lets go of the command's standard error, which would else stay open as
    /// long as we, or anything that we start, do. It goes to `log` instead.
    pub fn log_to(&self, log: &Path) -> Result<()> {
        let log = File::options().create(true).append(true).open(log);
        dup2_stderr(log.context("cannot open the daemon's log")?)?;
        Ok(())
    }

    /// Tells the command that all is well.
    pub fn ready(&mut self) -> Result<()> {
        self.progress = None;
        self.answer(&Saying::Ready)?;
        dup2_stdout(File::options().write(true).open("/dev/null")?)?;
        Ok(())
    }

    /// Tells the command why there is no daemon. Nobody listens once it was
    /// told that all is well.
    pub fn failed(&mut self, error: &anyhow::Error) -> Result<()> {
        if self.decided.load(Ordering::SeqCst) {
            eprintln!("{error:#}");
            return Ok(());
        }
        self.answer(&Saying::Failed(format!("{error:#}")))
    }

    fn answer(&self, saying: &Saying) -> Result<()> {
        self.decided.store(true, Ordering::SeqCst);
        tell(saying)
    }
}

fn tell(saying: &Saying) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", serde_json::to_string(saying)?)?;
    Ok(stdout.flush()?)
}

/// Waits for SIGTERM, SIGINT or SIGHUP: whoever sends one wants an orderly end.
pub async fn termination() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}
