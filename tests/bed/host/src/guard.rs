//! The guard before anything that could hit the machine instead of a host.
//!
//! Hosts of the bed share the machine's kernel. A reboot, a kill or an entry
//! that goes astray would be the machine's, so each checks its target here first,
//! and then uses what was checked: process ids are given out again.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Directory in a host's `/run` by which it is known to be a host of the bed.
pub(crate) const MARK: &str = "run/bed-host";

/// The PID 1 of a host that runs, checked. What is done by way of it reaches
/// that process or, once it has ended, none.
#[derive(Debug)]
pub struct Init {
    pid: u32,
    process: OwnedFd,
}

impl Init {
    /// Kills it, and with it all of its host.
    pub fn kill(&self) -> Result<()> {
        pidfd_send_signal(&self.process, Signal::KILL).context("cannot kill the host's PID 1")
    }

    /// Fails once it has ended.
    fn lives(&self) -> Result<()> {
        let mut watched = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, PollTimeout::ZERO)? {
            0 => Ok(()),
            _ => bail!("the host's PID 1 has ended"),
        }
    }

    /// Its mount namespace.
    pub(crate) fn mounts(&self) -> Result<File> {
        let path = format!("/proc/{}/ns/mnt", self.pid);
        let mounts = File::open(&path).with_context(|| gone(&path))?;
        // It lives now, so its id was nobody else's when that was opened.
        self.lives()?;
        Ok(mounts)
    }
}

/// As a process file descriptor, by which namespaces are entered.
impl AsFd for Init {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

/// Refuses unless process `pid` is PID 1 of a PID namespace other than ours
/// and its root carries the mark of the bed's host called `name`.
pub fn assert_bed_host_init(pid: u32, name: &str) -> Result<Init> {
    // Taken before the checks: were the id another process's meanwhile, those
    // would look at that one, and this would still be the one that has ended.
    let process = open(pid)?;
    if namespace(&pid.to_string())? == namespace("self")? {
        bail!("process {pid} is in our own PID namespace, so it is no host of the bed");
    }
    let status = read(pid, "status")?;
    if !is_nested_init(&status) {
        bail!("process {pid} is not PID 1 of a host");
    }
    let marked = read(pid, &format!("root/{MARK}/name"))?;
    if marked.trim() != name {
        bail!("process {pid} is PID 1 of {}, not of {name}", marked.trim());
    }
    Ok(Init { pid, process })
}

fn open(pid: u32) -> Result<OwnedFd> {
    let id = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let opened = id.map(|id| pidfd_open(id, PidfdFlags::empty()));
    opened
        .with_context(|| format!("{pid} is no process id"))?
        .with_context(|| gone(&format!("/proc/{pid}")))
}

fn namespace(process: &str) -> Result<PathBuf> {
    let path = format!("/proc/{process}/ns/pid");
    fs::read_link(&path).with_context(|| gone(&path))
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).map_err(|error| {
        let why = if error.kind() == ErrorKind::NotFound {
            gone(&path)
        } else {
            format!("cannot read {path}")
        };
        anyhow::Error::new(error).context(why)
    })
}

fn gone(path: &str) -> String {
    format!("no running host of the bed: {path} is not there")
}

/// Whether `/proc/<pid>/status` is that of a process that is PID 1 in a
/// namespace below the reader's.
fn is_nested_init(status: &str) -> bool {
    let Some(ids) = status.lines().find_map(|line| line.strip_prefix("NSpid:")) else {
        return false;
    };
    let ids: Vec<&str> = ids.split_whitespace().collect();
    ids.len() > 1 && ids.last() == Some(&"1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pid_1_of_a_nested_namespace_passes() {
        assert!(is_nested_init("Name:\tsystemd\nNSpid:\t4711\t1\n"));
        assert!(!is_nested_init("Name:\tsystemd\nNSpid:\t1\n"));
        assert!(!is_nested_init("Name:\tsh\nNSpid:\t4711\t12\n"));
        assert!(!is_nested_init("Name:\tsh\n"));
    }

    #[test]
    fn our_own_processes_are_refused() {
        let error = assert_bed_host_init(std::process::id(), "h1").unwrap_err();
        assert!(
            error.to_string().contains("our own PID namespace"),
            "{error}"
        );
        assert!(assert_bed_host_init(1, "h1").is_err());
    }

    #[test]
    fn a_process_that_is_gone_is_refused() {
        assert!(assert_bed_host_init(u32::MAX, "h1").is_err());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let error = assert_bed_host_init(child.id(), "h1").unwrap_err();
        assert!(error.to_string().contains("no running host"), "{error}");
    }

    #[test]
    fn what_was_checked_is_never_another_process() {
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .unwrap();
        let init = Init {
            pid: child.id(),
            process: open(child.id()).unwrap(),
        };
        init.lives().unwrap();
        init.kill().unwrap();
        child.wait().unwrap();
        assert!(init.lives().is_err() && init.mounts().is_err());
        assert!(init.kill().is_err(), "a dead process was killed again");
    }
}
