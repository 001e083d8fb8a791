//! `kubectl bootc`: what a rollout does, why it does not go on, and the few things that a person can
//! ask of it.
//!
//! What it shows is decided by the operator's own rules: the objects of the cluster are folded into a
//! [`fsm::Rollout`] here as they are there, and nothing that this asks for is done. It reads with the
//! rights of whoever calls it; what may not be read is left out, and said.

mod ages;
mod change;
mod cli;
mod cluster;
mod complete;
mod forecast;
mod history;
mod model;
mod output;
mod rows;
mod status;
mod svg;
mod table;
mod timeline;
mod why;

use std::{io, process::ExitCode};

use clap::Parser as _;

use cli::{Cli, Command};
use cluster::Cluster;

/// How it ended, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All is as it should be, or what was asked for is done.
    Good,
    /// Something is not up to date, waits or is degraded.
    Waits,
}

/// The exit code of [`Verdict::Waits`].
const WAITS: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            // 2 is taken: clap's own code for a wrong command line would look like a rollout.
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let verdict = match runtime {
        Ok(runtime) => runtime.block_on(run(&cli)),
        Err(error) => Err(error.into()),
    };
    match verdict {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Waits) => ExitCode::from(WAITS),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> anyhow::Result<Verdict> {
    match &cli.command {
        Command::Completion { shell } => return complete::script(*shell),
        Command::Complete { words } => return complete::words(&cli.connection, words).await,
        Command::Timeline(args) if args.journal.is_some() => return timeline::of_journal(args),
        _ => {}
    }
    let cluster = Cluster::connect(&cli.connection).await?;
    match &cli.command {
        Command::Status(args) => status::run(&cluster, args).await,
        Command::Why(args) => why::run(&cluster, args).await,
        Command::History(args) => history::run(&cluster, args).await,
        Command::Timeline(args) => timeline::run(&cluster, args).await,
        Command::Pause { pool } => change::pause(&cluster, pool, true).await,
        Command::Resume { pool } => change::pause(&cluster, pool, false).await,
        Command::Retry { nodes } => change::retry(&cluster, nodes).await,
        Command::SetImage(args) => change::set_image(&cluster, args).await,
        Command::Completion { .. } | Command::Complete { .. } => Ok(Verdict::Good),
    }
}

/// Whoever read the output has enough of it.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}
