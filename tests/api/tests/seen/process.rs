//! The operator as a process of its own: this very program, in another role.

use std::{env, fs, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use api_tests::{Account, Suite};
use bed::process::{Daemon, Program};
use clap::Parser as _;
use nix::sys::signal::Signal;
use operator::{args::Args, program};
use serde_json::Value;

/// Says that this process is to be the operator.
const ROLE: &str = "SEEN_AS_OPERATOR";
/// How long a clean end may take, the last spans included.
const ENDS: Duration = Duration::from_secs(8);

/// Where this process was started as the operator: is that until it is told to stop.
pub(crate) fn run_as_operator() -> Option<ExitCode> {
    env::var_os(ROLE)?;
    let args = Args::parse();
    program::log(args.log_format);
    Some(program::operate(&args))
}

/// An operator that runs; dropped, it is killed.
pub(crate) struct Operator(Daemon);

impl Operator {
    /// Starts one with these flags and variables; its log goes to `dir`.
    pub(crate) async fn start(
        suite: &Suite,
        dir: &Path,
        flags: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Self> {
        let kubeconfig = dir.join("kubeconfig");
        fs::write(&kubeconfig, kubeconfig_of(suite).await?)?;
        let mut argv = vec![env::current_exe()?.into_os_string()];
        argv.extend(["--health-probe-bind-address=0", "--allow-insecure-registry"].map(Into::into));
        argv.extend(flags.iter().map(Into::into));
        let mut env = vec![
            (ROLE.to_owned(), "yes".into()),
            ("KUBECONFIG".to_owned(), kubeconfig.into_os_string()),
        ];
        let ours = variables.iter();
        env.extend(ours.map(|(name, value)| ((*name).to_owned(), (*value).into())));
        let program = Program {
            name: "operator".to_owned(),
            argv,
            env,
            dir: dir.to_owned(),
        };
        Ok(Self(program.start()?))
    }

    /// Ends it as a pod ends.
    pub(crate) async fn stop(self) -> Result<()> {
        let status = tokio::task::spawn_blocking(|| self.0.stop(ENDS)).await??;
        anyhow::ensure!(status.success(), "the operator ended with {status}");
        Ok(())
    }

    /// Ends it in the middle of whatever it does.
    pub(crate) fn kill(self) -> Result<()> {
        self.0.signal(Signal::SIGKILL)
    }

    /// An error with its last words when it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.0.check()
    }
}

/// What it has logged so far, in all its lives.
pub(crate) fn log_of(dir: &Path) -> Result<String> {
    fs::read_to_string(dir.join("operator.log")).context("the operator has no log")
}

/// The kubeconfig of the operator's account, in its namespace.
async fn kubeconfig_of(suite: &Suite) -> Result<String> {
    let text = suite.kubeconfig_of(Account::OPERATOR).await?;
    let mut kubeconfig: Value = serde_json::from_str(&text)?;
    for context in kubeconfig["contexts"].as_array_mut().into_iter().flatten() {
        context["context"]["namespace"] = Account::OPERATOR.namespace.into();
    }
    Ok(kubeconfig.to_string())
}
