//! `bootc-operator`: reads its flags, sets up logging and runs the operator until it is told to
//! stop.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write as _},
    path::Path,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser as _;
use operator::{
    args::{Args, Command, Output},
    journal::{Format, Summary, replay},
    program::{log, operate},
};

fn main() -> ExitCode {
    let args = Args::parse();
    log(args.log_format);
    if let Some(Command::Replay { file, output, all }) = &args.command {
        return match decide_again(file, *output, *all) {
            Ok(summary) => tell(&summary),
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    operate(&args)
}

fn decide_again(file: &Path, output: Output, all: bool) -> anyhow::Result<Summary> {
    let journal: Box<dyn BufRead> = if file.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
        Box::new(BufReader::new(file))
    };
    let format = match output {
        Output::Text => Format::Text,
        Output::Json => Format::Json,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let summary = replay(journal, format, all, &mut out)?;
    out.flush()?;
    Ok(summary)
}

/// The replay's last words, and its exit code.
fn tell(summary: &Summary) -> ExitCode {
    let Summary {
        inputs,
        commands,
        differing,
        lost,
        ..
    } = summary;
    eprintln!("{inputs} inputs, {commands} commands");
    if summary.torn {
        eprintln!("the last line is torn: the operator ended while it wrote it");
    }
    if summary.full {
        eprintln!("the journal was full: it lacks what came after");
    }
    if *lost > 0 {
        eprintln!("{lost} lines are missing (the disk was too slow): what follows them may differ");
    }
    if *differing > 0 {
        eprintln!(
            "on {differing} inputs something else was decided then, by operator {} (this is {})",
            summary.version,
            env!("CARGO_PKG_VERSION")
        );
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}
