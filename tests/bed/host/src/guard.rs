//! The guard before anything that could hit the machine instead of a host.
//!
//! Hosts of the bed share the machine's kernel. A reboot, a kill or an entry
//! that goes astray would be the machine's, so each checks its target here first.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// Directory in a host's `/run` by which it is known to be a host of the bed.
pub(crate) const MARK: &str = "run/bed-host";

/// The PID 1 of a host that runs, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Init {
    pid: u32,
}

impl Init {
    /// Its process id on the machine.
    #[must_use]
    pub fn pid(self) -> u32 {
        self.pid
    }
}

/// Refuses unless process `pid` is PID 1 of a PID namespace other than ours
/// and its root carries the mark of the bed's host called `name`.
pub fn assert_bed_host_init(pid: u32, name: &str) -> Result<Init> {
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
    Ok(Init { pid })
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
    }
}
