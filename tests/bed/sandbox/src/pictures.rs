//! Pictures of the rollout, as `kubectl bootc` draws them: its status where there is most to see, and
//! its timeline.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use e2e::Programs;
use e2e::view::View;

/// Where they go, if they are wanted.
pub(crate) struct Pictures {
    folder: Option<PathBuf>,
    /// How much there was to see in the one that is kept.
    best: usize,
}

impl Pictures {
    /// None yet.
    pub(crate) fn new(folder: Option<&Path>) -> Result<Self> {
        if let Some(folder) = folder {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(Self {
            folder: folder.map(Path::to_path_buf),
            best: 0,
        })
    }

    /// Takes one of the status if there is more to see than there ever was.
    pub(crate) async fn of_status(&mut self, programs: &Programs, view: &View) -> Result<()> {
        let seen = interest(view);
        if seen > self.best {
            self.best = seen;
            self.take(programs, "status.svg", "status -o svg").await?;
        }
        Ok(())
    }

    /// Takes one of what has happened.
    pub(crate) async fn of_timeline(&self, programs: &Programs) -> Result<()> {
        self.take(programs, "timeline.svg", "timeline -o svg").await
    }

    async fn take(&self, programs: &Programs, name: &str, line: &str) -> Result<()> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        let said = programs.bootc(line).await?;
        ensure!(
            said.stdout.starts_with("<svg"),
            "kubectl bootc {line} drew nothing: {}",
            said.stderr
        );
        let file = folder.join(name);
        fs::write(&file, said.stdout + "\n")
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Nodes in different states, and what they wait for.
fn interest(view: &View) -> usize {
    let states: BTreeSet<&str> = view.nodes.iter().map(|node| node.state.as_str()).collect();
    let notes = view.nodes.iter().filter(|node| !node.note.is_empty());
    states.len() + notes.count()
}
