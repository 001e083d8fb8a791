//! The record of a host's boots, kept outside of the host: what a test counts.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// How a boot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// reboot(2): the host boots again.
    Reboot,
    /// The host switched itself off and stays off.
    PowerOff,
    /// PID 1 was killed: a power cut.
    PowerCut,
    /// PID 1 ended by itself, or the host could not be booted at all.
    Failed,
}

/// One boot of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The boot id that the host shows, and `status.nodeInfo.bootID` of its Node.
    pub id: String,
    /// When the host was powered on or reset: before the boot delay.
    pub powered: SystemTime,
    /// When its PID 1 was started, unless it never was.
    pub started: Option<SystemTime>,
    /// How and when it ended; `None` while it runs, and when the supervisor
    /// was killed with it.
    pub ended: Option<(End, SystemTime)>,
}

/// One line of the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    boot: String,
    at: SystemTime,
    event: Event,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Event {
    Powered,
    Started,
    Ended(End),
}

/// Appends to a host's record.
#[derive(Debug)]
pub(crate) struct Record {
    file: File,
}

impl Record {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { file })
    }

    pub(crate) fn powered(&mut self, boot: &str) -> Result<()> {
        self.append(boot, Event::Powered)
    }

    pub(crate) fn started(&mut self, boot: &str) -> Result<()> {
        self.append(boot, Event::Started)
    }

    pub(crate) fn ended(&mut self, boot: &str, end: End) -> Result<()> {
        self.append(boot, Event::Ended(end))
    }

    /// One write a line, so that a reader never sees a part of it.
    fn append(&mut self, boot: &str, event: Event) -> Result<()> {
        let line = Line {
            boot: boot.to_owned(),
            at: SystemTime::now(),
            event,
        };
        let text = format!("{}\n", serde_json::to_string(&line)?);
        self.file
            .write_all(text.as_bytes())
            .context("cannot write the record of boots")
    }
}

/// All boots of a host, the oldest first.
pub(crate) fn read(path: &Path) -> Result<Vec<Boot>> {
    match fs::read_to_string(path) {
        Ok(text) => parse(&text),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn parse(text: &str) -> Result<Vec<Boot>> {
    let mut boots: Vec<Boot> = Vec::new();
    for line in text.lines() {
        let line: Line = serde_json::from_str(line).context("the record of boots is damaged")?;
        match (line.event, boots.last_mut()) {
            (Event::Powered, _) => boots.push(Boot {
                id: line.boot,
                powered: line.at,
                started: None,
                ended: None,
            }),
            (Event::Started, Some(boot)) => boot.started = Some(line.at),
            (Event::Ended(end), Some(boot)) => boot.ended = Some((end, line.at)),
            (_, None) => {}
        }
    }
    Ok(boots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("boots.jsonl");
        assert_eq!(read(&path).unwrap(), []);
        let mut record = Record::open(&path).unwrap();
        record.powered("a").unwrap();
        record.started("a").unwrap();
        record.ended("a", End::Reboot).unwrap();
        record.powered("b").unwrap();
        let boots = read(&path).unwrap();
        let [a, b] = boots.as_slice() else {
            panic!("two boots, not {boots:?}")
        };
        assert_eq!((a.id.as_str(), b.id.as_str()), ("a", "b"));
        assert!(a.started.is_some() && b.started.is_none());
        assert_eq!(a.ended.map(|(end, _)| end), Some(End::Reboot));
        assert_eq!(b.ended, None);
    }

    #[test]
    fn a_damaged_record_is_not_taken_for_an_empty_one() {
        assert!(parse("{").is_err());
    }
}
