//! One boot: from the supervisor to the host's PID 1.
//!
//! The supervisor starts `bed-host boot`, which starts `bed-host init` as the
//! first process of a PID namespace and waits for it; that makes the other
//! namespaces, builds the root and becomes systemd. Each dies with the one that started it, so that a killed supervisor
//! leaves no process.

use std::fs::File;
use std::io::pipe;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{dup2_stdin, sethostname, ttyname};

use crate::HELPER;
use crate::boots::End;
use crate::cgroup;
use crate::config::Paths;
use crate::root::{self, BootInfo};

/// Exit code of `bed-host boot` when the host could not be booted.
const NOT_BOOTED: i32 = 125;
/// What is added to a signal's number to make it an exit code, as shells do.
const BY_SIGNAL: i32 = 128;

/// Starts the host's PID 1 and waits for it; returns the exit code by
/// which [`end`] knows how it went. `supervisor` is the process that started us.
pub(crate) fn hold(paths: &Paths, boot_id: &str, supervisor: u32) -> Result<i32> {
    set_pdeathsig(Signal::SIGKILL)?;
    if parent_id() != supervisor {
        bail!("the supervisor is gone");
    }
    let machine = cgroup::Machine::find()?;
    unshare(CloneFlags::CLONE_NEWPID)
        .context("cannot make the host's PID namespace; this needs root")?;
    // Never written to: that it is open says that we live.
    let (theirs, _ours) = pipe()?;
    let mut init = Command::new("/proc/self/exe")
        .arg0(HELPER)
        .arg("init")
        .arg(&paths.directory)
        .args(["--boot-id", boot_id, "--cgroup-v1", &machine.v1_view()])
        .stdin(Stdio::from(theirs))
        .spawn()
        .context("cannot start the host's PID 1")?;
    std::fs::write(paths.init(), init.id().to_string()).context("cannot write the id of PID 1")?;
    let status = init.wait().context("cannot wait for the host's PID 1")?;
    Ok(exit_code(status))
}

fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| BY_SIGNAL + signal))
        .unwrap_or(NOT_BOOTED)
}

/// How a boot ended, by the status of `bed-host boot`. The kernel ends PID 1
/// of a namespace by SIGHUP for reboot(2)'s restart and SIGINT for its power off.
pub(crate) fn end(status: ExitStatus) -> End {
    const REBOOT: i32 = BY_SIGNAL + Signal::SIGHUP as i32;
    const POWER_OFF: i32 = BY_SIGNAL + Signal::SIGINT as i32;
    const KILLED: i32 = BY_SIGNAL + Signal::SIGKILL as i32;
    match exit_code(status) {
        REBOOT => End::Reboot,
        POWER_OFF => End::PowerOff,
        KILLED => End::PowerCut,
        _ => End::Failed,
    }
}

/// Becomes the host's systemd. Returns only if it cannot.
pub(crate) fn become_init(
    paths: &Paths,
    boot_id: &str,
    cgroup_v1: &str,
) -> Result<std::convert::Infallible> {
    set_pdeathsig(Signal::SIGKILL)?;
    if parent_is_gone()? {
        bail!("the supervisor is gone");
    }
    // We alone: where a cgroup has processes of its own besides systemd, v2
    // lets systemd give no controllers to those below.
    cgroup::join(&cgroup::recorded(&paths.cgroups())?)?;
    // Not earlier: the root of all in a mount namespace changes with ours, and
    // who started us still has files to write on the machine.
    unshare(
        CloneFlags::CLONE_NEWCGROUP
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS,
    )
    .context("cannot make the host's namespaces; this needs root")?;
    let config = paths.load()?;
    let plan = bed_bootc::boot::plan(&paths.disk())?;
    sethostname(&config.name).context("cannot set the hostname")?;
    let console = console()?;
    let info = BootInfo {
        plan: &plan,
        boot_id,
        cgroup_v1,
        console: &console,
    };
    root::enter(&config, paths, &info)?;
    give_up_the_machine()?;
    dup2_stdin(File::open("/dev/null").context("the host has no /dev/null")?)?;
    let error = Command::new("/usr/lib/systemd/systemd")
        .arg0("/sbin/init")
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin")
        .env("LANG", "C.UTF-8")
        // Nobody answers systemd's questions about the terminal.
        .env("TERM", "dumb")
        .exec();
    Err(error).context("cannot run systemd of the base tree")
}

/// Takes from the host, for good, what would only reach the machine: modules,
/// ports, clock.
fn give_up_the_machine() -> Result<()> {
    use rustix::thread::CapabilitySet;
    for capability in [
        CapabilitySet::SYS_MODULE,
        CapabilitySet::SYS_RAWIO,
        CapabilitySet::SYS_TIME,
    ] {
        rustix::thread::remove_capability_from_bounding_set(capability)
            .with_context(|| format!("cannot give up {capability:?}"))?;
    }
    Ok(())
}

/// Whether the process that holds the other end of our standard input has died.
/// It has another PID namespace, so its id cannot be asked for.
fn parent_is_gone() -> Result<bool> {
    let stdin = std::io::stdin();
    let mut watched = [PollFd::new(
        std::os::fd::AsFd::as_fd(&stdin),
        PollFlags::POLLIN,
    )];
    Ok(poll(&mut watched, PollTimeout::ZERO)? > 0)
}

/// The terminal on which we speak: it becomes the host's console.
fn console() -> Result<PathBuf> {
    let terminal = ttyname(std::io::stderr()).context("the supervisor gave no terminal")?;
    Ok(Path::new(&terminal).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_how_a_boot_ended() {
        for (raw, expected) in [
            (129 << 8, End::Reboot),
            (130 << 8, End::PowerOff),
            (137 << 8, End::PowerCut),
            (9, End::PowerCut),
            (125 << 8, End::Failed),
            (0, End::Failed),
        ] {
            assert_eq!(end(ExitStatus::from_raw(raw)), expected, "{raw}");
        }
    }
}
