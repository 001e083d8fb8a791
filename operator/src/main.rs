//! `bootc-operator`: reads its flags, sets up logging and runs the operator until it is told to
//! stop.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, IsTerminal as _, Write as _},
    path::Path,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser as _;
use operator::{
    Config,
    args::{Args, Command, LogFormat, Output},
    connect,
    journal::{Format, Summary, replay},
    roots, run,
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
    if let Some(Command::Replay { file, output, all }) = &args.command {
        return match decide_again(file, *output, *all) {
            Ok(summary) => tell(&summary),
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
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

fn decide_again(file: &Path, output: Output, all: bool) -> anyhow::Result<Summary> {
    let journal: Box<dyn BufRead> = if file.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
        Box::new(BufReader::new(file))
    };
    let format = match output {
        Output::Text => Format::Text,
        Output::Json => Format::Json,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let summary = replay(journal, format, all, &mut out)?;
    out.flush()?;
    Ok(summary)
}

/// The replay's last words, and its exit code.
fn tell(summary: &Summary) -> ExitCode {
    let Summary {
        inputs,
        commands,
        differing,
        lost,
        ..
    } = summary;
    eprintln!("{inputs} inputs, {commands} commands");
    if summary.torn {
        eprintln!("the last line is torn: the operator ended while it wrote it");
    }
    if summary.full {
        eprintln!("the journal was full: it lacks what came after");
    }
    if *lost > 0 {
        eprintln!("{lost} lines are missing (the disk was too slow): what follows them may differ");
    }
    if *differing > 0 {
        eprintln!(
            "on {differing} inputs something else was decided then, by operator {} (this is {})",
            summary.version,
            env!("CARGO_PKG_VERSION")
        );
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
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
