//! The command line. Flags about virtual machines are taken and mean nothing
//! here: hosts share the machine's memory.

use std::path::PathBuf;

use crate::cluster::control::Action;
use crate::control_plane::Component;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Kubernetes clusters of bootc hosts, in namespaces of this machine
#[derive(Debug, Parser)]
#[command(name = "bink", disable_version_flag = true)]
pub(crate) struct Cli {
    /// Name of the cluster
    #[arg(
        long,
        short = 'c',
        global = true,
        env = "BINK_CLUSTER_NAME",
        default_value = "podman"
    )]
    pub(crate) cluster_name: String,
    /// Taken for bink's sake
    #[arg(long, short = 'v', global = true)]
    pub(crate) verbose: bool,
    /// Taken for bink's sake
    #[arg(long, global = true)]
    pub(crate) debug: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start, stop and list clusters
    #[command(subcommand)]
    Cluster(Cluster),
    /// Add, remove, enter and list nodes
    #[command(subcommand)]
    Node(Node),
    /// Reach the API server
    #[command(subcommand)]
    Api(Api),
    /// The registry that all clusters share
    #[command(subcommand)]
    Registry(Registry),
    /// Print the version
    Version,
    /// What only the bed can do
    #[command(subcommand)]
    Bed(Bed),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Start a cluster of one node
    Start(Start),
    /// End a cluster
    Stop {
        /// Do not ask
        #[arg(long, short)]
        force: bool,
        /// Remove `./kubeconfig-<cluster>` too
        #[arg(long)]
        remove_data: bool,
    },
    /// List the clusters that run
    List {
        /// Print names only
        #[arg(long)]
        name_only: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Name of the first node
    #[arg(long, default_value = "node1")]
    pub(crate) node_name: String,
    /// Port of the API server on this machine; 0: any
    #[arg(long, default_value_t = 0)]
    pub(crate) api_port: u16,
    /// Write a kubeconfig there
    #[arg(long)]
    pub(crate) expose: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) machine: Machine,
}

/// What a host is made of.
#[derive(Debug, Args)]
pub(crate) struct Machine {
    /// OS image of the host, by its name in the cluster
    #[arg(long)]
    pub(crate) node_image: Option<String>,
    /// The same; it counts where both are given
    #[arg(long)]
    pub(crate) target_imgref: Option<String>,
    /// Taken for bink's sake
    #[arg(long)]
    pub(crate) memory: Option<u32>,
    /// Taken for bink's sake
    #[arg(long)]
    pub(crate) max_memory: Option<u32>,
    /// Taken for bink's sake
    #[arg(long)]
    pub(crate) host_network_populator: bool,
}

impl Machine {
    /// The image that is to be on the host's disk, unless it is the bed's own.
    pub(crate) fn image(self) -> Option<String> {
        self.target_imgref.or(self.node_image)
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Role {
    Worker,
    ControlPlane,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// Add a node
    Add {
        /// Its name
        name: String,
        /// Its role
        #[arg(long, short, value_enum, default_value = "worker")]
        role: Role,
        /// A label, as KEY=VALUE
        #[arg(long, short, value_parser = label)]
        label: Vec<(String, String)>,
        #[command(flatten)]
        machine: Machine,
    },
    /// Drain a node and remove it
    Remove {
        /// Its name
        name: String,
        /// Do not drain it
        #[arg(long, short)]
        force: bool,
    },
    /// Run a command on a node, or a shell
    Ssh {
        /// The node's name
        name: String,
        /// The command; its words are joined and given to a shell
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// List all nodes of all clusters
    List {
        /// Taken for bink's sake
        #[arg(long, short)]
        all: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Api {
    /// Write a kubeconfig for this machine
    Expose {
        /// Where to
        #[arg(long, short, default_value = "./kubeconfig")]
        kubeconfig: PathBuf,
        /// Taken for bink's sake
        #[arg(long, short)]
        node: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Registry {
    /// Start it, unless it runs
    Start,
    /// End it and remove its images
    Stop,
    /// Say where it is
    Info,
}

/// What only the bed can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Bed {
    /// Build and fetch everything that clusters need
    Build,
    /// Print the directory of a node's host on this machine
    Dir {
        /// The node
        node: String,
    },
    /// Print a host's boots, the oldest first, a line of JSON each
    Boots {
        /// The node
        node: String,
    },
    /// The power of a host
    #[command(subcommand)]
    Power(Power),
    /// The cables of a cluster
    #[command(subcommand)]
    Cable(Cable),
    /// Let a host take that long from power on to its system, at each boot
    BootDelay {
        /// The node
        node: String,
        /// Such as `15s`
        delay: humantime::Duration,
    },
    /// Print the name, in the cluster, of the registry's protected door to the
    /// same images, and who may pull through it: a user and a password
    RegistryAuth,
    /// Let hosts and pods reach a port of this machine's loopback address, as long as the cluster
    /// runs; prints where: `address:port`
    Door {
        /// The port, here and there
        port: u16,
    },
    /// Print where the API server logs what service accounts other than
    /// Kubernetes' own ask for: an audit event a line
    AuditLog,
    /// Stop, kill, start, freeze or thaw a part of the control plane
    ControlPlane {
        /// What to do
        #[arg(value_parser = parsed::<Action>)]
        action: Action,
        /// etcd, api-server, controller-manager or scheduler
        #[arg(value_parser = parsed::<Component>)]
        component: Component,
    },
    #[command(hide = true)]
    RunCluster { spec: String },
    #[command(hide = true)]
    RunRegistry,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cable {
    /// Pull one out: nothing goes through, not even what has begun
    Pull {
        /// The node; without one: the registry, which is away from this
        /// cluster alone
        node: Option<String>,
    },
    /// Plug it in again
    Plug {
        /// The node, or the registry
        node: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Power {
    /// Cut it and give it back at once
    Cut {
        /// The node
        node: String,
    },
    /// Cut it
    Off {
        /// The node
        node: String,
    },
    /// Give it back
    On {
        /// The node
        node: String,
    },
}

/// A value by the name that it has in JSON.
fn parsed<T: serde::de::DeserializeOwned>(name: &str) -> Result<T, String> {
    serde_json::from_value(name.into()).map_err(|error| error.to_string())
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn it_takes_what_bink_takes() {
        for line in [
            "bink version",
            "bink cluster start --node-name n --node-image i --api-port 0 --memory 1 --max-memory 2 --expose p --target-imgref r --host-network-populator",
            "bink --cluster-name c cluster stop --force --remove-data",
            "bink cluster list --name-only",
            "bink node add n -r control-plane --memory 768 -l a/b=c -l d= --cluster-name c",
            "bink node remove n -f",
            "bink node ssh n -- echo a b",
            "bink node list -a",
            "bink api expose -k x -n node1",
            "bink -c c registry info",
            "bink bed control-plane freeze api-server",
            "bink -c c bed cable pull n",
            "bink -c c bed cable plug",
            "bink -c c bed audit-log",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        assert!(Cli::try_parse_from(["bink", "node", "add", "n", "-l", "novalue"]).is_err());
    }
}
