//! The helper that makes, boots and enters hosts of the test bed.

use std::process::ExitCode;

fn main() -> ExitCode {
    bed_host::cli::main()
}
