//! Programs of this workspace that the bed runs or puts into images, built by
//! cargo when they are missing or old.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::paths;
use crate::progress::Step;

/// How often it is looked whether cargo has ended.
const POLL: Duration = Duration::from_millis(20);

/// cargo in the project's root, as a person would run it.
///
/// A program that cargo runs has variables of its own package, and some build
/// scripts look at those: left in place, they build their crates anew each time.
#[must_use]
pub fn command() -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    for (name, _) in env::vars_os() {
        let ours = name.to_str().is_some_and(|name| {
            let of_package = ["CARGO_PKG_", "CARGO_BIN_", "CARGO_MANIFEST_"];
            of_package.iter().any(|prefix| name.starts_with(prefix))
                || [
                    "CARGO",
                    "CARGO_CRATE_NAME",
                    "CARGO_PRIMARY_PACKAGE",
                    "LD_LIBRARY_PATH",
                ]
                .contains(&name)
        });
        if ours {
            command.env_remove(name);
        }
    }
    // The few lines of C in a dependency need no other compiler than ours.
    command.env("CC_x86_64_unknown_linux_musl", "cc");
    command.env("CC_aarch64_unknown_linux_musl", "cc");
    command.current_dir(paths::project()).stdin(Stdio::null());
    command
}

/// A folder with static programs that were built before: what is there is not built again.
const BUILT: &str = "BED_PROGRAMS";

/// A static program that was built before, if `BED_PROGRAMS` names a folder that has it.
#[must_use]
pub fn built(program: &str) -> Option<PathBuf> {
    let folder = env::var_os(BUILT).filter(|folder| !folder.is_empty())?;
    let path = paths::project().join(folder).join(program);
    path.is_file().then_some(path)
}

/// Builds the programs of a package for this machine, in the profile for development, and answers
/// the folder that they are in. What cargo says goes to standard error.
pub fn programs(package: &str, programs: &[&str]) -> Result<PathBuf> {
    let before: Option<Vec<_>> = programs.iter().map(|program| built(program)).collect();
    if let Some(folder) = before.iter().flatten().find_map(|path| path.parent()) {
        return Ok(folder.to_owned());
    }
    let mut command = command();
    command.args([
        "build",
        "--quiet",
        "--locked",
        "--bins",
        "--package",
        package,
    ]);
    if !wait(command, package)? {
        bail!("cannot build {package}");
    }
    Ok(paths::target().join("debug"))
}

/// Builds a program of a package as a static one, which runs on any host and in
/// an image `FROM scratch`. What cargo says goes to standard error.
pub fn static_program(package: &str, program: &str) -> Result<PathBuf> {
    if let Some(path) = built(program) {
        return Ok(path);
    }
    let target = format!("{}-unknown-linux-musl", env::consts::ARCH);
    let mut command = command();
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
    if !wait(command, program)? {
        bail!("cannot build {program}: if the target is missing, run `rustup target add {target}`");
    }
    Ok(paths::target().join(target).join("debug").join(program))
}

/// Runs cargo and shows that something is built; whether it was.
fn wait(mut command: Command, what: &str) -> Result<bool> {
    let mut child = command
        .stdout(Stdio::null())
        .spawn()
        .context("cannot run cargo: install Rust from https://rustup.rs")?;
    let mut step = Step::quiet(format!("building {what}"));
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        step.tick("");
        thread::sleep(POLL);
    };
    step.done();
    Ok(status.success())
}
