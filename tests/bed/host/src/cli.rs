//! The command line of `bed-host`, for the bed and for people who debug it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::config::Paths;
use crate::host::Host;
use crate::{HELPER, boot, enter, supervise};

#[derive(Parser)]
#[command(name = HELPER, about = "One host of the test bed, made of namespaces")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Switch a host on and wait until it is off
    Run {
        /// The host's directory
        directory: PathBuf,
    },
    /// Run a command in a host
    Exec {
        /// The host's directory
        directory: PathBuf,
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Cut a host's power and give it back
    Cut {
        /// The host's directory
        directory: PathBuf,
    },
    /// Cut a host's power for good
    Off {
        /// The host's directory
        directory: PathBuf,
    },
    #[command(hide = true)]
    Boot {
        directory: PathBuf,
        #[arg(long)]
        boot_id: String,
        #[arg(long)]
        supervisor: u32,
    },
    #[command(hide = true)]
    Init {
        directory: PathBuf,
        #[arg(long)]
        boot_id: String,
        #[arg(long)]
        cgroup_v1: String,
    },
    #[command(hide = true)]
    Enter {
        #[arg(long)]
        mounts: PathBuf,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

/// The whole of the binary `bed-host`.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let entering = matches!(cli.verb, Verb::Exec { .. } | Verb::Enter { .. });
    let code = run(cli.verb).unwrap_or_else(|error| {
        eprintln!("{HELPER}: {error:#}");
        if entering { enter::NOT_ENTERED } else { 1 }
    });
    // Exit codes have eight bits; what does not fit is a failure all the same.
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

/// For binaries other than `bed-host` that power hosts on: when this process
/// was started as their helper, does that and returns the exit code with
/// which `main` must end. To be called before anything else, threads above all.
pub fn run_as_helper() -> Option<ExitCode> {
    let called = std::env::args_os().next()?;
    (called == HELPER).then(main)
}

fn run(verb: Verb) -> Result<i32> {
    match verb {
        Verb::Run { directory } => supervise::run(&Paths {
            directory: std::fs::canonicalize(directory)?,
        })
        .map(|()| 0),
        Verb::Exec { directory, command } => enter::exec(&Host::open(&directory)?, &command),
        Verb::Cut { directory } => Host::open(&directory)?.cut_power().map(|()| 0),
        Verb::Off { directory } => Host::open(&directory)?.pull_plug().map(|()| 0),
        Verb::Boot {
            directory,
            boot_id,
            supervisor,
        } => boot::hold(&Paths { directory }, &boot_id, supervisor),
        Verb::Init {
            directory,
            boot_id,
            cgroup_v1,
        } => boot::become_init(&Paths { directory }, &boot_id, &cgroup_v1)
            .map(|never| match never {}),
        Verb::Enter { mounts, command } => {
            enter::enter(&mounts, &command).map(|never| match never {})
        }
    }
}
