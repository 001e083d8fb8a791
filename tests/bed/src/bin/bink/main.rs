//! `bink`: the bed by the command line of bink, which makes clusters of real
//! bootc VMs. What tests use of it is the same here and there: commands, flags,
//! standard output and exit codes. Progress goes to standard error.
//!
//! Commands that only the bed has are below `bink bed`.

mod bed_commands;
mod commands;
mod options;

use std::process::ExitCode;

use clap::Parser as _;

use options::Cli;

fn main() -> ExitCode {
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
