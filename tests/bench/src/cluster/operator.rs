//! The operator as it is shipped, as a process of its own.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use bed::{
    cargo, paths,
    process::{Daemon, Program},
};
use tokio::time::{Instant, sleep};

use crate::process::{Cpu, Memory};

/// How long it may take to have the cluster in view.
const SYNC: Duration = Duration::from_secs(120);
/// How long it may take to end.
const END: Duration = Duration::from_secs(10);
/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(5);
/// What it says when it has the cluster in view.
const SYNCED: &str = "the whole cluster is in view";

/// The operator at work. Dropped, it is killed.
pub(crate) struct Operator {
    daemon: Daemon,
    log: PathBuf,
}

/// What it is started with beside what it always is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extra {
    /// Flags.
    pub(crate) flags: Vec<String>,
    /// Variables of its environment.
    pub(crate) variables: Vec<(String, OsString)>,
}

/// The program that is measured.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Measures this program, or the operator as it is shipped, built now: the release profile, static.
pub(crate) fn choose(program: Option<PathBuf>) -> Result<()> {
    let program = match program {
        Some(program) => program.canonicalize().context("no such operator")?,
        None => build()?,
    };
    PROGRAM.get_or_init(|| program);
    Ok(())
}

fn build() -> Result<PathBuf> {
    let target = format!("{}-unknown-linux-musl", env::consts::ARCH);
    let status = cargo::command()
        .args([
            "build",
            "--release",
            "--package",
            "operator",
            "--target",
            &target,
        ])
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the operator does not build");
    Ok(paths::target().join(target).join("release/bootc-operator"))
}

impl Operator {
    /// Starts it with this kubeconfig; its files go below `dir`.
    pub(super) fn start(dir: &Path, kubeconfig: &str, extra: Extra) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("bootc-operator-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let file = dir.join("operator.kubeconfig");
        fs::write(&file, kubeconfig)?;
        let mut argv: Vec<OsString> = vec![
            PROGRAM.get().context("no operator was chosen")?.into(),
            "--leader-elect".into(),
            "--health-probe-bind-address=0".into(),
        ];
        argv.extend(extra.flags.into_iter().map(OsString::from));
        let mut env = vec![("KUBECONFIG".into(), file.into())];
        env.extend(extra.variables);
        let program = Program {
            name,
            argv,
            env,
            dir: dir.to_path_buf(),
        };
        Ok(Self {
            daemon: program.start()?,
            log: program.log(),
        })
    }

    /// Waits until it has the whole cluster in view.
    pub(crate) async fn until_synced(&mut self) -> Result<()> {
        let deadline = Instant::now() + SYNC;
        while !fs::read_to_string(&self.log)?.contains(SYNCED) {
            self.daemon.check()?;
            if Instant::now() > deadline {
                bail!("not synced: {}", self.daemon.last_words());
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits until it has ended, which it should not; why.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        loop {
            if let Err(error) = self.daemon.check() {
                return error;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Stops it, with the Lease given back.
    pub(crate) async fn stop(self) -> Result<()> {
        let daemon = self.daemon;
        tokio::task::spawn_blocking(move || daemon.stop(END)).await??;
        Ok(())
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// The CPU time that it has used.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        Cpu::of_process(self.pid())
    }

    /// The memory that it has.
    pub(crate) fn memory(&self) -> Result<Memory> {
        Memory::of_process(self.pid())
    }
}
