//! `bootc-operator`: reads its flags, sets up logging and runs the operator until it is told to
//! stop.

use std::{io::IsTerminal as _, process::ExitCode};

use clap::Parser as _;
use operator::{
    Config,
    args::{Args, LogFormat},
    connect, roots, run,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing::error;
use tracing_subscriber::EnvFilter;

/// What is logged where `RUST_LOG` says nothing. The client's own lines repeat, without node or
/// pool, what is said here with them.
const DEFAULT_FILTER: &str = "info,kube_client=off";

fn main() -> ExitCode {
    let args = Args::parse();
    log(args.log_format);
    if let Err(error) = roots::ensure() {
        error!(%error, "this image has no certificate authorities and cannot be given any: set SSL_CERT_FILE");
        return ExitCode::FAILURE;
    }
    serve(&args)
}

/// Deciding is one task; the second thread keeps the Lease's renewal on time while a long list is
/// read.
#[tokio::main(worker_threads = 2)]
async fn serve(args: &Args) -> ExitCode {
    match operate(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn operate(args: &Args) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let client = connect().await?;
    run(client, Config::of_process(args), shutdown).await
}

fn log(format: LogFormat) {
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
