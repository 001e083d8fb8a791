//! What the pages say exists: links, commands, and words about every condition.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
    process::{Command, Stdio},
};

use bed::{
    cargo,
    parts::{self, Part},
    paths,
};
use regex::Regex;
use repo::{Page, pages};
use serde_json::Value;

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut parts: Vec<Component<'_>> = Vec::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(parts.pop()),
            Component::CurDir => {}
            part => parts.push(part),
        }
    }
    parts.iter().collect()
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages().unwrap();
    let mut broken = Vec::new();
    let mut checked = 0;
    for page in pages.values() {
        for link in &page.links {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            checked += 1;
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.path.clone(),
                file => plain(&page.path.parent().unwrap_or(Path::new("")).join(file)),
            };
            let exists = paths::project().join(&target).exists();
            let heading = |page: &Page| page.anchors.iter().any(|it| it == fragment);
            let is_heading = fragment.is_empty() || pages.get(&target).is_some_and(heading);
            if !exists || !is_heading {
                broken.push(format!("{}: {link}", page.path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(checked > 20, "only {checked} links were found");
}

/// All commands that begin with this word, with their page.
fn commands(program: &str) -> Vec<(PathBuf, Vec<String>)> {
    let mut all = Vec::new();
    for page in pages().unwrap().into_values() {
        for command in page.commands {
            // What is before a pipe, or after one.
            for part in command.split(" | ") {
                let words = words(part);
                let begin = words.iter().position(|word| word == program);
                let is_it = begin.is_some_and(|at| {
                    words[..at].iter().all(|word| {
                        word.contains('=') || ["xargs", "-n", "1"].contains(&word.as_str())
                    })
                });
                if let Some(begin) = begin.filter(|_| is_it) {
                    let mut words = words[begin + 1..].to_vec();
                    // What xargs would add.
                    let by_xargs = part.contains("xargs");
                    words.extend(by_xargs.then(|| "bnp/NAME".to_owned()));
                    all.push((page.path.clone(), words));
                }
            }
        }
    }
    all
}

/// Words as a shell takes them apart, with everything that it would fill in left as it is.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut depth) = (Vec::new(), String::new(), None, 0);
    for c in line.chars() {
        match (c, quote) {
            ('(', None) => depth += 1,
            (')', None) => depth -= 1,
            _ => {}
        }
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\'' | '"', None) => quote = Some(c),
            (' ', None) if depth == 0 => words.push(std::mem::take(&mut word)),
            (c, _) => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    // Where the output goes is the shell's.
    if let Some(end) = words.iter().position(|word| word == ">") {
        words.truncate(end);
    }
    words
}

/// The value of a flag, in either form.
fn flag<'a>(words: &'a [String], names: &[&str]) -> Option<&'a str> {
    let at = words
        .iter()
        .position(|word| names.contains(&word.as_str()))?;
    words.get(at + 1).map(String::as_str)
}

#[test]
fn every_cargo_command_names_what_exists() {
    let output = cargo::command()
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let commands = commands("cargo");
    assert!(commands.len() > 10, "only {} were found", commands.len());
    for (page, words) in commands {
        let shown = format!("{}: cargo {}", page.display(), words.join(" "));
        let ours = words.iter().take_while(|word| *word != "--");
        let ours: Vec<String> = ours.cloned().collect();
        let Some(name) = flag(&ours, &["-p", "--package"]) else {
            let known = ["test", "fmt", "clippy", "deny", "install"];
            assert!(known.contains(&ours[0].as_str()), "{shown}");
            continue;
        };
        let package = packages.iter().find(|it| it["name"] == name);
        let package = package.unwrap_or_else(|| panic!("{shown}: no package {name}"));
        for (names, kind) in [
            ("--example", "example"),
            ("--test", "test"),
            ("--bin", "bin"),
        ] {
            let Some(wanted) = flag(&ours, &[names]) else {
                continue;
            };
            let targets = package["targets"].as_array().unwrap();
            let is_it = |target: &Value| target["name"] == wanted && target["kind"][0] == kind;
            assert!(targets.iter().any(is_it), "{shown}: no {kind} {wanted}");
        }
    }
}

/// kubectl takes each command as far as to the API server, which is not there.
#[test]
fn every_kubectl_command_is_understood() {
    let bin = parts::ensure(&[Part::Kubernetes]).unwrap();
    let commands = commands("kubectl");
    assert!(commands.len() > 10, "only {} were found", commands.len());
    // A server that answers would be asked, so this one never does.
    let kubeconfig = tempfile::NamedTempFile::new().unwrap();
    let nobody = "{ apiVersion: v1, kind: Config, current-context: c, \
        contexts: [{ name: c, context: { cluster: c, user: u } }], users: [{ name: u, user: {} }], \
        clusters: [{ name: c, cluster: { server: 'http://127.0.0.1:1' } }] }";
    fs::write(kubeconfig.path(), nobody).unwrap();
    for (page, words) in commands {
        // The plugin is a program of its own.
        if words.first().is_some_and(|word| word == "bootc") {
            continue;
        }
        let shown = format!("{}: kubectl {}", page.display(), words.join(" "));
        let output = Command::new(bin.join("kubectl"))
            .args(&words)
            .current_dir(paths::project())
            .env("KUBECONFIG", kubeconfig.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let no_answer = ["was refused", "connection refused", "no such host"];
        let is_understood =
            output.status.success() || no_answer.iter().any(|words| said.contains(words));
        assert!(is_understood, "{shown}\n{said}");
    }
}

#[test]
fn every_script_that_is_named_exists() {
    let script = Regex::new(r"(?:\.github/scripts/[a-z0-9-]+\.sh|\.ci/run)").unwrap();
    let mut named = BTreeSet::new();
    for page in pages().unwrap().values() {
        named.extend(
            script
                .find_iter(&page.text)
                .map(|it| it.as_str().to_owned()),
        );
    }
    assert!(named.len() > 3, "{named:?}");
    for name in named {
        assert!(paths::project().join(&name).is_file(), "{name}");
    }
}

/// What the first group of a pattern finds in a file.
fn found(file: &str, pattern: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(paths::project().join(file)).unwrap();
    let pattern = Regex::new(pattern).unwrap();
    let all = pattern.captures_iter(&text);
    all.filter_map(|it| Some(it.get(1)?.as_str().to_owned()))
        .collect()
}

#[test]
fn every_condition_and_every_wait_has_its_words() {
    let names = fs::read_to_string(paths::project().join("crd/src/names.rs")).unwrap();
    let (_, reasons) = names.split_once("pub mod pool_reason").unwrap();
    let constant = Regex::new(r#"pub const \w+: &str = "(\w+)""#).unwrap();
    let mut all: BTreeSet<String> = constant
        .captures_iter(reasons)
        .map(|it| it[1].to_owned())
        .collect();
    assert!(all.len() > 15, "{all:?}");
    let waits = found("fsm/src/node/waiting.rs", r#"Self::\w+.* => "(\w+)","#);
    assert!(waits.len() > 10, "{waits:?}");
    let problems = found(
        "fsm/src/node/health.rs",
        r#"(?:found\(|label: |AgentFaultKind::\w+ => )"(\w+)""#,
    );
    assert!(problems.len() > 5, "{problems:?}");
    all.extend(waits);
    all.extend(problems);
    let page = fs::read_to_string(paths::project().join("deploy/docs/conditions.md")).unwrap();
    let missing: Vec<_> = all
        .iter()
        .filter(|reason| !page.contains(&format!("| `{reason}` |")))
        .collect();
    assert!(
        missing.is_empty(),
        "deploy/docs/conditions.md has no entry for {missing:?}"
    );
}
