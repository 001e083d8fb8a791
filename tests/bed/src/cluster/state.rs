//! What is known of a cluster from outside of its daemon.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::paths;
use crate::run_dir::Mark;

/// Before the names of the directories of clusters.
const PREFIX: &str = "cluster-";

/// A cluster, as its daemon last wrote it down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// Its name.
    pub name: String,
    /// Where its API server is on this machine's loopback address.
    pub api_port: u16,
    /// The daemon that holds it.
    pub daemon: Mark,
    /// Its nodes, by name.
    pub nodes: BTreeMap<String, NodeState>,
}

/// A node of a cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeState {
    /// What its host is called in the addresses, from 1.
    pub index: u8,
    /// Its address in the cluster's network.
    pub address: Ipv4Addr,
    /// Its role.
    pub role: Role,
    /// When it was made.
    pub created: SystemTime,
}

/// The role of a node, as its label says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The role of the first node. On the bed the control plane itself runs
    /// beside the hosts, so that any of them may reboot.
    ControlPlane,
    /// Any other node.
    Worker,
}

impl Role {
    /// The key of the label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::ControlPlane => "node-role.kubernetes.io/control-plane",
            Self::Worker => "node-role.kubernetes.io/worker",
        }
    }
}

impl State {
    /// The directory of the cluster of that name, whether it runs or not.
    pub fn dir(name: &str) -> Result<PathBuf> {
        Ok(paths::run()?.join(Self::dir_name(name)))
    }

    pub(super) fn dir_name(name: &str) -> String {
        format!("{PREFIX}{name}")
    }

    /// The directory of a node's host.
    #[must_use]
    pub fn host_dir(dir: &Path, node: &str) -> PathBuf {
        dir.join("hosts").join(node)
    }

    /// The cluster of that name, if it runs.
    pub fn find(name: &str) -> Result<Option<Self>> {
        Self::read(&Self::dir(name)?)
    }

    /// The same, for whoever needs it.
    pub fn running(name: &str) -> Result<Self> {
        Self::find(name)?.with_context(|| {
            format!("cluster {name} does not run: start it with `bink cluster start`")
        })
    }

    /// A node of it.
    pub fn node(&self, name: &str) -> Result<&NodeState> {
        let found = self.nodes.get(name);
        found.with_context(|| format!("cluster {} has no node {name}", self.name))
    }

    /// All clusters that run, by name.
    pub fn all() -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(paths::run()?)? {
            let dir = entry?.path();
            let is_cluster = dir
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
            if is_cluster {
                all.extend(Self::read(&dir)?);
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    fn read(dir: &Path) -> Result<Option<Self>> {
        let text = match fs::read(dir.join("cluster.json")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.context("cannot read a cluster's state")?,
        };
        let state: Self = serde_json::from_slice(&text).context("a cluster's state is damaged")?;
        Ok(Some(state).filter(|state| state.daemon.lives()))
    }

    /// Writes it down, for others to see all of it or nothing.
    pub(super) fn save(&self, dir: &Path) -> Result<()> {
        let draft = dir.join("cluster.json.new");
        fs::write(&draft, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&draft, dir.join("cluster.json")).context("cannot write a cluster's state")
    }

    /// The lowest index that no node has.
    pub(super) fn free_index(&self) -> Result<u8> {
        let taken = |index: &u8| self.nodes.values().any(|node| node.index == *index);
        match (1..=super::network::HOSTS).find(|index| !taken(index)) {
            Some(index) => Ok(index),
            None => bail!("a cluster has room for {} nodes", super::network::HOSTS),
        }
    }
}

/// Refuses what can be no name of a cluster or node.
pub fn check_name(name: &str) -> Result<()> {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edges = [name.chars().next(), name.chars().next_back()];
    if name.len() > 63
        || !name.chars().all(is_allowed)
        || edges.iter().any(|edge| edge.is_none_or(|c| c == '-'))
    {
        bail!(
            "`{name}` is no name: up to 63 lower-case letters, digits and dashes, no dash at the ends"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(index: u8) -> NodeState {
        NodeState {
            index,
            address: Ipv4Addr::LOCALHOST,
            role: Role::Worker,
            created: SystemTime::UNIX_EPOCH,
        }
    }

    fn state(indices: &[u8]) -> State {
        let nodes = indices
            .iter()
            .map(|index| (format!("n{index}"), node(*index)))
            .collect();
        State {
            name: "c".into(),
            api_port: 1,
            daemon: Mark {
                pid: std::process::id(),
                started: 0,
            },
            nodes,
        }
    }

    #[test]
    fn a_freed_index_is_used_again() {
        assert_eq!(state(&[]).free_index().unwrap(), 1);
        assert_eq!(state(&[1, 3]).free_index().unwrap(), 2);
        let full: Vec<u8> = (1..=super::super::network::HOSTS).collect();
        assert!(state(&full).free_index().is_err());
    }

    #[test]
    fn a_cluster_whose_daemon_is_dead_does_not_run() {
        let dir = tempfile::tempdir().unwrap();
        assert!(State::read(dir.path()).unwrap().is_none());
        let mut state = state(&[1]);
        state.save(dir.path()).unwrap();
        assert!(
            State::read(dir.path()).unwrap().is_none(),
            "our number, but not our start"
        );
        state.daemon = Mark::of(std::process::id()).unwrap();
        state.save(dir.path()).unwrap();
        assert_eq!(State::read(dir.path()).unwrap().unwrap().nodes.len(), 1);
    }

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "node1", "e2e-1f"] {
            check_name(good).unwrap();
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", &"a".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
