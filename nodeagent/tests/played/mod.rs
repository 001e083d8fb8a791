//! A host that is only a directory, with programs that play bootc, ostree and systemd (see README.md
//! beside this file).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use nodeagent::host::Host;
use tempfile::TempDir;

/// Programs of the machine that the played ones use. There is no other on a played host's path: what
/// it has not got cannot be run by mistake.
const TOOLS: [&str; 9] = [
    "cat", "date", "env", "kill", "mkdir", "mv", "rm", "setsid", "sleep",
];
const PLAYED: [&str; 7] = [
    "boot",
    "bootc",
    "journalctl",
    "ostree",
    "systemctl",
    "systemd-run",
    "unit",
];
const FOLDERS: [&str; 7] = [
    "bin",
    "etc/ostree",
    "proc/sys/kernel/random",
    "run/ostree",
    "state",
    "sysroot/ostree/deploy",
    "units",
];

/// The host; its directory goes with it.
#[derive(Debug)]
pub(crate) struct PlayedHost {
    directory: TempDir,
}

#[allow(dead_code, reason = "every test uses its own part of it")]
impl PlayedHost {
    /// A host that booted this image.
    pub(crate) fn booted(image: &str) -> std::io::Result<Self> {
        let host = Self {
            directory: TempDir::new()?,
        };
        for folder in FOLDERS {
            fs::create_dir_all(host.path(folder))?;
        }
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let programs = ["tests/played", "../../nodeagent/tests/played"]
            .into_iter()
            .map(|path| here.join(path))
            .find(|path| path.is_dir())
            .ok_or(std::io::ErrorKind::NotFound)?;
        for name in PLAYED {
            symlink(programs.join(name), host.path("bin").join(name))?;
        }
        for name in TOOLS.into_iter().chain(["sh"]) {
            let found = ["/usr/bin", "/bin"].map(|it| Path::new(it).join(name));
            let found = found.iter().find(|it| it.exists());
            let found = found.ok_or(std::io::ErrorKind::NotFound)?;
            symlink(found, host.path("bin").join(name))?;
        }
        let digest = image.rsplit('@').next().unwrap_or_default();
        host.set(
            "state/booted",
            &format!("{image} {digest} commit-of-{digest} 0 false"),
        );
        host.set("proc/sys/kernel/random/boot_id", "boot-0");
        for counter in [
            "boots",
            "booted-at",
            "invocations",
            "state/serial",
            "state/soft-reboots",
        ] {
            host.set(counter, "0");
        }
        Ok(host)
    }

    /// As the agent reaches it.
    pub(crate) fn host(&self) -> Host {
        Host::played(self.directory.path(), &self.path("bin").to_string_lossy())
    }

    /// A file or folder of it.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// Writes a file.
    pub(crate) fn set(&self, path: &str, text: &str) {
        fs::write(self.path(path), format!("{text}\n")).unwrap();
    }

    /// Reads a file; empty if there is none.
    pub(crate) fn get(&self, path: &str) -> String {
        fs::read_to_string(self.path(path))
            .unwrap_or_default()
            .trim()
            .to_owned()
    }

    /// Removes a file.
    pub(crate) fn remove(&self, path: &str) {
        let _ = fs::remove_file(self.path(path));
    }

    /// Runs a program on it, as its admin would.
    pub(crate) async fn run(&self, argv: &[&str]) -> std::io::Result<()> {
        let ended = self
            .host()
            .run(argv, std::time::Duration::from_secs(30))
            .await;
        ended.map(|_| ()).map_err(std::io::Error::other)
    }

    /// Ends all units, as their deadlines would.
    pub(crate) fn clear_units(&self) {
        let _ = fs::remove_dir_all(self.path("units"));
        fs::create_dir_all(self.path("units")).unwrap();
    }

    /// How often it was booted since it was made.
    pub(crate) fn boots(&self) -> u32 {
        self.get("boots").parse().unwrap_or_default()
    }

    /// The commands that were run on it.
    pub(crate) fn commands(&self) -> Vec<String> {
        self.get("log").lines().map(str::to_owned).collect()
    }

    /// The same, but for questions, and for units, whose commands are there themselves.
    pub(crate) fn log(&self) -> Vec<String> {
        let mut deeds = self.commands();
        let others = [
            "--help",
            " status ",
            " show ",
            "reset-failed",
            "systemd-run ",
            "journalctl ",
        ];
        deeds.retain(|line| !others.iter().any(|it| line.contains(it)));
        deeds
    }
}
