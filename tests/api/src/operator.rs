//! The operator's real code in this process, with the rights of its service account.

use std::{future::Future, io, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use kube::Client;
use operator::args::Args;
use tokio::{
    sync::{Mutex, MutexGuard, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tracing_subscriber::EnvFilter;

use crate::{Account, Suite};

/// How often a tag is resolved again.
pub const TAG_INTERVAL: Duration = Duration::from_secs(10);
/// What an operator of a test is started with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether it asks the Lease first.
    pub leader_elect: bool,
    /// How often a tag is resolved again.
    pub tag_interval: Duration,
}

impl Options {
    /// Acts at once, without the Lease.
    pub const UNELECTED: Self = Self {
        leader_elect: false,
        tag_interval: TAG_INTERVAL,
    };

    /// The configuration of an operator in this process.
    #[must_use]
    pub fn config(self) -> operator::Config {
        operator::Config::of_process(&self.args())
    }

    fn args(self) -> Args {
        Args::parse_from([
            "bootc-operator".to_owned(),
            format!("--leader-elect={}", self.leader_elect),
            format!("--tag-resolution-interval={}s", self.tag_interval.as_secs()),
            "--health-probe-bind-address=0".to_owned(),
            "--allow-insecure-registry".to_owned(),
        ])
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            leader_elect: true,
            ..Self::UNELECTED
        }
    }
}

/// How long a clean stop may take.
const STOP: Duration = Duration::from_secs(10);

/// One operator that can be stopped, killed and started again.
#[derive(Debug, Default)]
pub struct Operator {
    running: Mutex<Option<Running>>,
    turn: Mutex<()>,
}

#[derive(Debug)]
struct Running {
    task: JoinHandle<Result<()>>,
    stop: oneshot::Sender<()>,
}

impl Operator {
    /// Whoever stops it holds this until it runs again: tests go side by side.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Starts it; an error if it runs.
    pub async fn start(&self, suite: &Suite) -> Result<()> {
        let client = suite.client_of(Account::OPERATOR, None).await?;
        self.start_with(client, Options::default()).await
    }

    /// The same with this client and these options.
    pub async fn start_with(&self, client: Client, options: Options) -> Result<()> {
        let mut running = self.running.lock().await;
        if running.is_some() {
            bail!("the operator runs already");
        }
        let (stop, stopped) = oneshot::channel();
        let config = options.config();
        let shutdown = async {
            let _dropped_is_as_good = stopped.await;
        };
        let task = tokio::spawn(operator::run(client, config, shutdown));
        *running = Some(Running { task, stop });
        Ok(())
    }

    /// Stops it as SIGTERM does: the Lease is given back.
    pub async fn stop(&self) -> Result<()> {
        let running = self.running.lock().await.take();
        let running = running.context("the operator does not run")?;
        drop(running.stop);
        timeout(STOP, running.task).await???;
        Ok(())
    }

    /// The same where it may not run any more.
    pub async fn end(&self) -> Result<()> {
        if self.running.lock().await.is_some() {
            self.stop().await?;
        }
        Ok(())
    }

    /// Ends it and starts another one; `meanwhile` is done in between. Tests go side by side, so each
    /// has its turn.
    pub async fn restart(
        &self,
        suite: &Suite,
        meanwhile: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let _turn = self.turn.lock().await;
        self.stop().await?;
        let done = meanwhile.await;
        self.start(suite).await?;
        done
    }

    /// Ends it in the middle of whatever it does: the Lease runs out.
    pub async fn kill(&self) -> Result<()> {
        let running = self.running.lock().await.take();
        let running = running.context("the operator does not run")?;
        running.task.abort();
        let _aborted = running.task.await;
        Ok(())
    }

    /// Why it ended, if it did by itself.
    pub async fn check(&self) -> Result<()> {
        let mut running = self.running.lock().await;
        match running.as_mut() {
            Some(running) if running.task.is_finished() => match (&mut running.task).await {
                Ok(ended) => ended.context("the operator gave up"),
                Err(panic) => Err(panic).context("the operator fell over"),
            },
            _ => Ok(()),
        }
    }
}

/// Writes the log lines of everything in this process to a file of that name below the bed's
/// directory; answers where.
pub fn log_to_file(name: &str) -> Result<PathBuf> {
    let path = log_file(name)?;
    let file = std::fs::File::create(&path)?;
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,operator=debug"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(Arc::new(file))
        .try_init()
        .map_err(io::Error::other)?;
    bed::progress::say(format_args!("the operator's log: {}", path.display()));
    Ok(path)
}

/// Where [`log_to_file`] writes.
pub fn log_file(name: &str) -> Result<PathBuf> {
    Ok(bed::paths::bed()?.join(format!("api-tests-{name}.log")))
}
