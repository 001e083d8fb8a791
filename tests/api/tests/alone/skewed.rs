//! An operator whose clock is an hour off that of everybody else.
//!
//! It is a process of its own: this very program, under a library that moves the wall clock. (A time
//! namespace has the monotonic clocks alone.)

use std::{
    env,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use api_tests::{
    Account, Fleet, Suite,
    fleet::{A, B, Boot, C, View},
    operator::Options,
};
use crd::names::FIELD_MANAGER_OPERATOR;
use libtest_mimic::Trial;
use serde_json::json;
use tempfile::TempDir;

/// Says that this process is to be the operator; the client's configuration is in it.
const ROLE: &str = "SKEWED_OPERATOR";
/// Seconds that the wall clock is off.
const OFFSET: &str = "SKEWED_BY";
const HOUR: i64 = 3600;

/// The wall clock of a process, moved.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    int done = syscall(SYS_clock_gettime, clock, time);
    const char *by = getenv("SKEWED_BY");
    if (done == 0 && by && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        time->tv_sec += atol(by);
    return done;
}
"#;

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial("skewed::an_operator_an_hour_ahead", async |suite| {
            off_by(suite, "ahead", HOUR).await
        }),
        suite.trial("skewed::an_operator_an_hour_behind", async |suite| {
            off_by(suite, "behind", -HOUR).await
        }),
    ]
}

/// Where this process was started as the operator: is that, for ever.
pub(crate) fn run_as_operator() -> Option<ExitCode> {
    let path = env::var_os(ROLE)?;
    let ended = serve(Path::new(&path));
    if let Err(error) = ended {
        eprintln!("the skewed operator: {error:#}");
    }
    Some(ExitCode::FAILURE)
}

#[tokio::main]
async fn serve(path: &Path) -> Result<()> {
    let kubeconfig = kube::config::Kubeconfig::read_from(path)?;
    let options = kube::config::KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    config.default_retry = false;
    Account::OPERATOR
        .namespace
        .clone_into(&mut config.default_namespace);
    let client = kube::Client::try_from(config)?;
    operator::run(client, Options::default().config(), std::future::pending()).await
}

/// A rollout by it, with a reboot that is late and one that falls back: the times that are stored,
/// compared and shown are its own, and others'.
async fn off_by(suite: Arc<Suite>, name: &str, seconds: i64) -> Result<()> {
    let skewed = Skewed::start(&suite, seconds).await?;
    let rollout = json!({ "maxUnavailable": 2, "rebootTimeoutSeconds": 8, "minReadySeconds": 2 });
    let fleet = Fleet::settled(&suite, name, 4, rollout).await?;
    fleet.want(B).await?;
    let view = fleet.until_updated(B).await?;
    fleet.rebooted(&[1; 4])?;
    shows_its_own_time(&view, seconds)?;

    // Late by its own clock, from its own start of the wait.
    fleet.plan(1, |plan| plan.boot = Boot::Hold);
    fleet.plan_once(2, Boot::FallBack);
    fleet.want(C).await?;
    let (late, back) = (fleet.node(1), fleet.node(2));
    fleet
        .until("the late one and the one that fell back are told", |view| {
            let message = view.pool_is("Degraded=True/RolloutHalted")?.message;
            ensure!(
                message.contains(&late) && message.contains(&back),
                "{message}"
            );
            Ok(())
        })
        .await?;
    fleet.plan(1, |plan| plan.boot = Boot::Go);
    // A person asks by a clock that is right.
    fleet.retry(&[2]).await?;
    fleet.until_updated(C).await?;
    fleet.rebooted(&[2, 3, 2, 2])?;

    // Another one takes over, whose clock is right: nothing is late, or waited for, for an hour.
    drop(skewed);
    suite.operator.start(&suite).await?;
    fleet.want(A).await?;
    let view = fleet.until_updated(A).await?;
    view.pool_is("Degraded=False/OK")?;
    fleet.rebooted(&[3, 4, 3, 3])?;
    fleet.used_slots(..=2)?;
    fleet.finish().await?;
    suite.operator.stop().await
}

/// That the clock was off at all.
fn shows_its_own_time(view: &View, seconds: i64) -> Result<()> {
    let pool = view.pool.as_ref().context("no pool")?;
    let fields = pool.metadata.managed_fields.iter().flatten();
    let of_operator = fields.filter(|it| it.manager.as_deref() == Some(FIELD_MANAGER_OPERATOR));
    // The API server's clock, and the operator's own.
    let written = of_operator
        .filter_map(|it| it.time.as_ref())
        .max()
        .context("never written")?;
    let said = view
        .pool_is("UpToDate=True/AllUpdated")?
        .last_transition_time;
    let off = said.0.duration_since(written.0).as_secs();
    ensure!((off - seconds).abs() < 300, "its clock is off by {off} s");
    Ok(())
}

/// The operator's process; it ends with this value.
struct Skewed {
    child: std::process::Child,
    files: TempDir,
}

impl Skewed {
    async fn start(suite: &Suite, seconds: i64) -> Result<Self> {
        let files = tempfile::tempdir()?;
        let kubeconfig = files.path().join("kubeconfig");
        std::fs::write(&kubeconfig, suite.kubeconfig_of(Account::OPERATOR).await?)?;
        let log = std::fs::File::create(files.path().join("log"))?;
        let child = Command::new(env::current_exe()?)
            .env("LD_PRELOAD", library(files.path())?)
            .env(OFFSET, seconds.to_string())
            .env(ROLE, kubeconfig)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start the operator")?;
        let started = Self { child, files };
        // Long enough to fail in, if it cannot even begin.
        tokio::time::sleep(Duration::from_secs(1)).await;
        started.lives()
    }

    fn lives(mut self) -> Result<Self> {
        let ended = self.child.try_wait()?;
        let log = std::fs::read_to_string(self.files.path().join("log"))?;
        ensure!(ended.is_none(), "the operator ended: {log}");
        Ok(self)
    }
}

impl Drop for Skewed {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Builds the library by the C compiler that the bed needs anyway.
fn library(dir: &Path) -> Result<PathBuf> {
    let library = dir.join("clock.so");
    let mut cc = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-x", "c", "-", "-o"])
        .arg(&library)
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot run cc: a C compiler is needed")?;
    let mut source = cc.stdin.take().context("cc takes no source")?;
    source.write_all(LIBRARY.as_bytes())?;
    drop(source);
    ensure!(
        cc.wait()?.success(),
        "cc cannot build the library of clocks"
    );
    Ok(library)
}
