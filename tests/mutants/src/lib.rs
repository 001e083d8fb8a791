//! Deliberate errors: each is a small replacement in one file that must make some test fail. One that
//! does not shows a test that is missing.

mod agent;
mod decisions;
mod doubt;
mod rules;
mod shell;

use std::path::{Path, PathBuf};

/// One deliberate error.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// How it is called on the command line.
    pub name: &'static str,
    /// The file, from the project's root.
    pub file: &'static str,
    /// What stands there, exactly once.
    pub old: &'static str,
    /// What stands there instead.
    pub new: &'static str,
    /// What goes wrong by it.
    pub why: &'static str,
    /// Arguments of `cargo test` that must fail.
    pub test: &'static str,
}

/// The tests of the decisions alone.
const FSM: &str = "-p fsm";
/// Whole rollouts, with every fault.
const SIMULATION: &str = "-p simulation";
/// The operator's own tests that need no cluster.
const OPERATOR: &str = "-p operator --lib";
/// The agent's own tests that need no host.
const AGENT: &str = "-p nodeagent --lib";

/// All of them.
#[must_use]
pub fn all() -> Vec<Mutant> {
    let lists = [
        decisions::MUTANTS,
        rules::MUTANTS,
        doubt::MUTANTS,
        agent::MUTANTS,
        shell::MUTANTS,
    ];
    lists.concat()
}

/// The project's root.
#[must_use]
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

impl Mutant {
    /// The file's text with the error in it.
    ///
    /// # Errors
    /// If what it replaces does not stand there exactly once: then the list is to be mended.
    pub fn applied(&self, text: &str) -> anyhow::Result<String> {
        let found = text.matches(self.old).count();
        anyhow::ensure!(
            found == 1,
            "{}: its old text stands {found} times in {}; mend the list in tests/mutants",
            self.name,
            self.file
        );
        anyhow::ensure!(self.old != self.new, "{}: changes nothing", self.name);
        Ok(text.replacen(self.old, self.new, 1))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_mutant_is_about_text_that_is_there() {
        for mutant in all() {
            let text = std::fs::read_to_string(project().join(mutant.file)).unwrap();
            mutant.applied(&text).unwrap();
        }
    }

    #[test]
    fn every_mutant_has_a_name_of_its_own() {
        let all = all();
        let names: BTreeSet<&str> = all.iter().map(|it| it.name).collect();
        assert_eq!(names.len(), all.len());
        assert!(all.len() >= 30, "{} mutants", all.len());
    }
}
