use std::{
    io::{self, BufReader, Write},
    sync::{Arc, Mutex, PoisonError, mpsc},
};

use fsm::{Config, PoolName, Rollout, time::Seconds};

use super::*;

/// A disk that holds `room` bytes, and nothing before `open` says so.
#[derive(Clone)]
struct Disk {
    written: Arc<Mutex<Vec<u8>>>,
    room: usize,
    open: Option<Arc<Mutex<mpsc::Receiver<()>>>>,
}

impl Disk {
    fn new(room: usize) -> Self {
        Self {
            written: Arc::default(),
            room,
            open: None,
        }
    }

    fn text(&self) -> Vec<u8> {
        self.written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(open) = self.open.take() {
            let _ = open.lock().unwrap_or_else(PoisonError::into_inner).recv();
        }
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.len() + bytes.len() > self.room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        written.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn start() -> Start {
    Start {
        format: FORMAT,
        version: "0".into(),
        at: Timestamp(0),
        config: Config {
            tag_interval: Seconds(7),
        },
    }
}

fn place(limit: u64) -> Place {
    Place {
        file: "journal".into(),
        limit,
    }
}

fn journal(disk: &Disk, limit: u64, room: usize) -> Journal {
    Journal::to(Box::new(disk.clone()), &place(limit), start(), room)
}

/// A pool comes and asks for its tag.
fn inputs() -> Vec<Input> {
    let pool = serde_json::from_value(serde_json::json!({
        "uid": "u", "generation": 1, "deleting": false, "finalizer": true, "retry": null,
        "status": null,
        "spec": { "image": { "Tag": { "reference": "r/os:1", "repository": "r/os" } },
            "invalid": null, "max_unavailable": { "Count": 1 }, "paused": false,
            "drain_timeout": null, "reboot_timeout": null, "max_concurrent_staging": null,
            "min_ready": 0, "soft_reboot": false, "secret": null },
    }));
    let p = || PoolName::from("p");
    vec![
        Input::Pool(p(), Some(pool.unwrap())),
        Input::Synced,
        Input::Resolved {
            pool: p(),
            reference: "r/os:1".into(),
            result: Err("no such tag".into()),
        },
    ]
}

fn play(mut journal: Journal) {
    let mut rollout = Rollout::new(start().config);
    for (at, input) in inputs().into_iter().enumerate() {
        let at = Timestamp(i64::try_from(at).unwrap());
        journal.input(at, &input);
        journal.commands(&rollout.handle(at, input));
    }
}

fn played() -> Vec<u8> {
    let disk = Disk::new(usize::MAX);
    play(journal(&disk, u64::MAX, QUEUE));
    disk.text()
}

fn folded(text: &[u8]) -> anyhow::Result<Summary> {
    fold(BufReader::new(text), |_| Ok(()))
}

#[test]
fn a_journal_gives_the_same_decisions_again() {
    let summary = folded(&played()).unwrap();
    assert_eq!((summary.inputs, summary.differing), (3, 0));
    assert!(summary.commands >= 3 && !summary.torn && summary.lost == 0);
}

#[test]
fn each_decision_is_a_line() {
    let mut out = Vec::new();
    replay(&played()[..], Format::Text, false, &mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    assert!(
        out.contains("1970-01-01T00:00:00.001Z  p            -            resolve r/os:1\n"),
        "{out}"
    );
    assert!(
        out.contains("pool #1: status UpToDate=TargetUnknown"),
        "{out}"
    );
    assert!(!out.contains("wake at"), "{out}");
    let mut out = Vec::new();
    replay(&played()[..], Format::Json, true, &mut out).unwrap();
    let lines = String::from_utf8(out).unwrap();
    let all: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(all.iter().any(|line| line["command"]["WakeAt"].is_number()));
    assert!(all.iter().all(|line| line["then"] == false));
}

#[test]
fn a_decision_that_was_another_one_then_is_told() {
    let text = String::from_utf8(played()).unwrap();
    let other = text.replace(
        "\"reference\":\"r/os:1\",\"secret\"",
        "\"reference\":\"r/os:2\",\"secret\"",
    );
    assert_ne!(text, other);
    let mut out = Vec::new();
    let summary = replay(other.as_bytes(), Format::Text, false, &mut out).unwrap();
    assert_eq!(summary.differing, 1);
    let out = String::from_utf8(out).unwrap();
    assert!(out.contains("! then: resolve r/os:2"), "{out}");
}

#[test]
fn a_decision_where_there_was_none_is_told() {
    let text = String::from_utf8(played()).unwrap();
    let without: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with("{\"commands\":{\"n\":2,"))
        .collect();
    assert_eq!(folded(without.join("\n").as_bytes()).unwrap().differing, 1);
}

#[test]
fn a_torn_last_line_is_tolerated_and_a_broken_one_within_is_not() {
    let whole = played();
    for cut in 1..whole.len() {
        let text = &whole[..whole.len() - cut];
        let Ok(summary) = folded(text) else {
            assert!(
                !text.contains(&b'\n'),
                "only a journal without a head is none"
            );
            continue;
        };
        assert_eq!(summary.differing, 0, "{cut}");
        // A line that lacks its end alone is whole.
        let whole_lines = text.ends_with(b"\n") || whole[text.len()] == b'\n';
        assert_eq!(summary.torn, !whole_lines, "{cut}");
    }
    let text = String::from_utf8(whole)
        .unwrap()
        .replacen("\"input\"", "\"inp", 1);
    let error = format!("{:#}", folded(text.as_bytes()).unwrap_err());
    assert!(
        error.contains("line 2 of the journal cannot be read"),
        "{error}"
    );
}

#[test]
fn what_is_no_journal_is_refused() {
    let error = folded(b"{\"level\":\"INFO\"}\n").unwrap_err().to_string();
    assert!(error.contains("line 1"), "{error}");
    assert!(folded(b"").is_err());
    let later = String::from_utf8(played())
        .unwrap()
        .replace("\"format\":1", "\"format\":2");
    let error = folded(later.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("replay it with operator 0"), "{error}");
}

#[test]
fn a_slow_disk_loses_lines_and_holds_up_nobody() {
    let (open, closed) = mpsc::channel();
    let mut disk = Disk::new(usize::MAX);
    disk.open = Some(Arc::new(Mutex::new(closed)));
    let mut journal = journal(&disk, u64::MAX, 4);
    for n in 0..100 {
        journal.input(Timestamp(n), &Input::Tick);
    }
    assert!(journal.lost >= 95, "{}", journal.lost);
    open.send(()).unwrap();
    drop(open);
    // The queue has room again once the thread was at it.
    while journal.lost > 0 {
        journal.input(Timestamp(100), &Input::Tick);
        std::thread::yield_now();
    }
    drop(journal);
    let summary = folded(&disk.text()).unwrap();
    assert!(summary.lost >= 95, "{summary:?}");
    assert_eq!(summary.differing, 0);
}

#[test]
fn a_full_disk_ends_the_journal_alone() {
    let disk = Disk::new(400);
    let mut journal = journal(&disk, u64::MAX, QUEUE);
    while journal.writing.is_some() {
        journal.input(Timestamp(1), &Input::Synced);
        std::thread::yield_now();
    }
    journal.input(Timestamp(2), &Input::Tick);
    drop(journal);
    assert!(folded(&disk.text()).is_ok());
}

#[test]
fn a_journal_ends_at_its_bound_and_says_so() {
    let disk = Disk::new(usize::MAX);
    let mut journal = journal(&disk, 2000, QUEUE);
    while journal.writing.is_some() {
        journal.input(Timestamp(1), &Input::Tick);
        std::thread::yield_now();
    }
    let text = disk.text();
    assert!((2000..2200).contains(&text.len()), "{}", text.len());
    assert!(folded(&text).unwrap().full);
}

#[test]
fn the_journal_before_is_kept_and_one_that_cannot_be_written_is_none() {
    let folder = std::env::temp_dir().join(format!("journal-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let place = Place {
        file: folder.join("journal"),
        limit: u64::MAX,
    };
    for _ in 0..2 {
        let journal = Journal::begin(Some(&place), Config::default(), Timestamp(0));
        assert!(journal.writing.is_some());
    }
    assert!(folder.join("journal.1").exists());
    let nowhere = Place {
        file: folder.join("absent/journal"),
        ..place
    };
    let mut journal = Journal::begin(Some(&nowhere), Config::default(), Timestamp(0));
    journal.input(Timestamp(0), &Input::Tick);
    assert!(journal.writing.is_none());
    std::fs::remove_dir_all(folder).unwrap();
}
