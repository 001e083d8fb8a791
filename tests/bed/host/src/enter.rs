//! Running a command in a host, as `ssh` would.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _, parent_id};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::chdir;
use rustix::io::{FdFlags, fcntl_setfd};

use crate::HELPER;
use crate::host::Host;

/// Exit code when the host could not be entered, as `ssh` has it.
pub(crate) const NOT_ENTERED: i32 = 255;
const BY_SIGNAL: i32 = 128;

/// Runs a command in all namespaces of the host; returns its exit code.
///
/// A process cannot move into a PID namespace, only its children: so this
/// enters all but the mounts and starts `bed-host enter`, which does the rest.
pub(crate) fn exec(host: &Host, arguments: &[String]) -> Result<i32> {
    let init = host.init()?;
    let kinds = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWCGROUP;
    setns(&init, kinds).context("cannot enter the host's namespaces")?;
    // Only now: what we have open is the host's for as long as we have it.
    let mounts = init.mounts()?;
    fcntl_setfd(&mounts, FdFlags::empty()).context("cannot hand the host's mounts down")?;
    let mounts = format!("/proc/self/fd/{}", mounts.as_raw_fd());
    let status = Command::new("/proc/self/exe")
        .arg0(HELPER)
        .args(["enter", "--mounts", &mounts, "--"])
        .args(arguments)
        .status()
        .context("cannot run in the host")?;
    let by_signal = || status.signal().map(|signal| BY_SIGNAL + signal);
    Ok(status.code().or_else(by_signal).unwrap_or(NOT_ENTERED))
}

/// Enters this mount namespace and becomes the command.
pub(crate) fn enter(mounts: &Path, arguments: &[String]) -> Result<std::convert::Infallible> {
    // Else an interrupted test would leave its command in the host, and the
    // host's shutdown would wait for it.
    set_pdeathsig(Signal::SIGKILL)?;
    if parent_id() != 0 {
        bail!("not called from outside of a host");
    }
    let mounts = File::open(mounts).context("the host's mounts were not handed down")?;
    setns(mounts, CloneFlags::CLONE_NEWNS).context("cannot enter the host's mounts")?;
    chdir("/")?;
    let Some((program, rest)) = arguments.split_first() else {
        bail!("no command was given");
    };
    let terminal = std::env::var_os("TERM").unwrap_or_else(|| "dumb".into());
    let error = Command::new(program)
        .args(rest)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin")
        .env("HOME", "/root")
        .env("USER", "root")
        .env("LANG", "C.UTF-8")
        .env("TERM", terminal)
        .exec();
    Err(error).with_context(|| format!("cannot run {program} in the host"))
}
