//! The cgroups of a host: one in every hierarchy of the machine.
//!
//! A machine has cgroup v2 alone, or v1 hierarchies beside a v2 hierarchy
//! without controllers ("hybrid"). A host's systemd gets the v2 hierarchy in
//! either case; what makes containers gets the v1 hierarchies where there are any.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long the cgroups of dead processes may take to become empty.
const EMPTY_DEADLINE: Duration = Duration::from_secs(10);

/// One hierarchy of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Where it is mounted.
    mount: PathBuf,
    /// The directory of our own cgroup.
    own: PathBuf,
    /// Options by which a v1 hierarchy is mounted again; `None` for v2.
    options: Option<String>,
}

/// All hierarchies of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    hierarchies: Vec<Hierarchy>,
}

impl Machine {
    /// Finds out what this machine has.
    pub(crate) fn find() -> Result<Self> {
        let cgroups = fs::read_to_string("/proc/self/cgroup").context("no cgroups")?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("no mounts")?;
        Self::parse(&cgroups, &mounts)
    }

    fn parse(cgroups: &str, mounts: &str) -> Result<Self> {
        let mut hierarchies = Vec::new();
        for line in cgroups.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            if let (Some(controllers), Some(path)) = (fields.next(), fields.next()) {
                hierarchies.extend(hierarchy(controllers, path, mounts));
            }
        }
        let machine = Self { hierarchies };
        if !machine.hierarchies.iter().any(|h| h.options.is_none()) {
            bail!(
                "no cgroup2 is mounted on this machine, but a host's systemd needs it: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified"
            );
        }
        Ok(machine)
    }

    fn has_v1(&self) -> bool {
        self.hierarchies.iter().any(|h| h.options.is_some())
    }

    /// The v1 hierarchies, a line each: directory name and mount options.
    /// Empty on a machine with v2 alone.
    pub(crate) fn v1_view(&self) -> String {
        let line = |hierarchy: &Hierarchy| {
            let options = hierarchy.options.as_ref()?;
            let name = options.trim_start_matches("none,name=");
            Some(format!("{name} {options}\n"))
        };
        self.hierarchies.iter().filter_map(line).collect()
    }

    /// Where the cgroups of the host called `name` are. In v1 they are below
    /// our own, in v2 below the top: a cgroup with processes, as ours is, can
    /// give no controllers to those below it.
    pub(crate) fn directories(&self, name: &str) -> Vec<PathBuf> {
        let below = |hierarchy: &Hierarchy| {
            if hierarchy.options.is_some() || self.has_v1() {
                hierarchy.own.join(name)
            } else {
                hierarchy.mount.join(name)
            }
        };
        self.hierarchies.iter().map(below).collect()
    }

    /// Makes the directories, ready for processes.
    pub(crate) fn make(&self, directories: &[PathBuf]) -> Result<()> {
        if !self.has_v1() {
            for hierarchy in &self.hierarchies {
                enable_controllers(&hierarchy.mount)?;
            }
        }
        for directory in directories {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot make cgroup {}", directory.display()))?;
            for file in ["cpuset.cpus", "cpuset.mems"] {
                inherit(directory, file)?;
            }
        }
        Ok(())
    }
}

fn hierarchy(controllers: &str, path: &str, mounts: &str) -> Option<Hierarchy> {
    let (mount, root, options) =
        mounts
            .lines()
            .filter_map(parse_mount)
            .find_map(|(mount, root, kind, options)| match (controllers, kind) {
                ("", "cgroup2") => Some((mount, root, None)),
                ("", _) | (_, "cgroup2") => None,
                _ => v1_options(controllers, options).map(|options| (mount, root, Some(options))),
            })?;
    let below = path
        .strip_prefix(root.trim_end_matches('/'))
        .unwrap_or(path);
    let own = Path::new(mount).join(below.trim_start_matches('/'));
    Some(Hierarchy {
        mount: PathBuf::from(mount),
        own,
        options,
    })
}

/// Mount point, root, type and super options of a cgroup mount.
fn parse_mount(line: &str) -> Option<(&str, &str, &str, &str)> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, mount) = (before.next()?, before.next()?);
    let mut after = after.split(' ');
    let (kind, options) = (after.next()?, after.nth(1)?);
    kind.starts_with("cgroup")
        .then_some((mount, root, kind, options))
}

/// The options to mount a v1 hierarchy, if `mounted` are those of the hierarchy
/// that has all of `controllers`.
fn v1_options(controllers: &str, mounted: &str) -> Option<String> {
    let mounted: Vec<&str> = mounted.split(',').collect();
    if !controllers
        .split(',')
        .all(|controller| mounted.contains(&controller))
    {
        return None;
    }
    Some(if controllers.starts_with("name=") {
        format!("none,{controllers}")
    } else {
        controllers.to_owned()
    })
}

fn enable_controllers(top: &Path) -> Result<()> {
    let controllers = fs::read_to_string(top.join("cgroup.controllers"))?;
    let wanted: Vec<String> = controllers
        .split_whitespace()
        .map(|c| format!("+{c}"))
        .collect();
    fs::write(top.join("cgroup.subtree_control"), wanted.join(" ")).with_context(|| {
        format!(
            "cannot give cgroup controllers to hosts in {}; in a container, run it with the machine's cgroup namespace",
            top.display()
        )
    })
}

/// A new cpuset of v1 is empty and takes no process before it is filled.
fn inherit(directory: &Path, file: &str) -> Result<()> {
    let own = directory.join(file);
    match fs::read_to_string(&own) {
        Ok(value) if value.trim().is_empty() && !directory.join("cgroup.controllers").exists() => {
            let parent = directory.parent().unwrap_or(directory).join(file);
            fs::write(&own, fs::read_to_string(parent)?)
                .with_context(|| format!("cannot set {}", own.display()))
        }
        _ => Ok(()),
    }
}

/// Keeps in `file` which cgroups are ours, before they are made: whatever
/// happens to us, the next start knows what to remove.
pub(crate) fn record(file: &Path, directories: &[PathBuf]) -> Result<()> {
    let lines: Vec<String> = directories
        .iter()
        .map(|d| d.display().to_string())
        .collect();
    fs::write(file, lines.join("\n")).with_context(|| format!("cannot write {}", file.display()))
}

/// What [`record`] kept; nothing when there is no such file.
pub(crate) fn recorded(file: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(text.lines().map(PathBuf::from).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Moves this process into all of `directories`.
pub(crate) fn join(directories: &[PathBuf]) -> Result<()> {
    for directory in directories {
        fs::write(directory.join("cgroup.procs"), "0")
            .with_context(|| format!("cannot enter cgroup {}", directory.display()))?;
    }
    Ok(())
}

/// Removes cgroups and all below them once their processes are dead.
pub(crate) fn remove(directories: &[PathBuf]) -> Result<()> {
    let deadline = Instant::now() + EMPTY_DEADLINE;
    for directory in directories {
        while let Err(error) = remove_tree(directory) {
            if Instant::now() > deadline {
                return Err(error)
                    .with_context(|| format!("cannot remove cgroup {}", directory.display()));
            }
            sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

fn remove_tree(directory: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID_MOUNTS: &str = "\
30 20 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw";
    const HYBRID_CGROUPS: &str = "5:name=systemd:/\n4:memory:/jobs/7\n2:cpu,cpuacct:/\n0::/\n";

    #[test]
    fn hybrid_hosts_are_below_our_own_cgroups() {
        let machine = Machine::parse(HYBRID_CGROUPS, HYBRID_MOUNTS).unwrap();
        assert_eq!(
            machine.directories("h1"),
            [
                "/sys/fs/cgroup/systemd/h1",
                "/sys/fs/cgroup/memory/jobs/7/h1",
                "/sys/fs/cgroup/cpu,cpuacct/h1",
                "/sys/fs/cgroup/unified/h1",
            ]
            .map(PathBuf::from)
        );
        assert_eq!(
            machine.v1_view(),
            "systemd none,name=systemd\nmemory memory\ncpu,cpuacct cpu,cpuacct\n"
        );
    }

    #[test]
    fn v2_hosts_are_at_the_top_and_see_no_v1() {
        let mounts = "31 30 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
        let machine = Machine::parse("0::/user.slice/session-1.scope\n", mounts).unwrap();
        assert_eq!(
            machine.directories("h1"),
            [PathBuf::from("/sys/fs/cgroup/h1")]
        );
        assert_eq!(machine.v1_view(), "");
    }

    #[test]
    fn a_mount_of_a_part_of_a_hierarchy_is_seen_through() {
        let mounts = "31 30 0:27 /docker/1 /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                      32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        let machine = Machine::parse("3:pids:/docker/1/x\n0::/\n", mounts).unwrap();
        assert_eq!(
            machine.directories("h1").first().unwrap(),
            Path::new("/sys/fs/cgroup/pids/x/h1")
        );
    }

    #[test]
    fn a_machine_without_cgroup2_is_refused() {
        let mounts = "32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
        let error = Machine::parse("4:memory:/\n0::/\n", mounts).unwrap_err();
        assert!(error.to_string().contains("cgroup2"), "{error}");
    }
}
