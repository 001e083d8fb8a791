//! Prometheus and promtool, from Debian's packages.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use bed_host::apt::{self, Closure};

use crate::paths;

/// Where the packages are unpacked.
#[derive(Debug, Clone)]
pub struct Prometheus {
    root: PathBuf,
}

impl Prometheus {
    /// Fetches the packages where they are not there yet. It blocks, for a minute the first time.
    pub fn ensure() -> Result<Self> {
        let packages = ["prometheus", "promtool", "libc6"];
        let root = apt::unpacked(&paths::bed()?, "prometheus", &packages, Closure::Named)?;
        let prometheus = Self { root };
        ensure!(
            prometheus.program("promtool").is_file(),
            "the package promtool has no promtool"
        );
        Ok(prometheus)
    }

    fn program(&self, name: &str) -> PathBuf {
        self.root.join("usr/bin").join(name)
    }

    /// The command line of one of its programs (`prometheus`, `promtool`), which runs on the C library
    /// that it was built for, whatever this machine has.
    #[must_use]
    pub fn argv(&self, name: &str) -> Vec<OsString> {
        let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
        let libraries = self.root.join("usr/lib").join(triplet);
        let loader = match std::env::consts::ARCH {
            "aarch64" => "ld-linux-aarch64.so.1",
            _ => "ld-linux-x86-64.so.2",
        };
        let loader = libraries.join(loader);
        let text = |path: &Path| path.as_os_str().to_owned();
        vec![
            text(&loader),
            "--library-path".into(),
            text(&libraries),
            text(&self.program(name)),
        ]
    }
}
