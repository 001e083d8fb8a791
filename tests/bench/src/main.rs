//! Figures at scale, one module a figure: `cargo run --release -p bench -- FIGURE`.
//!
//! A figure is a ratio against a baseline that is measured in the same run, because machines differ
//! and are noisy; README.md beside this says what each one means and keeps the last tables. Nothing
//! here is asserted in a test.

mod agent;
mod cluster;
mod decisions;
mod drain;
mod floor;
mod heartbeat;
mod numbers;
mod process;
mod rollout;
mod scrape;
mod start;
mod table;
mod telemetry;
mod threads;
mod turnround;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, anyhow, ensure};
use clap::{Parser, Subcommand};
use table::Table;

/// Measures one figure and prints it as a table.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Args {
    /// The operator to measure; unset: it is built as it is shipped
    #[arg(long, value_name = "PROGRAM")]
    operator: Option<PathBuf>,
    #[command(subcommand)]
    figure: Figure,
}

/// What can be measured.
#[derive(Debug, Subcommand)]
enum Figure {
    /// An agent at rest on a host: memory, wake-ups and requests, beside a program that does nothing
    Agent(agent::Agent),
    /// A rollout: wall and CPU time against a program that makes the same writes without logic
    Rollout(Sizes),
    /// The operator's memory after its start and at its peak
    Memory(Sizes),
    /// Slot freed to next node's cordon, against one write
    Turnround {
        /// Nodes
        #[arg(long, default_value_t = 1000)]
        nodes: usize,
        /// Slots
        #[arg(long, value_delimiter = ',', default_value = "1,10")]
        slots: Vec<usize>,
    },
    /// CPU time of a Node's heartbeat, against decoding the whole Node
    Heartbeat {
        /// Nodes
        #[arg(long, default_value_t = 1000)]
        nodes: usize,
        /// Heartbeats of each
        #[arg(long, default_value_t = 5)]
        beats: usize,
        /// How often it is measured; the median counts
        #[arg(long, default_value_t = 3)]
        repeat: usize,
    },
    /// Start to first decision, against a LIST of the same objects
    Start(Sizes),
    /// The operator's CPU time with tracing and metrics, against that without
    Telemetry {
        /// Nodes
        #[arg(long, default_value_t = 300)]
        nodes: usize,
        /// How often it is measured, each time both ways
        #[arg(long, default_value_t = 5)]
        repeat: usize,
    },
    /// Requests for each pod of a drain
    Drain {
        /// Nodes that are drained at once
        #[arg(long, default_value_t = 10)]
        nodes: usize,
        /// Pods on each
        #[arg(long, default_value_t = 100)]
        pods: usize,
    },
    /// A scrape of the operator's metrics: time and size, against one at few nodes
    Scrape {
        /// Nodes, the baseline first
        #[arg(long, value_delimiter = ',', default_value = "100,1000,5000")]
        nodes: Vec<usize>,
        /// Pools that share them
        #[arg(long, default_value_t = 10)]
        pools: usize,
        /// How often it is measured; the median counts
        #[arg(long, default_value_t = 1001)]
        repeat: usize,
    },
    /// Instructions and memory of one input of the decisions, by number of nodes (needs valgrind)
    Decisions(decisions::Decisions),
    /// All that need a cluster, one after the other
    Cluster(Sizes),
}

/// What is measured at several sizes.
#[derive(Debug, clap::Args)]
struct Sizes {
    /// Nodes
    #[arg(long, value_delimiter = ',', default_value = "100,1000,5000")]
    nodes: Vec<usize>,
    /// How often it is measured; the median counts
    #[arg(long, default_value_t = 3)]
    repeat: usize,
}

fn main() -> Result<ExitCode> {
    // Clusters with hosts are made by a command, which is this very program.
    if let Some(code) = bed::bink::run_as_bink() {
        return Ok(code);
    }
    let args = Args::parse();
    if let Figure::Decisions(figure) = &args.figure {
        if let Some(table) = figure.measure()? {
            show("decisions", &table);
        }
        return Ok(ExitCode::SUCCESS);
    }
    measure(args)?;
    Ok(ExitCode::SUCCESS)
}

#[tokio::main]
async fn measure(args: Args) -> Result<()> {
    if let Figure::Agent(agent) = &args.figure {
        show("agent", &agent.measure().await?);
        return Ok(());
    }
    if let Figure::Scrape {
        nodes,
        pools,
        repeat,
    } = &args.figure
    {
        show("scrape", &scrape::measure(nodes, *pools, *repeat)?);
        return Ok(());
    }
    cluster::operator::choose(args.operator)?;
    match args.figure {
        Figure::Agent(_) | Figure::Scrape { .. } | Figure::Decisions(_) => {}
        Figure::Rollout(sizes) => rollouts(&sizes, true).await?,
        Figure::Memory(sizes) => rollouts(&sizes, false).await?,
        Figure::Turnround { nodes, slots } => {
            show("turnround", &turnround::measure(nodes, &slots).await?);
        }
        Figure::Heartbeat {
            nodes,
            beats,
            repeat,
        } => {
            show(
                "heartbeat",
                &heartbeat::measure(nodes, beats, repeat).await?,
            );
        }
        Figure::Telemetry { nodes, repeat } => {
            show("telemetry", &telemetry::measure(nodes, repeat).await?);
        }
        Figure::Start(sizes) => show("start", &start::measure(&sizes.nodes, sizes.repeat).await?),
        Figure::Drain { nodes, pods } => show("drain", &drain::measure(nodes, pods).await?),
        Figure::Cluster(sizes) => all(&sizes).await?,
    }
    Ok(())
}

/// The longest one comes last. One that fails does not keep the others from being measured.
async fn all(sizes: &Sizes) -> Result<()> {
    let (repeat, largest) = (sizes.repeat, sizes.nodes.iter().copied().max().unwrap_or(0));
    let some = largest.min(1000);
    let results = [
        tell("drain", drain::measure(10, 100).await),
        tell("turnround", turnround::measure(some, &[1, 10]).await),
        tell("heartbeat", heartbeat::measure(some, 5, repeat).await),
        tell("start", start::measure(&[largest], repeat).await),
        rollouts(sizes, true).await,
    ];
    let failed = results.iter().filter(|result| result.is_err()).count();
    ensure!(failed == 0, "{failed} figures could not be measured");
    Ok(())
}

async fn rollouts(sizes: &Sizes, with_floor: bool) -> Result<()> {
    let all = rollout::measure(&sizes.nodes, sizes.repeat, with_floor).await;
    let memory = all
        .as_ref()
        .map(|all| rollout::memory(all))
        .map_err(|error| anyhow!("{error:#}"));
    if with_floor {
        tell("rollout", all.map(|all| rollout::table(&all)))?;
    }
    tell("memory", memory)
}

/// Shows a figure, or why there is none.
fn tell(figure: &str, table: Result<Table>) -> Result<()> {
    match table {
        Ok(table) => show(figure, &table),
        Err(error) => {
            eprintln!("{figure}: {error:#}");
            return Err(error);
        }
    }
    Ok(())
}

fn show(figure: &str, table: &Table) {
    println!("{figure}\n\n{table}");
}
