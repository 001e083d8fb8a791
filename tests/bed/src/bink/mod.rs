//! `bink`: the bed by the command line of bink, which makes clusters of real
//! bootc VMs. What tests use of it is the same here and there: commands, flags,
//! standard output and exit codes. Progress goes to standard error.
//!
//! Commands that only the bed has are below `bink bed`.

mod bed_commands;
mod commands;
mod options;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;

use options::Cli;

/// The name by which a program of the bed is `bink`, whatever binary it is.
pub const NAME: &str = "bink";

/// The whole of the binary `bink`.
#[must_use]
pub fn main() -> ExitCode {
    // Hosts are powered and entered by this same program under another name.
    if let Some(code) = bed_host::cli::run_as_helper() {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _nobody_reads = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    commands::run(cli).unwrap_or_else(|error| {
        eprintln!("Error: {error:#}");
        ExitCode::FAILURE
    })
}

/// For binaries other than `bink` that make clusters: when this process was
/// started by that name, or as a host's helper, does that and returns the exit
/// code with which `main` must end. To be called before anything else, threads
/// above all. So a test needs no second build to have a `bink`.
#[must_use]
pub fn run_as_bink() -> Option<ExitCode> {
    let called = std::env::args_os().next()?;
    if Path::new(&called).file_name()? == NAME {
        return Some(main());
    }
    bed_host::cli::run_as_helper()
}
