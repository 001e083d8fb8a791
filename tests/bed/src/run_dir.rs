//! A directory of state that lives as long as its owner.
//!
//! The owner holds a lock on `owner` in it; the kernel drops the lock when the
//! owner dies, however that happens. So a later start can tell what a dead
//! owner left and remove it: the processes first, by the marks that
//! [`Mark`] left, then the directory. Names are never matched.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::paths;

/// How long a killed process may take to be gone.
const DEATH: Duration = Duration::from_secs(10);

/// A directory below [`paths::run`], removed when dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _owner: File,
}

impl RunDir {
    /// Makes a directory of that name, after removing what dead owners left.
    /// A live owner of the same name is an error.
    pub fn claim(name: &str) -> Result<Self> {
        let _guard = guard()?;
        let root = paths::run()?;
        sweep(&root)?;
        let path = root.join(name);
        fs::create_dir(&path)
            .with_context(|| format!("cannot make {} (still in use?)", path.display()))?;
        let owner = locked(&path.join("owner"))?;
        Ok(Self {
            path,
            _owner: owner,
        })
    }

    /// Makes a directory with a name that no other has.
    pub fn fresh(prefix: &str) -> Result<Self> {
        let stamp = Mark::of(std::process::id()).map_or(0, |mark| mark.started);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Self::claim(&format!("{prefix}-{}-{stamp}-{count}", std::process::id()))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

impl Drop for RunDir {
    fn drop(&mut self) {
        let removed = guard().and_then(|_guard| remove(&self.path));
        if let Err(error) = removed {
            crate::progress::say(format_args!("{error:#}"));
        }
    }
}

/// Whoever makes or removes directories holds this lock, so that nobody takes
/// a directory that is half there for one without an owner.
fn guard() -> Result<File> {
    locked(&paths::run()?.join(".lock"))
}

/// Removes the directories below `root` whose owner is dead.
fn sweep(root: &Path) -> Result<()> {
    for entry in fs::read_dir(root).context("cannot list what runs")? {
        let dir = entry?.path();
        if dir.is_dir() && is_orphan(&dir)? {
            remove(&dir)?;
        }
    }
    Ok(())
}

fn is_orphan(dir: &Path) -> Result<bool> {
    match File::open(dir.join("owner")) {
        Ok(owner) => Ok(owner.try_lock().is_ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).context(format!("cannot tell who owns {}", dir.display())),
    }
}

/// Removes what dead owners left.
pub fn clear() -> Result<()> {
    let _guard = guard()?;
    sweep(&paths::run()?)
}

/// Ends the marked processes and the hosts of a directory and removes it.
fn remove(dir: &Path) -> Result<()> {
    for mark in Mark::all(dir)? {
        mark.end()?;
    }
    crate::cluster::hosts::clear_all(dir)?;
    fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))
}

/// Opens a file and waits for the only lock on it.
pub(crate) fn locked(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    file.lock()
        .with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// A process as no other process is: its number and when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Process number on the machine.
    pub pid: u32,
    /// Clock ticks between the machine's boot and the process's start.
    pub started: u64,
}

impl Mark {
    /// The mark of a process that is there now.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self {
            pid,
            started: start_time(&stat)?,
        })
    }

    /// Whether the process lives. A zombie does not: nothing of it is left but
    /// its exit code.
    #[must_use]
    pub fn lives(self) -> bool {
        let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", self.pid)) else {
            return false;
        };
        start_time(&stat) == Some(self.started) && !stat_fields(&stat).starts_with(['Z', 'X'])
    }

    /// Keeps the mark in `dir`, for a sweep after the owner's death.
    pub fn leave(self, dir: &Path, name: &str) -> Result<()> {
        let marks = dir.join("processes");
        fs::create_dir_all(&marks)?;
        fs::write(marks.join(name), serde_json::to_vec(&self)?).context("cannot mark a process")
    }

    fn all(dir: &Path) -> Result<Vec<Self>> {
        let Ok(entries) = fs::read_dir(dir.join("processes")) else {
            return Ok(Vec::new());
        };
        // A half-written mark is of a process that its owner had no time to use.
        let read = |path: PathBuf| serde_json::from_slice(&fs::read(path).ok()?).ok();
        entries
            .map(|entry| Ok(read(entry?.path())))
            .filter_map(Result::transpose)
            .collect()
    }

    /// Asks the process to end, in good order, and waits until it has.
    pub fn ask_to_end(self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        if self.lives() {
            let _gone_meanwhile = kill(Pid::from_raw(i32::try_from(self.pid)?), Signal::SIGTERM);
        }
        while self.lives() {
            if Instant::now() > deadline {
                bail!("process {} goes on", self.pid);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Kills the process, if it is still the same, and waits until it is gone.
    pub fn end(self) -> Result<()> {
        let deadline = Instant::now() + DEATH;
        while self.lives() {
            if Instant::now() > deadline {
                bail!(
                    "process {} does not die; see what holds it in /proc/{}/stack",
                    self.pid,
                    self.pid
                );
            }
            let pid = Pid::from_raw(i32::try_from(self.pid)?);
            let _gone_meanwhile = kill(pid, Signal::SIGKILL);
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// What follows the command's name in `/proc/<pid>/stat`. The name stands in
/// brackets and may hold anything, brackets too.
fn stat_fields(stat: &str) -> &str {
    stat.rsplit_once(") ").map_or("", |(_, fields)| fields)
}

/// Field 22 of `/proc/<pid>/stat`; the fields after the name begin with 3.
fn start_time(stat: &str) -> Option<u64> {
    stat_fields(stat).split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn start_time_survives_an_ugly_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 0 0 0 0 1 2 3 4 20 0 1 0 4711 0 0";
        assert_eq!(start_time(stat), Some(4711));
        assert_eq!(start_time(""), None);
    }

    #[test]
    fn a_mark_ends_its_process_and_no_other() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let mark = Mark::of(child.id()).unwrap();
        let stranger = Mark {
            started: mark.started + 1,
            ..mark
        };
        assert!(!stranger.lives());
        stranger.end().unwrap();
        assert!(
            child.try_wait().unwrap().is_none(),
            "another's mark killed the process"
        );

        mark.end().unwrap();
        assert!(!mark.lives());
        child.wait().unwrap();
    }

    #[test]
    fn a_sweep_removes_what_the_dead_left_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let (dead, live) = (root.path().join("dead"), root.path().join("live"));
        fs::create_dir(&dead).unwrap();
        fs::create_dir(&live).unwrap();
        drop(locked(&dead.join("owner")).unwrap());
        let _owner = locked(&live.join("owner")).unwrap();
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        Mark::of(child.id()).unwrap().leave(&dead, "sleep").unwrap();

        sweep(root.path()).unwrap();
        assert!(!dead.exists());
        assert!(live.exists());
        assert!(
            !child.wait().unwrap().success(),
            "the dead owner's process went on"
        );
    }
}
