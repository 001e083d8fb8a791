//! Makes each deliberate error in a copy of the tree and sees whether the tests find it:
//! `cargo run -p mutants`, or `-- --only NAME`.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use mutants::{Mutant, all, project};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// How often it is looked whether a run has ended.
const POLL: Duration = Duration::from_millis(100);

/// Makes deliberate errors and sees whether the tests find them.
#[derive(Debug, Parser)]
struct Args {
    /// Only the mutants whose names contain one of these
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Seconds that the tests of one mutant may take; one that hangs them is found
    #[arg(long, default_value_t = 1200)]
    deadline: u64,
    /// List them and what they do
    #[arg(long)]
    list: bool,
}

/// How a test run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Passed,
    Failed,
    Hung,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let mutants = chosen(&args.only)?;
    if args.list {
        for mutant in &mutants {
            println!("{:28} {} ({})", mutant.name, mutant.why, mutant.test);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let tree = Tree::copy(Duration::from_secs(args.deadline))?;
    tree.check(&mutants)?;
    let mut survivors = Vec::new();
    for (n, mutant) in mutants.iter().enumerate() {
        let start = Instant::now();
        print!("{:3}/{} {:28} ", n + 1, mutants.len(), mutant.name);
        std::io::stdout().flush()?;
        let ended = tree.try_out(mutant)?;
        let word = if ended == Ended::Passed {
            "SURVIVED"
        } else {
            "killed"
        };
        println!("{word} ({ended:?}, {:.0?})", start.elapsed());
        if ended == Ended::Passed {
            survivors.push(mutant);
        }
    }
    println!(
        "{} of {} killed",
        mutants.len() - survivors.len(),
        mutants.len()
    );
    for mutant in &survivors {
        println!(
            "survived: {}: {} ({})",
            mutant.name, mutant.why, mutant.test
        );
    }
    Ok(ExitCode::from(u8::from(!survivors.is_empty())))
}

/// Those whose names contain one of `only`, each of which must name at least one; all without it.
fn chosen(only: &[String]) -> Result<Vec<Mutant>> {
    let all = all();
    let unknown = |name: &&String| !all.iter().any(|it| it.name.contains(name.as_str()));
    if let Some(name) = only.iter().find(unknown) {
        bail!("no mutant is called {name}; see --list");
    }
    let is_one = |it: &Mutant| only.iter().any(|name| it.name.contains(name.as_str()));
    let chosen = all.iter().filter(|it| only.is_empty() || is_one(it));
    Ok(chosen.copied().collect())
}

/// A copy of the tree that errors may be made in, with a target folder of its own that stays warm.
struct Tree {
    root: PathBuf,
    deadline: Duration,
}

impl Tree {
    /// Copies all files that git knows or would take; those that did not change are left alone, so
    /// that cargo does not build them again.
    fn copy(deadline: Duration) -> Result<Self> {
        let from = project();
        let root = from.join("target/mutants/tree");
        fs::create_dir_all(&root)?;
        let argv = ["ls-files", "--cached", "--others", "--exclude-standard"];
        let output = Command::new("git").args(argv).current_dir(&from).output()?;
        ensure!(
            output.status.success(),
            "git ls-files failed; is this a git checkout?"
        );
        let names = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
        let known: BTreeSet<PathBuf> = names.lines().map(|name| from.join(name)).collect();
        remove_others(&from, &root, &known)?;
        for name in names.lines() {
            let (old, new) = (from.join(name), root.join(name));
            let Ok(text) = fs::read(&old) else { continue };
            if fs::read(&new).is_ok_and(|known| known == text) {
                continue;
            }
            if let Some(folder) = new.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(&new, text).with_context(|| format!("cannot copy {name}"))?;
        }
        Ok(Self { root, deadline })
    }

    /// Without an error the tests pass: else nothing is learned.
    fn check(&self, mutants: &[Mutant]) -> Result<()> {
        let tests: BTreeSet<&str> = mutants.iter().map(|mutant| mutant.test).collect();
        for test in tests {
            println!("cargo test {test}, without an error …");
            ensure!(self.builds(test)?, "cargo test {test} does not build");
            let ended = self.cargo(test, &[])?;
            ensure!(
                ended == Ended::Passed,
                "cargo test {test}: {ended:?} without an error"
            );
        }
        Ok(())
    }

    fn try_out(&self, mutant: &Mutant) -> Result<Ended> {
        let path = self.root.join(mutant.file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        fs::write(&path, mutant.applied(&text)?)?;
        let ended = match self.builds(mutant.test) {
            Ok(true) => self.cargo(mutant.test, &[]),
            Ok(false) => Err(anyhow::anyhow!("{}: it does not build", mutant.name)),
            Err(error) => Err(error),
        };
        restore(&path, &text)?;
        ended
    }

    fn builds(&self, test: &str) -> Result<bool> {
        Ok(self.cargo(test, &["--no-run"])? == Ended::Passed)
    }

    fn cargo(&self, test: &str, more: &[&str]) -> Result<Ended> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .arg("test")
            .args(test.split(' '))
            .args(more)
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", self.root.join("../target"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        wait(command.spawn().context("cannot run cargo")?, self.deadline)
    }
}

/// Removes the files of a copy that the original has no more: cargo would take them for sources.
fn remove_others(from: &Path, root: &Path, known: &BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let (path, original) = (entry.path(), from.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            remove_others(&original, &path, known)?;
        } else if !known.contains(&original) || !original.exists() {
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// Writes the text back, and with it a new time, so that cargo sees the change.
fn restore(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot mend {}", path.display()))
}

/// Waits for a run and ends it with all that it started when it takes too long.
fn wait(mut child: Child, deadline: Duration) -> Result<Ended> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(status) = child.try_wait()? {
            let ended = if status.success() {
                Ended::Passed
            } else {
                Ended::Failed
            };
            return Ok(ended);
        }
        if Instant::now() > end {
            let group = i32::try_from(child.id()).context("no such process")?;
            if killpg(Pid::from_raw(group), Signal::SIGKILL).is_err() {
                bail!("a run that hangs cannot be ended");
            }
            child.wait()?;
            return Ok(Ended::Hung);
        }
        sleep(POLL);
    }
}
