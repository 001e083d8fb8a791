//! The program around the operator: its log, its runtime and the signals that end it.

use std::{io::IsTerminal as _, process::ExitCode};

use tokio::signal::unix::{SignalKind, signal};
use tracing::error;
use tracing_subscriber::EnvFilter;

use crate::{
    Config,
    args::{Args, LogFormat},
    connect, roots, run,
};

/// What is logged where `RUST_LOG` says nothing. The client's own lines repeat, without node or
/// pool, what is said here with them, and so do those of the exporter of traces.
const DEFAULT_FILTER: &str =
    "info,kube_client=off,opentelemetry=off,opentelemetry_sdk=off,opentelemetry_otlp=off";

/// Sets up logging for this process; to be called once.
pub fn log(format: LogFormat) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}

/// Runs the operator until SIGTERM or SIGINT.
#[must_use]
pub fn operate(args: &Args) -> ExitCode {
    if let Err(error) = roots::ensure() {
        error!(%error, "this image has no certificate authorities and cannot be given any: set SSL_CERT_FILE");
        return ExitCode::FAILURE;
    }
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Deciding is one task; the second thread keeps the Lease's renewal on time while a long list is
/// read.
#[tokio::main(worker_threads = 2)]
async fn serve(args: &Args) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let client = connect().await?;
    // Beside the connections, on their threads: a task of the main thread's own would cost two
    // switches between threads for every event of a watch.
    tokio::spawn(run(client, Config::of_process(args), shutdown)).await?
}
