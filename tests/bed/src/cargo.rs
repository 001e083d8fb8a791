//! Programs of this workspace that the bed runs or puts into images, built by
//! cargo when they are missing or old.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::paths;

/// Builds a program of a package as a static one, which runs on any host and in
/// an image `FROM scratch`. What cargo says goes to standard error.
pub fn static_program(package: &str, program: &str) -> Result<PathBuf> {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "build",
        "--quiet",
        "--package",
        package,
        "--bin",
        program,
        "--target",
        &target,
    ]);
    // Hosts have no debugger, and each cluster gets a copy.
    command.args(["--config", "profile.dev.strip=\"symbols\""]);
    // The few lines of C in a dependency need no other compiler than ours.
    command.env(format!("CC_{}", target.replace('-', "_")), "cc");
    command
        .current_dir(paths::project())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let status = command
        .status()
        .context("cannot run cargo: install Rust from https://rustup.rs")?;
    if !status.success() {
        bail!("cannot build {program}: if the target is missing, run `rustup target add {target}`");
    }
    Ok(paths::target().join(target).join("debug").join(program))
}
