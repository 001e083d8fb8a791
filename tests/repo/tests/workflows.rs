//! What CI runs, judged here: workflows by actionlint, manifests by kube-score, scripts by bash, and
//! the scripts of a release that need no network by running them.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    env, fs,
    path::PathBuf,
    process::{Command, Output},
};

use bed::{
    parts::{self, Part},
    paths,
};
use regex::Regex;

/// What kube-score asks for and the manifests leave out on purpose.
const IGNORED: [(&str, &str); 6] = [
    (
        "container-image-pull-policy",
        "images are named by digest or version: IfNotPresent is enough",
    ),
    (
        "container-ephemeral-storage-request-and-limit",
        "both root file systems are read-only",
    ),
    (
        "container-resources",
        "a CPU limit would cost the Lease; requests and memory limits are compared below",
    ),
    (
        "container-security-context-user-group-id",
        "the agent is root, and the operator's user is the image's",
    ),
    (
        "container-security-context-privileged",
        "the agent enters its host",
    ),
    (
        "pod-networkpolicy",
        "egress is open: ports of API servers and registries differ",
    ),
];

fn output(command: &mut Command) -> Output {
    command
        .current_dir(paths::project())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn passes(command: &mut Command) -> String {
    let output = output(command);
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{command:?}\n{said}{errors}");
    said
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(paths::project().join(folder)).unwrap();
    let all = all.map(|entry| entry.unwrap().path());
    let all: Vec<_> = all
        .filter(|path| path.extension().is_some_and(|it| it == extension))
        .collect();
    assert!(!all.is_empty(), "{folder} has no .{extension}");
    all
}

#[test]
fn workflows_are_sound() {
    let bin = parts::ensure(&[Part::Lint]).unwrap();
    passes(Command::new(bin.join("lint/actionlint")).arg("-color=false"));
}

#[test]
fn actions_are_pinned_to_commits_and_tokens_say_what_they_may() {
    let uses = Regex::new(r"uses: +(\S+)(.*)").unwrap();
    let pinned = Regex::new(r"^[\w.-]+/[\w./-]+@[0-9a-f]{40}$").unwrap();
    let mut seen = 0;
    for path in files(".github/workflows", "yaml") {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("\npermissions:"), "{}", path.display());
        for line in uses.captures_iter(&text) {
            seen += 1;
            let (action, comment) = (&line[1], &line[2]);
            assert!(pinned.is_match(action), "{}: {action}", path.display());
            assert!(comment.starts_with(" # v"), "{action} names no version");
        }
    }
    assert!(seen > 5, "only {seen} actions were found");
}

#[test]
fn manifests_are_sound() {
    let bin = parts::ensure(&[Part::Lint]).unwrap();
    let mut command = Command::new(bin.join("lint/kube-score"));
    command.args(["score", "deploy/install.yaml", "--output-format", "ci"]);
    for (check, _) in IGNORED {
        command.args(["--ignore-test", check]);
    }
    passes(&mut command);
}

#[test]
fn scripts_parse() {
    let mut scripts = files(".github/scripts", "sh");
    scripts.push(".ci/run".into());
    for script in scripts {
        passes(Command::new("bash").arg("-n").arg(&script));
        let text = fs::read_to_string(paths::project().join(&script)).unwrap();
        assert!(text.contains("set -euo pipefail"), "{}", script.display());
    }
}

#[test]
fn a_release_names_images_by_digest() {
    let bin = parts::ensure(&[Part::Kubernetes]).unwrap();
    let path = format!("{}:{}", bin.display(), env::var("PATH").unwrap());
    let digest = |n: char| format!("sha256:{}", n.to_string().repeat(64));
    let images = tempfile::NamedTempFile::new().unwrap();
    let lines = [("bootc-operator", 'a'), ("bootc-nodeagent", 'b')].map(|(program, n)| {
        format!(
            "{program} registry.example.com:5000/fleet/{program}:1.2.3@{}\n",
            digest(n)
        )
    });
    fs::write(images.path(), lines.concat()).unwrap();
    let rendered = passes(
        Command::new(".github/scripts/render-install.sh")
            .arg(images.path())
            .env("PATH", path),
    );
    for (program, n) in [("bootc-operator", 'a'), ("bootc-nodeagent", 'b')] {
        let image = format!(
            "image: registry.example.com:5000/fleet/{program}@{}\n",
            digest(n)
        );
        assert!(rendered.contains(&image), "no {image}");
    }
    let committed = fs::read_to_string(paths::project().join("deploy/install.yaml")).unwrap();
    let without_images = |text: &str| {
        let lines = text.lines().filter(|line| !line.contains("image: "));
        lines.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(without_images(&rendered), without_images(&committed));
}

#[test]
fn every_container_has_its_memory_said() {
    let text = fs::read_to_string(paths::project().join("deploy/install.yaml")).unwrap();
    let containers = text.matches("imagePullPolicy:").count();
    for part in ["requests:", "limits:"] {
        assert_eq!(text.matches(part).count(), containers, "{part}");
    }
}
