//! The operator's real code in this process, with the rights of its service account.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use kube::Client;
use operator::args::{Args, ProbeAddress};
use tokio::{
    sync::{Mutex, MutexGuard, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tracing_subscriber::EnvFilter;

use crate::{Account, Suite};

/// How often a tag is resolved again.
pub const TAG_INTERVAL: Duration = Duration::from_secs(10);
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
        self.start_with(client, true).await
    }

    /// The same with this client, and with or without the Lease.
    pub async fn start_with(&self, client: Client, leader_elect: bool) -> Result<()> {
        let mut running = self.running.lock().await;
        if running.is_some() {
            bail!("the operator runs already");
        }
        let (stop, stopped) = oneshot::channel();
        let args = Args {
            leader_elect,
            health_probe_bind_address: ProbeAddress::Off,
            tag_resolution_interval: TAG_INTERVAL,
            allow_insecure_registry: true,
            log_format: operator::args::LogFormat::Text,
        };
        let config = operator::Config::of_process(&args);
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
