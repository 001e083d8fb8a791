//! Brings up a cluster of bootc hosts, installs the operator, rolls a new OS
//! image out over the hosts and shows how it goes.

mod figures;
mod pictures;
mod rollout;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use e2e::{Config, Env, Programs, workload};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// The cluster's name: one sandbox at a time.
const CLUSTER: &str = "sandbox";

/// A Kubernetes cluster of bootc hosts on this machine, and a rollout on it.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Tear everything down after the rollout; the exit code says whether all
    /// nodes run the new image and the workload never went below its budget.
    #[arg(long)]
    exit: bool,
    /// How many hosts to start.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=9))]
    hosts: u8,
    /// Keep pictures of the rollout in this folder, as `kubectl bootc` draws them: status.svg and
    /// timeline.svg.
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
}

fn main() -> ExitCode {
    if let Some(code) = bed::bink::run_as_bink() {
        return code;
    }
    let args = Args::parse();
    let outcome = match Runtime::new() {
        Ok(runtime) => runtime.block_on(run(&args)),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sandbox: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the rollout did what it should. However it ends, the cluster is
/// taken down with the `Env`.
async fn run(args: &Args) -> Result<bool> {
    bed::preflight::check()?;
    let _lock = alone()?;
    let (env, programs, good) = tokio::select! {
        outcome = demonstrate(args) => outcome?,
        stopped = stop() => {
            stopped?;
            bail!("stopped by a signal");
        }
    };
    if !args.exit {
        stay(&env.kubeconfig, &programs).await?;
    }
    println!("taking the cluster down");
    drop(env);
    Ok(good)
}

/// Cluster, operator, workload, pool, update: the whole way.
async fn demonstrate(args: &Args) -> Result<(Env, Programs, bool)> {
    let programs = Programs::build().await?;
    let started = Instant::now();
    let mut pictures = pictures::Pictures::new(args.pictures.as_deref())?;
    let env = start(args).await?;
    workload::deploy(&env).await?;
    let programs = programs.on(&env.kubeconfig);
    let pool = rollout::create_pool(&env, &programs).await?;
    let up = format!(
        "up in {:.0} s: {} hosts Ready, operator and agents running",
        started.elapsed().as_secs_f32(),
        env.nodes.len()
    );
    println!("\n{up}\n");

    let probe = workload::Probe::start(&env);
    let report = rollout::update(&env, &programs, &pool, &mut pictures).await;
    let service = probe.stop().await?;
    let report = report?;
    pictures.of_timeline(&programs).await?;
    println!("\n{}", report.table());
    println!("{service}");
    println!("{}", figures::measure(&env).await?);
    println!(
        "The sandbox was {up}; the rollout took {:.0} s",
        report.took().as_secs_f32()
    );
    let good = report.complete() && service.within_budget();
    Ok((env, programs, good))
}

/// One sandbox at a time; what a killed one left is ours to remove.
fn alone() -> Result<std::fs::File> {
    let path = bed::paths::bed()?.join("sandbox.lock");
    let lock =
        std::fs::File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    if lock.try_lock().is_err() {
        bail!("another sandbox runs already: end it with Ctrl-C in its terminal");
    }
    Ok(lock)
}

async fn start(args: &Args) -> Result<Env> {
    println!(
        "Starting {} hosts. The first time everything is built: about a quarter of an hour on two cores.",
        args.hosts
    );
    let config = Config {
        name: Some(CLUSTER.to_owned()),
        nodes: args.hosts.into(),
        install: true,
    };
    Env::new(config).await
}

/// Ctrl-C, or whoever ends processes in good order.
async fn stop() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot wait for Ctrl-C"),
        _ = terminate.recv() => Ok(()),
    }
}

async fn stay(kubeconfig: &Path, programs: &Programs) -> Result<()> {
    println!("\nThe cluster stays up until Ctrl-C. In another terminal:");
    println!("  export KUBECONFIG={}", kubeconfig.display());
    let kubectl = bed::paths::bin()?.join("kubectl");
    println!("  {} get bnp,bn,nodes", kubectl.display());
    println!("  {} timeline", programs.plugin_path().display());
    stop().await
}
