//! `bootc-nodeagent`: flags, log, signals.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use nodeagent::{agent::Agent, api::Server, hands::Hands, host::Host};
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;

#[allow(clippy::doc_markdown, reason = "it is the text of --help")]
/// Makes this node's bootc do what its BootcNode asks for, and reports. Runs in a privileged pod with
/// hostPID.
#[derive(Debug, Parser)]
#[command(name = "bootc-nodeagent", version)]
struct Flags {
    /// Name of the node, and of its BootcNode.
    #[arg(long, env = "NODE_NAME")]
    node_name: String,
    /// How often bootc is asked for its status, besides whenever the host changes.
    #[arg(long, default_value = "5m", value_parser = interval)]
    bootc_poll_interval: Duration,
    /// Outside a pod: take this machine for the host, and reboot it when told to.
    #[arg(long)]
    enter_host: bool,
    /// Log as JSON, one object a line.
    #[arg(long)]
    log_json: bool,
    /// The least severe level that is logged.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    log_level: LevelFilter,
}

fn interval(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time < Duration::from_secs(1) {
        return Err("must be at least 1s".into());
    }
    Ok(time)
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let log = tracing_subscriber::fmt()
        .with_max_level(flags.log_level)
        .with_writer(std::io::stderr);
    if flags.log_json {
        log.json().init();
    } else {
        log.with_ansi(false).init();
    }
    match run(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<(), Box<dyn std::error::Error>> {
    let host = Host::enter(flags.enter_host)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            ended = drive(flags, host) => ended,
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    });
    // What a dropped future left to a thread must not hold us up.
    runtime.shutdown_timeout(Duration::from_millis(200));
    ended
}

async fn drive(flags: &Flags, host: Host) -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::connect(&flags.node_name).await?;
    server.check().await?;
    let agent = Agent::start(Hands::new(host, server), flags.bootc_poll_interval).await?;
    agent.run().await;
    Ok(())
}
