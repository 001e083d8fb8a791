//! How far a pull is: the lines that bootc writes for its `--progress-fd`, and the newest of them kept
//! where the agent can read it.
//!
//! The reader is a shell loop in the pull's own unit, at the other end of an anonymous pipe: it is
//! there as long as bootc is, whether an agent runs or not. (With a pipe that the agent reads, bootc
//! would stall while nobody does, and would be silent for the next agent.) It leaves the newest line in
//! a file of the unit's runtime folder, which systemd removes with the unit. Should the loop die, bootc
//! finds the pipe broken and goes on without.

use std::{fs::File, io::Read as _};

use fsm::host::Progress;
use serde::Deserialize;

use crate::host::Host;

/// The unit's folder below `/run`.
pub const RUNTIME_FOLDER: &str = "bootc-operator-stage";
/// The newest line, as the agent reaches it.
const NEWEST: &str = "run/bootc-operator-stage/progress";
/// A line names every layer that is under way; longer than this is none of bootc's.
const LONGEST_LINE: u64 = 64 << 10;

/// Around a command of bootc that writes to descriptor 3: its output goes where the unit's goes, and
/// its exit code is the script's.
const BEFORE: &str = "exec 4>&1; code=$( { {";
const AFTER: &str = r#"3>&1 1>&4 4>&- 5>&-; echo $? >&5; } | while IFS= read -r line; do printf '%s\n' "$line" > "$RUNTIME_DIRECTORY/progress"; done >&4 5>&-; } 5>&1 ); "#;

/// A piece of shell that runs `command`, keeps its progress, and ends with its exit code.
pub(super) fn kept(command: &str) -> String {
    format!(r#"{BEFORE} {command} {AFTER}(exit "$code")"#)
}

/// How far the pull is that runs in the unit; `None` if bootc did not say, or nothing of use.
#[must_use]
pub fn newest(host: &Host) -> Option<Progress> {
    let mut text = String::new();
    let file = File::open(host.path(NEWEST)).ok()?;
    file.take(LONGEST_LINE).read_to_string(&mut text).ok()?;
    parse(&text)
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Line {
    task: String,
    bytes: u64,
    bytes_total: u64,
    steps: u64,
    steps_total: u64,
}

fn parse(text: &str) -> Option<Progress> {
    let line: Line = serde_json::from_str(text).ok()?;
    match line.task.as_str() {
        "pulling" => Some(Progress::Pulling {
            bytes: line.bytes,
            of_bytes: line.bytes_total,
            layers: line.steps,
            of_layers: line.steps_total,
        }),
        "importing" => Some(Progress::Importing),
        "staging" => Some(Progress::Deploying),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What bootc 1.16.9 wrote while it pulled an image of three new layers.
    const LINES: &str = include_str!("../../tests/fixtures/progress.jsonl");

    #[test]
    fn real_lines_are_read() {
        let mut seen = Vec::new();
        for progress in LINES.lines().map(parse) {
            if seen.last() != Some(&progress) {
                seen.push(progress);
            }
        }
        let pulling = |layers: u64, bytes: u64| {
            Some(Progress::Pulling {
                bytes,
                of_bytes: 100_017_423,
                layers,
                of_layers: 3,
            })
        };
        let (first, last) = (pulling(0, 8193), pulling(3, 100_017_423));
        assert_eq!(seen.first(), Some(&None), "the line that only greets");
        assert_eq!(seen.get(1), Some(&first));
        let ends: Vec<_> = seen.iter().rev().take(3).rev().copied().collect();
        let importing = Some(Progress::Importing);
        assert_eq!(ends, [last, importing, Some(Progress::Deploying)]);
    }

    #[test]
    fn anything_else_is_no_progress() {
        for text in ["", "{", "{}", "[]", r#"{"task":"pulling","bytes":-1}"#] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
