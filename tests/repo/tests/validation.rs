//! The table of what is validated where is complete, and names tests that exist.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{collections::BTreeSet, fs};

use bed::paths;
use regex::Regex;
use walkdir::WalkDir;

/// The lines of the plan that a cluster or an API server validates.
const LINES: [&str; 15] = [
    "M1", "M2", "M3a", "M3b", "M3c", "M4a", "M4b", "M4c", "M4d", "M5a", "M5b", "M6", "upgrade",
    "removal", "takeover",
];

#[test]
fn every_line_of_the_plan_names_tests_that_exist() {
    let table = fs::read_to_string(paths::project().join("tests/e2e/README.md")).unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| "))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let lines: BTreeSet<&str> = rows.iter().map(|row| row[0]).collect();
    for line in LINES {
        assert!(lines.contains(line), "no row for {line}");
    }
    let tests = tests();
    let name = Regex::new("`([a-z_]+::[a-z_0-9]+)`").unwrap();
    let mut named = 0;
    for row in rows.iter().skip(1) {
        let mut names = name.captures_iter(row[2]).peekable();
        assert!(names.peek().is_some(), "{row:?} names no test");
        for found in names {
            named += 1;
            assert!(tests.contains(&found[1]), "there is no test {}", &found[1]);
        }
    }
    assert!(named >= LINES.len(), "{named} tests are named");
}

/// The names of all tests that bring their own main: literals in their sources.
fn tests() -> BTreeSet<String> {
    let literal = Regex::new(r#""([a-z_]+::[a-z_0-9]+)""#).unwrap();
    let mut all = BTreeSet::new();
    for folder in ["tests/e2e/tests", "tests/api/tests"] {
        for entry in WalkDir::new(paths::project().join(folder)) {
            let path = entry.unwrap().into_path();
            if path.extension().is_some_and(|it| it == "rs") {
                let text = fs::read_to_string(path).unwrap();
                all.extend(literal.captures_iter(&text).map(|it| it[1].to_owned()));
            }
        }
    }
    all
}
