//! What a cluster's daemon can be asked to do while it runs: one request a
//! connection, a line of JSON; lines of JSON come back until it is done.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::state::Role;
use crate::control_plane::Component;
use crate::progress;

const SOCKET: &str = "control";

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Make a host, switch it on and wait until its node is registered.
    AddNode(NodeSpec),
    /// Switch a host off and forget it and its node.
    RemoveNode {
        /// The node.
        name: String,
    },
    /// Switch a host on that went off.
    PowerOn {
        /// The node.
        name: String,
    },
    /// Pull the registry's cable out, or plug it in again.
    Registry {
        /// Plugged in.
        is_in: bool,
    },
    /// Let a port of the registry's address lead to the same port of this machine's loopback.
    Door {
        /// That.
        port: u16,
    },
    /// Do something to the control plane.
    ControlPlane {
        /// To which part of it.
        component: Component,
        /// What to do.
        action: Action,
    },
}

/// A node to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Further labels.
    pub labels: Vec<(String, String)>,
    /// The OS image that is on its disk, as it will be known to the host;
    /// without one it is the bed's own.
    pub image: Option<String>,
}

/// What can be done to a part of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// End it in good order.
    Stop,
    /// Kill it.
    Kill,
    /// Start it again.
    Start,
    /// Let it hang.
    Freeze,
    /// Let it go on.
    Thaw,
}

/// What comes back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Reply {
    Progress(String),
    Done,
    Failed(String),
}

/// Asks the daemon of the cluster in `dir` and shows its progress.
pub fn ask(dir: &Path, request: &Request) -> Result<()> {
    let (_held, path) = socket(dir)?;
    let mut stream = UnixStream::connect(path).context("the cluster's daemon does not answer")?;
    writeln!(stream, "{}", serde_json::to_string(request)?)?;
    for line in BufReader::new(stream).lines() {
        match serde_json::from_str(&line?)? {
            Reply::Progress(line) => progress::say(line),
            Reply::Done => return Ok(()),
            Reply::Failed(error) => bail!("{error}"),
        }
    }
    bail!("the cluster ended meanwhile")
}

pub(super) fn listen(dir: &Path) -> Result<UnixListener> {
    let (_held, path) = socket(dir)?;
    let listener = UnixListener::bind(path).context("cannot listen for requests")?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A socket's path may have 107 bytes, and our directories may be deep: so it
/// is named by way of the open directory.
fn socket(dir: &Path) -> Result<(File, PathBuf)> {
    let held = File::open(dir).with_context(|| format!("cannot open {}", dir.display()))?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", held.as_raw_fd());
    Ok((held, path.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_directory_has_a_socket_all_the_same() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let listener = listen(&deep).unwrap();
        listener.set_nonblocking(false).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = String::new();
            BufReader::new(stream.try_clone().unwrap())
                .read_line(&mut asked)
                .unwrap();
            writeln!(
                stream,
                "{}",
                serde_json::to_string(&Reply::Failed(asked)).unwrap()
            )
            .unwrap();
        });
        let error = ask(&deep, &Request::PowerOn { name: "n1".into() }).unwrap_err();
        assert!(error.to_string().contains("n1"), "{error}");
        server.join().unwrap();
    }
}
