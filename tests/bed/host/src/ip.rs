//! `ip` of the base tree, so that the machine itself needs none.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Configures networks with the base tree's `ip`.
#[derive(Clone, Debug)]
pub struct Ip {
    loader: PathBuf,
    libraries: PathBuf,
    program: PathBuf,
}

impl Ip {
    /// The `ip` of this base tree.
    pub fn of(base: &Path) -> Result<Self> {
        Ok(Self {
            loader: find(&base.join("usr/lib64"), "ld-linux")
                .or_else(|_| find(&base.join("usr/lib"), "ld-linux"))?,
            libraries: find(&base.join("usr/lib"), "-linux-gnu")?,
            program: base.join("usr/bin/ip"),
        })
    }

    /// Runs `ip` with `arguments`, separated by single spaces, in our own
    /// network namespace or in another, such as `/proc/<pid>/ns/net`.
    pub fn run(&self, namespace: Option<&Path>, arguments: &str) -> Result<()> {
        let mut command = match namespace {
            None => Command::new(&self.loader),
            Some(namespace) => {
                let mut command = Command::new("nsenter");
                command
                    .arg(format!("--net={}", namespace.display()))
                    .arg("--")
                    .arg(&self.loader);
                command
            }
        };
        let output = command
            .arg("--library-path")
            .arg(&self.libraries)
            .arg(&self.program)
            .args(arguments.split(' '))
            .output()
            .context("cannot run ip(8) of the base tree")?;
        if !output.status.success() {
            bail!(
                "ip {arguments}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }
}

/// The first entry of a directory whose name contains `part`.
fn find(directory: &Path, part: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(directory)
        .with_context(|| format!("no {}: the base tree is damaged", directory.display()))?
    {
        let entry = entry?;
        if entry
            .file_name()
            .as_bytes()
            .windows(part.len())
            .any(|window| window == part.as_bytes())
        {
            return Ok(entry.path());
        }
    }
    bail!(
        "nothing like {part} in {}: the base tree is damaged",
        directory.display()
    )
}
