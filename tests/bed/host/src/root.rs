//! A host's root: what its PID 1 finds when it starts.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bed_bootc::boot::BootPlan;
use bed_bootc::sysroot::BASE;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{chdir, pivot_root};

use crate::config::{HostConfig, Paths};
use crate::guard::MARK;

/// Character devices that a host has: those that reach nothing of the machine.
/// The kernel's log is the machine's, so `kmsg` is another `null`.
const DEVICES: [(&str, u64, u64); 7] = [
    ("full", 1, 7),
    ("kmsg", 1, 3),
    ("null", 1, 3),
    ("random", 1, 8),
    ("tty", 5, 0),
    ("urandom", 1, 9),
    ("zero", 1, 5),
];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("ptmx", "pts/ptmx"),
    ("stderr", "/proc/self/fd/2"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
];
/// What the kubelet wants these to be. It would set them for the whole
/// machine, so it is shown files that have the value already.
const SETTINGS: [(&str, &str); 6] = [
    ("kernel/keys/root_maxbytes", "25000000"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
];

/// What differs from boot to boot.
#[derive(Debug)]
pub(crate) struct BootInfo<'a> {
    pub(crate) plan: &'a BootPlan,
    pub(crate) boot_id: &'a str,
    /// See [`crate::cgroup::Machine::v1_view`].
    pub(crate) cgroup_v1: &'a str,
    /// The terminal that becomes the host's console.
    pub(crate) console: &'a Path,
}

/// Puts the root together below `paths.root()` and makes it this process's
/// root. To be called by the host's PID 1, in namespaces of its own.
pub(crate) fn enter(config: &HostConfig, paths: &Paths, info: &BootInfo<'_>) -> Result<()> {
    let root = Root { path: paths.root() };
    make_directory(&root.path)?;
    attach(None, Path::new("/"), MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    root.operating_system(config, paths, info.plan)?;
    root.processes()?;
    root.devices(info.console)?;
    root.marks(config, info)?;
    root.kernel_settings()?;
    root.pivot()
}

struct Root {
    path: PathBuf,
}

impl Root {
    /// The OS image over the base tree, and the disk with `/var`.
    fn operating_system(&self, config: &HostConfig, paths: &Paths, plan: &BootPlan) -> Result<()> {
        let disk = paths.disk();
        // Relative names keep the options short, whatever the bed's directory is called.
        chdir(&disk).with_context(|| format!("no disk at {}", disk.display()))?;
        let base = Path::new(BASE);
        make_directory(base)?;
        let layers = [paths.layer(), config.layer.clone(), config.base.clone()];
        overlay(base, &format!("lowerdir={}", join(&layers)))?;
        let mut lower = plan.lowerdirs.clone();
        lower.push(base.to_owned());
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            join(&lower),
            escape(&plan.upper),
            escape(&plan.work)
        );
        overlay(&self.path, &options)?;
        bind(&disk, &self.at("sysroot"))?;
        bind(&disk.join(&plan.var), &self.at("var"))?;
        self.tmpfs("run", "mode=755")
    }

    fn processes(&self) -> Result<()> {
        self.special("proc", "proc", "")?;
        // Read-only, as in other containers: udev's work is the machine's.
        self.special("sysfs", "sys", "")?;
        self.read_only("sys")?;
        self.special("cgroup2", "sys/fs/cgroup", "")
    }

    /// The device nodes. The machine's own `/dev` would show its disks.
    fn devices(&self, console: &Path) -> Result<()> {
        self.tmpfs("dev", "mode=755")?;
        for (name, major, minor) in DEVICES {
            let node = self.at("dev").join(name);
            mknod(&node, SFlag::S_IFCHR, Mode::empty(), makedev(major, minor))
                .with_context(|| format!("cannot make {}", node.display()))?;
            set_mode(&node, 0o666)?;
        }
        for (name, target) in LINKS {
            symlink(target, self.at("dev").join(name))
                .with_context(|| format!("cannot link /dev/{name}"))?;
        }
        self.special(
            "devpts",
            "dev/pts",
            "newinstance,ptmxmode=0666,mode=620,gid=5",
        )?;
        self.tmpfs("dev/shm", "mode=1777")?;
        self.special("mqueue", "dev/mqueue", "")?;
        write(&self.at("dev/console"), "")?;
        bind(console, &self.at("dev/console"))
    }

    /// What tells the host, and the guard, that this is a host and in which boot.
    fn marks(&self, config: &HostConfig, info: &BootInfo<'_>) -> Result<()> {
        let marks = self.at(MARK);
        make_directory(&marks)?;
        write(&marks.join("name"), &format!("{}\n", config.name))?;
        write(&marks.join("boot-id"), &format!("{}\n", info.boot_id))?;
        write(&marks.join("cgroup-v1"), info.cgroup_v1)?;
        write(&self.at("run/ostree-booted"), &info.plan.booted)
    }

    /// The kernel's settings are the machine's: a host may read them, and
    /// write those of its own network namespace.
    fn kernel_settings(&self) -> Result<()> {
        let settings = self.at("proc/sys");
        bind(&settings, &settings)?;
        bind(&settings.join("net"), &settings.join("net"))?;
        self.read_only("proc/sys")?;
        let boot_id = self.at(MARK).join("boot-id");
        bind(&boot_id, &settings.join("kernel/random/boot_id"))?;
        for (name, value) in SETTINGS {
            let shown = self.shadow(&name.replace('/', "."), value)?;
            cover(&shown, &settings.join(name))?;
        }
        let command_line = self.shadow("cmdline", "bed-host")?;
        bind(&command_line, &self.at("proc/cmdline"))?;
        cover(&self.at("dev/null"), &self.at("proc/sysrq-trigger"))
    }

    /// A file that stands in for one of the machine's.
    fn shadow(&self, name: &str, value: &str) -> Result<PathBuf> {
        let file = self.at(MARK).join(name);
        write(&file, &format!("{value}\n"))?;
        Ok(file)
    }

    /// Makes this the root. A chroot would not do: who enters the mount
    /// namespace from outside lands in the namespace's own root.
    fn pivot(&self) -> Result<()> {
        chdir(&self.path).context("cannot enter the host's root")?;
        pivot_root(".", ".").context("cannot make the host's root the root")?;
        umount2(".", MntFlags::MNT_DETACH).context("cannot let go of the machine's root")?;
        chdir("/")?;
        attach(None, Path::new("/"), MsFlags::MS_REC | MsFlags::MS_SHARED)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.path.join(path)
    }

    fn tmpfs(&self, path: &str, options: &str) -> Result<()> {
        self.special("tmpfs", path, options)
    }

    fn special(&self, kind: &str, path: &str, options: &str) -> Result<()> {
        let target = self.at(path);
        if !target.is_dir() {
            make_directory(&target)?;
        }
        mount(
            Some(kind),
            &target,
            Some(kind),
            MsFlags::empty(),
            Some(options),
        )
        .with_context(|| format!("cannot mount {kind} on /{path} of the host"))
    }

    /// Makes one mount read-only, not the file system under it.
    fn read_only(&self, path: &str) -> Result<()> {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        attach(None, &self.at(path), flags)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))
}

fn overlay(target: &Path, options: &str) -> Result<()> {
    mount(
        Some("overlay"),
        target,
        Some("overlay"),
        MsFlags::empty(),
        Some(options),
    )
    .with_context(|| {
        format!(
            "cannot mount an overlay on {} ({options})",
            target.display()
        )
    })
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    attach(Some(source), target, MsFlags::MS_BIND | MsFlags::MS_REC)
}

/// As [`bind`], over what not every kernel has.
fn cover(source: &Path, target: &Path) -> Result<()> {
    if target.exists() {
        bind(source, target)
    } else {
        Ok(())
    }
}

fn attach(source: Option<&Path>, target: &Path, flags: MsFlags) -> Result<()> {
    mount(source, target, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("cannot mount on {} ({flags:?})", target.display()))
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot open {} to all", path.display()))
}

fn join(directories: &[PathBuf]) -> String {
    let escaped: Vec<String> = directories
        .iter()
        .map(|directory| escape(directory))
        .collect();
    escaped.join(":")
}

/// A path within an overlay's options, where `:` and `,` end it.
fn escape(path: &Path) -> String {
    let mut text = String::new();
    for character in path.to_string_lossy().chars() {
        if matches!(character, ':' | ',' | '\\') {
            text.push('\\');
        }
        text.push(character);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_escaped_in_overlay_options() {
        let directories = ["/a:b", "/c,d", "/plain"].map(PathBuf::from);
        assert_eq!(join(&directories), r"/a\:b:/c\,d:/plain");
    }
}
