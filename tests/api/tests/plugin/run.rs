//! The program, who runs it, and the operator that writes a journal.

use std::{path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use api_tests::{Account, Suite, operator::Options, wait};
use k8s_openapi::api::{core::v1::ServiceAccount, rbac::v1::ClusterRoleBinding};
use kube::{Api, api::PostParams};
use operator::{Config, journal::Place};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{process::Command, task::JoinSet, time::timeout};

/// How long one call may take.
const CALL: Duration = Duration::from_secs(60);
/// No test writes so much.
const LIMIT: u64 = 1 << 30;

/// May read, by the role that is installed for that.
const VIEWER: Account = Account {
    namespace: "default",
    name: "viewer",
};
/// May do what an admin may.
const EDITOR: Account = Account {
    namespace: "default",
    name: "editor",
};
/// May do nothing.
const NOBODY: Account = Account {
    namespace: "default",
    name: "nobody",
};

/// Who runs the program.
#[derive(Clone, Copy, Debug)]
pub(crate) enum As {
    Viewer,
    Editor,
    Nobody,
}

/// How a call ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// Complains unless it ended so, and standard output has all of these.
    pub(crate) fn is(&self, code: i32, texts: &[&str]) -> Result<()> {
        ensure!(self.code == Some(code), "not {code}: {self:?}");
        for text in texts {
            ensure!(
                self.out.contains(text),
                "no `{text}`: {}{}",
                self.out,
                self.err
            );
        }
        Ok(())
    }

    /// Standard output as JSON.
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("{self:?}"))
    }
}

/// All that the tests share.
pub(crate) struct Stage {
    folder: TempDir,
    bin: PathBuf,
    _operator: JoinSet<Result<()>>,
}

impl Stage {
    /// Builds the programs, makes the accounts and starts the operator.
    pub(crate) async fn set(suite: &Arc<Suite>) -> Result<Arc<Self>> {
        let build = || bed::cargo::programs("operator", &["kubectl-bootc", "bootc-operator"]);
        let bin = tokio::task::spawn_blocking(build).await??;
        let folder = TempDir::new()?;
        let mut operator = JoinSet::new();
        let config = Config {
            journal: Some(Place {
                file: folder.path().join("journal"),
                limit: LIMIT,
            }),
            ..Options::default().config()
        };
        let client = suite.client_of(Account::OPERATOR, None).await?;
        operator.spawn(operator::run(client, config, std::future::pending()));
        for (account, role) in [
            (VIEWER, Some("bootc-viewer")),
            (EDITOR, Some("cluster-admin")),
            (NOBODY, None),
        ] {
            account_with(suite, account, role).await?;
            let kubeconfig = suite.kubeconfig_of(account).await?;
            std::fs::write(folder.path().join(account.name), kubeconfig)?;
        }
        Ok(Arc::new(Self {
            folder,
            bin,
            _operator: operator,
        }))
    }

    /// The operator's journal.
    pub(crate) fn journal(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    /// Runs `kubectl-bootc` with these arguments.
    pub(crate) async fn bootc(&self, who: As, line: &str) -> Result<Ended> {
        self.program("kubectl-bootc", who, line).await
    }

    /// Runs `bootc-operator`.
    pub(crate) async fn operator(&self, line: &str) -> Result<Ended> {
        self.program("bootc-operator", As::Nobody, line).await
    }

    async fn program(&self, name: &str, who: As, line: &str) -> Result<Ended> {
        let mut command = Command::new(self.bin.join(name));
        command.args(line.split_whitespace());
        self.finish(command, who, line).await
    }

    /// Runs a command as somebody.
    pub(crate) async fn finish(&self, mut command: Command, who: As, line: &str) -> Result<Ended> {
        let account = match who {
            As::Viewer => VIEWER,
            As::Editor => EDITOR,
            As::Nobody => NOBODY,
        };
        let child = command
            .env("KUBECONFIG", self.folder.path().join(account.name))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = timeout(CALL, child.wait_with_output());
        let output = output.await.with_context(|| format!("{line} hangs"))??;
        let ended = Ended {
            code: output.status.code(),
            out: String::from_utf8(output.stdout)?,
            err: String::from_utf8(output.stderr)?,
        };
        ensure!(!ended.err.contains("panicked"), "{line}: {}", ended.err);
        Ok(ended)
    }

    /// The folder of the programs.
    pub(crate) fn bin(&self) -> &PathBuf {
        &self.bin
    }

    /// Calls again and again until there is no complaint.
    pub(crate) async fn until(&self, line: &str, code: i32, texts: &[&str]) -> Result<Ended> {
        wait::until(line, || async {
            let ended = self.bootc(As::Viewer, line).await?;
            ended.is(code, texts).map(|()| ended)
        })
        .await
    }
}

async fn account_with(suite: &Suite, account: Account, role: Option<&str>) -> Result<()> {
    let api = Api::<ServiceAccount>::namespaced(suite.admin.clone(), account.namespace);
    let made = serde_json::from_value(json!({ "metadata": { "name": account.name } }))?;
    api.create(&PostParams::default(), &made).await?;
    let Some(role) = role else { return Ok(()) };
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": { "name": format!("plugin-{}", account.name) },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
        "subjects": [{ "kind": "ServiceAccount", "name": account.name, "namespace": account.namespace }],
    }))?;
    let api = Api::all(suite.admin.clone());
    api.create(&PostParams::default(), &binding).await?;
    Ok(())
}
