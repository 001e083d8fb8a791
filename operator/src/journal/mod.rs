//! The journal: every input of the rollout as a line of JSON, and what was decided on it.
//!
//! | line | says |
//! |---|---|
//! | `{"start":{…}}` | the first one: format, version, time and settings |
//! | `{"input":{"n":7,"at":…,"input":…}}` | what the rollout was told, before it is decided on |
//! | `{"commands":{"n":7,"commands":[…]}}` | what it decided on that; left out where that was nothing |
//! | `{"lost":{"lines":3}}` | here lines are missing: the disk was too slow |
//! | `{"full":{"bytes":…}}` | the last one: the file has reached its bound |
//!
//! Deciding never waits for a disk: lines go through a bounded queue to a thread of their own, what
//! does not fit is counted and said, and a disk that fails ends the journal and nothing else. No
//! secret is ever in it, since inputs have none: of a pull secret they name the hash.

mod replay;
mod text;

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    thread,
    time::Duration,
};

use fsm::{Command, Input, Timestamp};
use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use crate::words;
pub use replay::{Entry, Format, Summary, fold, replay};

/// The form of the lines; a reader of this form does not understand another one.
const FORMAT: u32 = 1;
/// Lines that wait for the disk. A first list of 5,000 nodes must fit.
const QUEUE: usize = 32_768;
/// How long the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(2);

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Line {
    /// The first.
    Start(Start),
    /// What the rollout was told.
    Input {
        /// Counts from 1.
        n: u64,
        /// The time of the decision.
        at: Timestamp,
        /// What it was told.
        input: Box<Input>,
    },
    /// What it decided.
    Commands {
        /// The input on which.
        n: u64,
        /// What.
        commands: Vec<Command>,
    },
    /// Lines are missing here.
    Lost {
        /// How many.
        lines: u64,
    },
    /// The file has reached its bound.
    Full {
        /// That.
        bytes: u64,
    },
}

/// The journal's head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Start {
    /// The form of the lines.
    pub format: u32,
    /// The operator's version.
    pub version: String,
    /// When it began.
    pub at: Timestamp,
    /// What the rollout was started with.
    pub config: fsm::Config,
}

/// Where the journal is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file; `-` is standard output.
    pub file: PathBuf,
    /// It ends when it is so long.
    pub limit: u64,
}

/// Writes the journal, or nothing.
#[derive(Debug, Default)]
pub struct Journal {
    writing: Option<Writing>,
    n: u64,
    lost: u64,
}

#[derive(Debug)]
struct Writing {
    queue: SyncSender<Line>,
    over: Receiver<()>,
}

impl Journal {
    /// Begins a journal. A file of that name is kept as `FILE.1`. One that cannot be written is
    /// said, and the rollout goes on without.
    #[must_use]
    pub fn begin(place: Option<&Place>, config: fsm::Config, now: Timestamp) -> Self {
        let Some(place) = place else {
            return Self::default();
        };
        let file = place.file.display();
        match open(&place.file) {
            Ok(out) => {
                info!(%file, "writing a journal");
                let start = Start {
                    format: FORMAT,
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    at: now,
                    config,
                };
                Self::to(out, place, start, QUEUE)
            }
            Err(error) => {
                error!(%file, %error, "the journal cannot be written; the rollout goes on without one (--journal wants a file in a directory that exists and is writable)");
                Self::default()
            }
        }
    }

    fn to(out: Box<dyn Write + Send>, place: &Place, start: Start, room: usize) -> Self {
        let (queue, lines) = sync_channel(room);
        let (end, over) = sync_channel(1);
        let place = place.clone();
        let write = move || {
            if let Err(error) = write(out, &start, &lines, place.limit) {
                let (file, error) = (place.file.display(), words::chain(&error));
                error!(%file, error, "the journal ends here, the rollout goes on; once there is room again, a restart of the operator begins a new one");
            }
            drop(end);
        };
        match thread::Builder::new().name("journal".into()).spawn(write) {
            Ok(_) => Self {
                writing: Some(Writing { queue, over }),
                ..Self::default()
            },
            Err(error) => {
                error!(%error, "no thread for the journal; the rollout goes on without one");
                Self::default()
            }
        }
    }

    /// Notes an input that is about to be decided on.
    pub fn input(&mut self, at: Timestamp, input: &Input) {
        if self.writing.is_none() {
            return;
        }
        self.n += 1;
        if self.lost > 0 {
            let lines = std::mem::take(&mut self.lost);
            self.push(Line::Lost { lines });
            // It did not fit either: the count is what it was.
            if self.lost > 0 {
                self.lost = lines;
            }
        }
        let (n, input) = (self.n, Box::new(input.clone()));
        self.push(Line::Input { n, at, input });
    }

    /// Notes what was decided on the newest input.
    pub fn commands(&mut self, commands: &[Command]) {
        if self.writing.is_none() || commands.is_empty() {
            return;
        }
        let (n, commands) = (self.n, commands.to_vec());
        self.push(Line::Commands { n, commands });
    }

    fn push(&mut self, line: Line) {
        let Some(writing) = &self.writing else {
            return;
        };
        match writing.queue.try_send(line) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.lost += 1,
            Err(TrySendError::Disconnected(_)) => self.writing = None,
        }
    }
}

/// The last lines are what one wants to read after an end; a disk that hangs must not hold it up.
impl Drop for Journal {
    fn drop(&mut self) {
        let Some(Writing { queue, over }) = self.writing.take() else {
            return;
        };
        if self.lost > 0 {
            let _ = queue.try_send(Line::Lost { lines: self.lost });
        }
        drop(queue);
        if over.recv_timeout(LAST_LINES) == Err(RecvTimeoutError::Timeout) {
            warn!("the disk is too slow: the end of the journal is missing");
        }
    }
}

fn open(file: &Path) -> io::Result<Box<dyn Write + Send>> {
    if file.as_os_str() == "-" {
        return Ok(Box::new(io::stdout()));
    }
    if file.try_exists()? {
        let mut old = file.as_os_str().to_owned();
        old.push(".1");
        std::fs::rename(file, old)?;
    }
    let mut options = OpenOptions::new();
    let out: File = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)?;
    Ok(Box::new(out))
}

fn write(
    out: Box<dyn Write + Send>,
    start: &Start,
    lines: &Receiver<Line>,
    limit: u64,
) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    let mut bytes = put(&mut out, &Line::Start(start.clone()))?;
    out.flush()?;
    while let Ok(line) = lines.recv() {
        bytes += put(&mut out, &line)?;
        // All that is here goes in one write.
        for line in lines.try_iter() {
            bytes += put(&mut out, &line)?;
            if bytes >= limit {
                break;
            }
        }
        if bytes >= limit {
            put(&mut out, &Line::Full { bytes })?;
            out.flush()?;
            warn!(
                bytes,
                "the journal is full and ends here (--journal-limit-mib); a restart of the operator begins a new one"
            );
            return Ok(());
        }
        out.flush()?;
    }
    Ok(())
}

fn put(out: &mut impl Write, line: &Line) -> io::Result<u64> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    out.write_all(&text)?;
    Ok(text.len() as u64)
}

#[cfg(test)]
mod tests;
