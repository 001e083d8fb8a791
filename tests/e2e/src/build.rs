//! Builds the programs that the clusters run, by the cargo that runs us.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

/// The target of what runs in an image `FROM scratch`.
const STATIC_TARGET: &str = "x86_64-unknown-linux-musl";

/// The two binaries as they ship: static and stripped.
#[derive(Debug, Clone)]
pub(crate) struct Binaries {
    /// `bootc-operator`.
    pub(crate) operator: PathBuf,
    /// `bootc-nodeagent`.
    pub(crate) agent: PathBuf,
}

impl Binaries {
    /// Builds what is missing; from nothing it takes minutes.
    ///
    /// One after the other: built together, the agent would get every feature
    /// of a library that only the operator asks for.
    pub(crate) async fn ensure() -> Result<Self> {
        let built = bed::cargo::built("bootc-operator").zip(bed::cargo::built("bootc-nodeagent"));
        if let Some((operator, agent)) = built {
            return Ok(Self { operator, agent });
        }
        for (package, profile, program) in [
            ("operator", "release", "bootc-operator"),
            ("nodeagent", "small", "bootc-nodeagent"),
        ] {
            let args = [
                "build",
                "--profile",
                profile,
                "--target",
                STATIC_TARGET,
                "--package",
                package,
                "--bin",
                program,
            ];
            cargo(&args).await.with_context(|| {
                format!("the images need static binaries; if the target is missing: rustup target add {STATIC_TARGET}")
            })?;
        }
        let dir = bed::paths::target().join(STATIC_TARGET);
        Ok(Self {
            operator: dir.join("release/bootc-operator"),
            agent: dir.join("small/bootc-nodeagent"),
        })
    }
}

async fn cargo(args: &[&str]) -> Result<()> {
    let mut command = Command::from(bed::cargo::command());
    let status = command.args(args).arg("--locked").status();
    let status = status.await.context("cannot run cargo")?;
    if !status.success() {
        bail!("cargo {} failed ({status})", args.join(" "));
    }
    Ok(())
}
