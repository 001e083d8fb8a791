//! Figures at scale, one module a figure: `cargo run --release -p bench -- FIGURE`.
//!
//! A figure is a ratio against a baseline that is measured in the same run, because machines differ
//! and are noisy; README.md beside this says what each one means and keeps the last tables. Nothing
//! here is asserted in a test.

mod table;

use clap::{Parser, Subcommand};

/// Measures one figure and prints it as a table.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Args {
    #[command(subcommand)]
    figure: Figure,
}

/// What can be measured.
#[derive(Debug, Subcommand)]
enum Figure {}

fn main() -> anyhow::Result<()> {
    match Args::parse().figure {}
}
