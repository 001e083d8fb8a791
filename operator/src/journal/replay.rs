//! A journal folded again: the same inputs into the same rules, and what came of it then and now.

use std::io::{self, BufRead, Write};

use anyhow::{Context as _, bail};
use fsm::{Command, Input, Rollout, Timestamp};
use serde_json::json;

use super::{FORMAT, Line, text};

/// How a replay is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A line a command, for people.
    #[default]
    Text,
    /// A line a command, each a JSON object.
    Json,
}

/// One input, and what was made of it.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Its number.
    pub n: u64,
    /// The time of the decision.
    pub at: Timestamp,
    /// The input.
    pub input: &'a Input,
    /// What is decided on it now.
    pub now: &'a [Command],
    /// What was decided on it then; unknown where the journal ends with the input or has a gap.
    pub then: Option<&'a [Command]>,
}

impl Entry<'_> {
    /// Was something else decided then?
    #[must_use]
    pub fn differs(&self) -> bool {
        self.then.is_some_and(|then| then != self.now)
    }
}

/// What a journal held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The version that wrote it.
    pub version: String,
    /// Inputs.
    pub inputs: u64,
    /// Commands.
    pub commands: u64,
    /// Inputs on which something else was decided then, before the first gap.
    pub differing: u64,
    /// Lines that the journal says are missing.
    pub lost: u64,
    /// It ends within a line: the operator or its machine ended in the middle of a write.
    pub torn: bool,
    /// It ended because it was full.
    pub full: bool,
}

/// Reads a journal and folds it, telling of each input.
pub fn fold(
    journal: impl BufRead,
    mut tell: impl FnMut(&Entry<'_>) -> io::Result<()>,
) -> anyhow::Result<Summary> {
    let mut lines = Lines::new(journal);
    let Some(Line::Start(start)) = lines.next()? else {
        bail!("this is no journal: its first line is not {{\"start\":…}}");
    };
    if start.format != FORMAT {
        bail!(
            "the journal is of format {}, and this version reads format {FORMAT}: replay it with operator {}",
            start.format,
            start.version
        );
    }
    let mut rollout = Rollout::new(start.config);
    let mut summary = Summary {
        version: start.version,
        ..Summary::default()
    };
    let mut next = lines.next()?;
    while let Some(line) = next.take() {
        match line {
            Line::Input { n, at, input } => {
                let now = rollout.handle(at, input.as_ref().clone());
                next = lines.next()?;
                let then = match next.take() {
                    Some(Line::Commands { n: of, commands }) if of == n => {
                        next = lines.next()?;
                        Some(commands)
                    }
                    // Another input follows: nothing was decided.
                    other @ Some(Line::Input { .. }) => {
                        next = other;
                        Some(Vec::new())
                    }
                    other => {
                        next = other;
                        None
                    }
                };
                summary.inputs += 1;
                summary.commands += now.len() as u64;
                let then = then.filter(|_| summary.lost == 0);
                let entry = Entry {
                    n,
                    at,
                    input: &input,
                    now: &now,
                    then: then.as_deref(),
                };
                summary.differing += u64::from(entry.differs());
                tell(&entry)?;
            }
            Line::Lost { lines: lost } => {
                summary.lost += lost;
                next = lines.next()?;
            }
            Line::Full { .. } => {
                summary.full = true;
                next = lines.next()?;
            }
            Line::Commands { .. } | Line::Start(_) => next = lines.next()?,
        }
    }
    summary.torn = lines.torn;
    Ok(summary)
}

/// Lines of a journal; a broken last one is how a crash looks.
struct Lines<R> {
    journal: R,
    at: u64,
    torn: bool,
}

impl<R: BufRead> Lines<R> {
    fn new(journal: R) -> Self {
        Self {
            journal,
            at: 0,
            torn: false,
        }
    }

    fn next(&mut self) -> anyhow::Result<Option<Line>> {
        let mut line = Vec::new();
        let length = self.journal.read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(None);
        }
        self.at += 1;
        match serde_json::from_slice(&line) {
            Ok(line) => Ok(Some(line)),
            Err(_) if !line.ends_with(b"\n") => {
                self.torn = true;
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| {
                format!(
                    "line {} of the journal cannot be read; was it edited, or written by another version?",
                    self.at
                )
            }),
        }
    }
}

/// Prints each decision of a journal. `all` prints timers as well.
pub fn replay(
    journal: impl BufRead,
    format: Format,
    all: bool,
    out: &mut impl Write,
) -> anyhow::Result<Summary> {
    fold(journal, |entry| {
        let shown = |command: &&Command| all || !matches!(command, Command::WakeAt(_));
        for command in entry.now.iter().filter(shown) {
            line(out, entry, command, "", format)?;
        }
        if let Some(then) = entry.then.filter(|_| entry.differs()) {
            for command in then.iter().filter(|command| !entry.now.contains(command)) {
                line(out, entry, command, "! then: ", format)?;
            }
        }
        Ok(())
    })
}

fn line(
    out: &mut impl Write,
    entry: &Entry<'_>,
    command: &Command,
    mark: &str,
    format: Format,
) -> io::Result<()> {
    let (pool, node) = text::of(command);
    let at = text::time(entry.at);
    match format {
        Format::Text => writeln!(
            out,
            "{at}  {:<12} {:<12} {mark}{}",
            pool.unwrap_or("-"),
            node.unwrap_or("-"),
            text::what(command)
        ),
        Format::Json => {
            let line = json!({
                "n": entry.n,
                "at": at,
                "pool": pool,
                "node": node,
                "then": !mark.is_empty(),
                "text": text::what(command),
                "command": command,
            });
            writeln!(out, "{line}")
        }
    }
}
