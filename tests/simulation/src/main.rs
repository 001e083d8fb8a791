//! Runs schedules, with progress: `cargo run -p simulation -- --cases 1000000 --seed 7`.

use std::{io::Write as _, process::ExitCode, time::Instant};

use clap::Parser;
use simulation::{Mark, Tally};

/// Whole rollouts in a model cluster, with every fault.
#[derive(Debug, Parser)]
struct Args {
    /// How many schedules.
    #[arg(long, default_value_t = 100_000)]
    cases: u64,
    /// The seed of the first one; the others follow it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run the schedule of this seed alone and tell all of it.
    #[arg(long)]
    replay: Option<u64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(seed) = args.replay {
        let (text, well) = simulation::replay(seed);
        println!("{text}");
        return ExitCode::from(u8::from(!well));
    }
    let start = Instant::now();
    let progress = |n: u64| {
        let mut out = std::io::stderr().lock();
        let _ = write!(
            out,
            "\r{n} of {} schedules, {:.0?}  ",
            args.cases,
            start.elapsed()
        );
    };
    let ended = simulation::run(args.cases, args.seed, progress);
    eprintln!();
    match ended {
        Ok(tally) => {
            show(&tally);
            println!("{:.1?}", start.elapsed());
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{}", failure.text);
            ExitCode::FAILURE
        }
    }
}

fn show(tally: &Tally) {
    println!("{} schedules, {} steps", tally.schedules, tally.steps);
    println!("\nwhat struck");
    for mark in Mark::ALL {
        println!("{:10}  {mark:?}", tally.marks.count(mark));
    }
    println!("\nwhat was done, and how often there was nothing to do it to");
    for (name, (all, skipped)) in &tally.actions {
        println!("{all:10}  {skipped:10}  {name}");
    }
}
