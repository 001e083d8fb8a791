//! What processes and threads use.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use nix::{time::ClockId, unistd::Pid};

/// CPU time used so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu(Duration);

impl Cpu {
    /// Of a process with all its threads, also those that are over.
    pub(crate) fn of_process(pid: u32) -> Result<Self> {
        let pid = Pid::from_raw(i32::try_from(pid)?);
        Ok(Self(ClockId::pid_cpu_clock_id(pid)?.now()?.into()))
    }

    /// Of the threads of this process that have this name and live.
    pub(crate) fn of_threads(name: &str) -> Result<Self> {
        let mut sum = 0;
        for task in fs::read_dir("/proc/self/task")? {
            let task = task?.path();
            if fs::read_to_string(task.join("comm"))?.trim_end() == name {
                let spent = fs::read_to_string(task.join("schedstat"))?;
                let spent = spent.split(' ').next().context("an empty schedstat")?;
                sum += spent.parse::<u64>()?;
            }
        }
        Ok(Self(Duration::from_nanos(sum)))
    }

    /// Of this thread.
    pub(crate) fn of_this_thread() -> Result<Self> {
        Ok(Self(ClockId::CLOCK_THREAD_CPUTIME_ID.now()?.into()))
    }

    /// All of it.
    pub(crate) fn total(self) -> Duration {
        self.0
    }

    /// How much was used since `before`.
    pub(crate) fn since(self, before: Self) -> Duration {
        self.0.saturating_sub(before.0)
    }
}

/// Memory of a process that is in RAM, in KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Now.
    pub(crate) resident: u64,
    /// The most that it ever was.
    pub(crate) peak: u64,
}

impl Memory {
    /// Of a process.
    pub(crate) fn of_process(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let line = line.with_context(|| format!("no {name} of process {pid}"))?;
            let number = line.trim().trim_end_matches(" kB");
            anyhow::Ok(number.parse()?)
        };
        Ok(Self {
            resident: field("VmRSS:")?,
            peak: field("VmHWM:")?,
        })
    }
}
