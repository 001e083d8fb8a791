//! The commands that bink has too.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use crate::cluster::control::{self, NodeSpec, Request};
use crate::cluster::state::{self, State};
use crate::cluster::supervisor::{self, Spec};
use crate::detached::SELF;
use crate::parts::{self, Part};
use crate::{owner, progress, registry};
use anyhow::{Context as _, Result};
use bed_host::Host;

use super::bed_commands;
use super::options::{Api, Cli, Cluster, Command, Node, Registry, Role, Start};

/// How long a cluster may take to end.
const END: Duration = Duration::from_secs(120);
/// How long a drain before a removal may take.
const DRAIN: &str = "60s";

pub(crate) fn run(cli: Cli) -> Result<ExitCode> {
    let cluster = cli.cluster_name.as_str();
    match cli.command {
        Command::Cluster(command) => run_cluster(cluster, command)?,
        Command::Node(Node::Ssh { name, command }) => return ssh(cluster, &name, &command),
        Command::Node(command) => run_node(cluster, command)?,
        Command::Api(Api::Expose { kubeconfig, .. }) => expose(cluster, &kubeconfig)?,
        Command::Registry(command) => run_registry(&command)?,
        Command::Version => println!("bink version {} (test bed)", env!("CARGO_PKG_VERSION")),
        Command::Bed(command) => bed_commands::run(cluster, command)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_cluster(cluster: &str, command: Cluster) -> Result<()> {
    match command {
        Cluster::Start(options) => start(cluster, options),
        Cluster::Stop { remove_data, .. } => stop(cluster, remove_data),
        Cluster::List { name_only } => list_clusters(name_only),
    }
}

fn start(cluster: &str, options: Start) -> Result<()> {
    let node = NodeSpec {
        name: options.node_name,
        role: state::Role::ControlPlane,
        labels: Vec::new(),
        image: options.machine.image(),
    };
    supervisor::start(Spec::new(cluster, node, options.api_port)?)?;
    match options.expose {
        Some(path) => expose(cluster, &path),
        None => Ok(()),
    }
}

fn stop(cluster: &str, remove_data: bool) -> Result<()> {
    supervisor::stop(cluster, END)?;
    if remove_data {
        let kubeconfig = kubeconfig_path(cluster, Path::new("./kubeconfig"));
        let _was_not_there = fs::remove_file(kubeconfig);
    }
    Ok(())
}

fn list_clusters(name_only: bool) -> Result<()> {
    let clusters = State::all()?;
    if clusters.is_empty() {
        println!("No clusters found");
    } else if name_only {
        for cluster in clusters {
            println!("{}", cluster.name);
        }
    } else {
        println!("Found {} cluster(s):\n", clusters.len());
        for cluster in clusters {
            println!(
                "  ✓ {} ({} node(s), running)",
                cluster.name,
                cluster.nodes.len()
            );
        }
    }
    Ok(())
}

fn run_node(cluster: &str, command: Node) -> Result<()> {
    match command {
        Node::Add {
            name,
            role,
            label,
            machine,
        } => {
            let role = match role {
                Role::Worker => state::Role::Worker,
                Role::ControlPlane => state::Role::ControlPlane,
            };
            let spec = NodeSpec {
                name,
                role,
                labels: label,
                image: machine.image(),
            };
            ask(cluster, &Request::AddNode(spec))
        }
        Node::Remove { name, force } => {
            if !force {
                drain(cluster, &name)?;
            }
            ask(cluster, &Request::RemoveNode { name })
        }
        Node::List { .. } => list_nodes(),
        Node::Ssh { name, command } => ssh(cluster, &name, &command).map(drop),
    }
}

/// Asks the daemon of a cluster that runs.
pub(crate) fn ask(cluster: &str, request: &Request) -> Result<()> {
    State::running(cluster)?;
    control::ask(&State::dir(cluster)?, request)
}

/// As kubectl does it. A failure is told and does not keep the node.
fn drain(cluster: &str, node: &str) -> Result<()> {
    State::running(cluster)?.node(node)?;
    let kubectl = parts::ensure(&[Part::Kubernetes])?.join("kubectl");
    let mut command = std::process::Command::new(kubectl);
    command
        .arg("--kubeconfig")
        .arg(State::dir(cluster)?.join("kubeconfig"));
    command.args([
        "drain",
        node,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--force",
        "--timeout",
        DRAIN,
    ]);
    let output = command
        .stdin(Stdio::null())
        .output()
        .context("cannot run kubectl")?;
    if !output.status.success() {
        progress::say(format_args!(
            "warning: drain of {node}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    Ok(())
}

fn list_nodes() -> Result<()> {
    let clusters = State::all()?;
    let count: usize = clusters.iter().map(|cluster| cluster.nodes.len()).sum();
    println!("Found {count} cluster node(s):");
    for cluster in &clusters {
        for (name, node) in &cluster.nodes {
            let created = humantime::format_rfc3339_seconds(node.created);
            println!(
                "  ✓ {}-{name} (status: running, created: {created})",
                cluster.name
            );
        }
    }
    Ok(())
}

/// Runs a command as bink's ssh does: its words joined, by a shell, without
/// standard input. The exit code is the command's; 255: no way in.
fn ssh(cluster: &str, node: &str, words: &[String]) -> Result<ExitCode> {
    let host = host(cluster, node)?;
    let joined = words.join(" ");
    let shell: &[&str] = if words.is_empty() {
        &["/bin/bash"]
    } else {
        &["/bin/sh", "-c", &joined]
    };
    let mut command = host.command(Path::new(SELF), shell);
    if !words.is_empty() {
        command.stdin(Stdio::null());
    }
    let status = command.status().context("cannot enter the host")?;
    let code = status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(u8::MAX);
    Ok(ExitCode::from(code))
}

/// The host of a node.
pub(crate) fn host(cluster: &str, node: &str) -> Result<Host> {
    State::running(cluster)?.node(node)?;
    Host::open(&State::host_dir(&State::dir(cluster)?, node))
}

fn expose(cluster: &str, path: &Path) -> Result<()> {
    State::running(cluster)?;
    let text = fs::read(State::dir(cluster)?.join("kubeconfig"))
        .context("the cluster has no kubeconfig")?;
    let path = std::path::absolute(kubeconfig_path(cluster, path))?;
    let mut options = fs::File::options();
    let file = options
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&path);
    let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
    std::io::Write::write_all(&mut file, &text)?;
    println!("export KUBECONFIG={}", path.display());
    Ok(())
}

/// bink's default name is never used as it is: each cluster has its own.
fn kubeconfig_path(cluster: &str, path: &Path) -> PathBuf {
    if path == Path::new("./kubeconfig") {
        PathBuf::from(format!("./kubeconfig-{cluster}"))
    } else {
        path.to_path_buf()
    }
}

fn run_registry(command: &Registry) -> Result<()> {
    match command {
        Registry::Start => registry::start(owner::from_environment()?).map(drop),
        Registry::Stop => registry::stop(),
        Registry::Info => {
            let running = registry::find()?;
            let port = running
                .as_ref()
                .map_or(registry::USUAL_PORT, |running| running.port);
            println!(
                "Registry:  {}",
                if running.is_some() {
                    "running"
                } else {
                    "stopped"
                }
            );
            println!("IP:        {}", crate::cluster::network::REGISTRY);
            println!("Host port: {port}");
            println!("Push:      localhost:{port}/IMAGE");
            println!("Pull:      {}/IMAGE", crate::cluster::network::registry());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_default_kubeconfig_gets_the_clusters_name() {
        assert_eq!(
            kubeconfig_path("c", Path::new("./kubeconfig")),
            Path::new("./kubeconfig-c")
        );
        assert_eq!(
            kubeconfig_path("c", Path::new("/tmp/x")),
            Path::new("/tmp/x")
        );
    }
}
