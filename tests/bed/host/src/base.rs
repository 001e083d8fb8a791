//! The base tree: a minimal Debian that every host of the bed has under its
//! OS image.
//!
//! It is unpacked, not installed: no maintainer script runs. The few things
//! that such scripts would do and a host needs are done here.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt::{self, Closure, Finish};

/// What a host needs to boot, to be entered and to run a kubelet.
const PACKAGES: [&str; 16] = [
    "base-files",
    "bash",
    "coreutils",
    "dash",
    // `systemd-run --wait` listens for the unit's end on the system bus.
    "dbus",
    "findutils",
    "grep",
    "iproute2",
    "libc-bin",
    "libseccomp2",
    "mount",
    "procps",
    "sed",
    "systemd",
    "systemd-sysv",
    "util-linux",
];

/// What nobody reads on a host: two fifths of the tree.
const PRUNED: [&str; 8] = [
    "usr/share/bash-completion",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/perl5",
    "usr/share/zsh",
];

/// Makes the base tree, or finds the one made before, and returns where it is.
///
/// Nobody may write to it: running hosts have it as a lower layer.
pub fn tree(bed: &Path) -> Result<PathBuf> {
    let finish = Finish {
        source: include_str!("base.rs"),
        run: finish,
    };
    apt::unpacked_and_finished(bed, "base", &PACKAGES, Closure::Dependencies, &finish)
}

fn finish(root: &Path) -> Result<()> {
    for directory in PRUNED {
        let path = root.join(directory);
        if path.exists() {
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    lay_out(root)?;
    fs::write(root.join("etc/nsswitch.conf"), NAME_SERVICES)?;
    in_root(root, "/usr/sbin/ldconfig")?;
    in_root(root, "/usr/bin/systemd-sysusers")
}

/// The top of an ostree host's tree, as far as Debian has it otherwise.
fn lay_out(root: &Path) -> Result<()> {
    fs::create_dir_all(root.join("sysroot"))?;
    fs::remove_dir(root.join("home")).context("base-files has no empty /home")?;
    for (link, target) in [("home", "var/home"), ("ostree", "sysroot/ostree")] {
        symlink(target, root.join(link)).with_context(|| format!("cannot link /{link}"))?;
    }
    Ok(())
}

const NAME_SERVICES: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n";

/// Runs a program of the tree on the tree.
fn in_root(root: &Path, program: &str) -> Result<()> {
    let output = Command::new("chroot")
        .arg(root)
        .arg(program)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin")
        .output()
        .context("cannot run chroot(8), which Debian's coreutils has")?;
    if !output.status.success() {
        bail!(
            "{program} failed on the base tree ({}): {}; making it needs root",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
