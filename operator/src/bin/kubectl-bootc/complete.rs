//! Completion: scripts for shells, and what kubectl asks of plugins.

use std::io::{self, Write as _};

use clap::CommandFactory as _;
use clap_complete::generate;

use crate::{
    Verdict,
    cli::{Cli, Connection, Shell},
    cluster::Cluster,
};

/// What kubectl runs for a plugin's completion, if it is on the PATH.
const HELPER: &str = "#!/bin/sh
# On the PATH as kubectl_complete-bootc it completes `kubectl bootc`.
exec kubectl-bootc __complete -- \"$@\"
";
/// Cobra's word for: these, and no files.
const NO_FILES: &str = ":4";

/// Prints a script.
pub(crate) fn script(shell: Shell) -> anyhow::Result<Verdict> {
    let mut script = Vec::new();
    let shell = match shell {
        Shell::Kubectl => None,
        Shell::Bash => Some(clap_complete::Shell::Bash),
        Shell::Zsh => Some(clap_complete::Shell::Zsh),
        Shell::Fish => Some(clap_complete::Shell::Fish),
    };
    match shell {
        Some(shell) => generate(shell, &mut Cli::command(), "kubectl-bootc", &mut script),
        None => script.extend(HELPER.as_bytes()),
    }
    io::stdout().write_all(&script)?;
    Ok(Verdict::Good)
}

/// Prints what may come next, as cobra's plugins do: words, then a directive. A cluster that does not
/// answer completes nothing, without a word.
pub(crate) async fn words(connection: &Connection, words: &[String]) -> anyhow::Result<Verdict> {
    let words: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .filter(|it| *it != "--")
        .collect();
    let (last, before) = words.split_last().unwrap_or((&"", &[]));
    let mut found = syntax(before);
    if !last.starts_with('-') {
        found.extend(names(connection, before).await);
    }
    let mut out = io::stdout().lock();
    for word in found.iter().filter(|word| word.starts_with(last)) {
        writeln!(out, "{word}")?;
    }
    writeln!(out, "{NO_FILES}")?;
    Ok(Verdict::Good)
}

/// Subcommands, or the flags of the one that is there.
fn syntax(before: &[&str]) -> Vec<String> {
    let command = Cli::command();
    let given = before
        .iter()
        .find_map(|word| command.find_subcommand(word).filter(|it| !it.is_hide_set()));
    let flags = |command: &clap::Command| {
        let long = command.get_arguments().filter_map(clap::Arg::get_long);
        long.map(|name| format!("--{name}")).collect::<Vec<_>>()
    };
    if let Some(given) = given {
        return [flags(given), flags(&command)].concat();
    }
    let all = command.get_subcommands().filter(|it| !it.is_hide_set());
    all.map(|it| it.get_name().to_owned()).collect()
}

/// Pools and nodes, where a command wants them.
async fn names(connection: &Connection, before: &[&str]) -> Vec<String> {
    let has = |name: &str| before.contains(&name);
    let pools = [
        "status",
        "why",
        "history",
        "timeline",
        "pause",
        "resume",
        "set-image",
    ];
    let (pools, nodes) = (
        pools.iter().any(|it| has(it)),
        ["why", "history", "retry"].iter().any(|it| has(it)),
    );
    if !pools && !nodes {
        return Vec::new();
    }
    let Ok(cluster) = Cluster::connect(connection).await else {
        return Vec::new();
    };
    let Ok(objects) = cluster.objects().await else {
        return Vec::new();
    };
    let mut found = Vec::new();
    if pools {
        found.extend(objects.pools.into_keys());
    }
    if nodes {
        found.extend(objects.bootc.into_keys());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_come_first_and_then_their_flags() {
        let first = syntax(&[]);
        assert!(first.contains(&"set-image".to_owned()));
        assert!(!first.iter().any(|word| word.starts_with("__")));
        let flags = syntax(&["status"]);
        assert!(flags.contains(&"--watch".to_owned()) && flags.contains(&"--context".to_owned()));
    }
}
