//! Our programs for the machine that we are on: the plugin, and the operator's other roles.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;
use tokio::time::timeout;

use crate::Output;

/// How long one of them may take.
const CALL: Duration = Duration::from_secs(60);

/// The programs, and the cluster that they are to work on.
#[derive(Debug, Clone)]
pub struct Programs {
    folder: PathBuf,
    kubeconfig: PathBuf,
}

impl Programs {
    /// Builds what is missing: minutes the first time. They work on no cluster yet.
    pub async fn build() -> Result<Self> {
        let build = || bed::cargo::programs("operator", &["kubectl-bootc", "bootc-operator"]);
        Ok(Self {
            folder: tokio::task::spawn_blocking(build).await??,
            kubeconfig: PathBuf::from("/dev/null"),
        })
    }

    /// The same for the cluster of that kubeconfig.
    #[must_use]
    pub fn on(self, kubeconfig: &Path) -> Self {
        Self {
            kubeconfig: kubeconfig.to_owned(),
            ..self
        }
    }

    /// Where `kubectl bootc` is.
    #[must_use]
    pub fn plugin_path(&self) -> PathBuf {
        self.folder.join("kubectl-bootc")
    }

    /// `kubectl bootc` with these words, to be run as one likes.
    #[must_use]
    pub fn plugin(&self, line: &str) -> Command {
        let mut command = Command::new(self.plugin_path());
        command.args(line.split_whitespace());
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// What `kubectl bootc` says to these words.
    pub async fn bootc(&self, line: &str) -> Result<Output> {
        said(self.plugin(line), line).await
    }

    /// What `kubectl bootc timeline` makes of a journal.
    pub async fn timeline_of(&self, journal: &Path) -> Result<Output> {
        let mut command = self.plugin("timeline --journal");
        command.arg(journal);
        said(command, "timeline --journal").await
    }

    /// What `bootc-operator replay` says of a journal.
    pub async fn replay(&self, journal: &Path) -> Result<Output> {
        let mut command = Command::new(self.folder.join("bootc-operator"));
        command.arg("replay").arg(journal);
        said(command, "replay").await
    }
}

/// Runs a command to its end.
async fn said(mut command: Command, what: &str) -> Result<Output> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(CALL, command.output()).await;
    let output = output.with_context(|| format!("`{what}` does not end"))??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let said = Output {
        code: output.status.code().unwrap_or(-1),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    };
    ensure!(!said.stderr.contains("panicked"), "{what}: {}", said.stderr);
    Ok(said)
}
