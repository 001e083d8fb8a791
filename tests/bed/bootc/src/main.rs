//! `bootc` and, called by that name, `ostree`.

use std::process::ExitCode;

fn main() -> ExitCode {
    bed_bootc::main(std::env::args_os())
}
