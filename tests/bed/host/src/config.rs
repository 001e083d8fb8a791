//! What a host is told about itself, and where its files lie on the machine.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::layer::Tree;

/// One host, as it is made. Kept in `host.json` of its directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostConfig {
    /// Hostname, and name of the Node.
    pub name: String,
    /// The base tree, see [`crate::base`].
    pub base: PathBuf,
    /// The cluster's layer, see [`crate::layer`].
    pub layer: PathBuf,
    /// How it is reached; without this it has a loopback device only.
    pub network: Option<Network>,
    /// What makes it a node; without this no kubelet runs.
    pub node: Option<Node>,
    /// Names that it knows beside its own, as in `/etc/hosts`.
    pub names: BTreeMap<String, IpAddr>,
}

/// A host's place in its cluster's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The network namespace of the cluster, such as `/proc/<pid>/ns/net`.
    pub namespace: PathBuf,
    /// The bridge in that namespace to which hosts are connected.
    pub bridge: String,
    /// The host's address, unique in the cluster.
    pub address: Ipv4Addr,
    /// Length of the network's prefix in bits.
    pub prefix: u8,
    /// Where everything else is reached, name resolution too.
    pub gateway: Ipv4Addr,
    /// Subnet of the host's pods, such as `10.244.1.0/24`.
    pub pods: String,
}

/// What makes a host a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The kubeconfig of the user `system:node:<name>`, with everything in it.
    pub kubeconfig: String,
    /// Labels that the kubelet puts on its Node.
    pub labels: BTreeMap<String, String>,
}

impl HostConfig {
    /// Writes what is this host's own: names, addresses, credentials. It is a
    /// layer below the OS image, so that no update loses it.
    pub(crate) fn write_layer(&self, root: &Path) -> Result<()> {
        let tree = Tree { root };
        tree.file("etc/hostname", &format!("{}\n", self.name))?;
        tree.file("etc/hosts", &self.hosts())?;
        if !root.join("etc/machine-id").exists() {
            tree.file(
                "etc/machine-id",
                &format!("{}\n", random_id(&fresh_uuid()?)),
            )?;
        }
        if let Some(network) = &self.network {
            tree.file(
                "etc/resolv.conf",
                &format!("nameserver {}\n", network.gateway),
            )?;
            tree.file(
                "etc/cni/net.d/10-pods.conflist",
                &pod_network(network).to_string(),
            )?;
        }
        if let (Some(network), Some(_)) = (&self.network, &self.node) {
            tree.file(
                "etc/kubernetes/kubelet.conf.d/10-host.conf",
                &kubelet_settings(network).to_string(),
            )?;
        }
        if let Some(node) = &self.node {
            tree.file("etc/kubernetes/kubelet.conf", &node.kubeconfig)?;
            tree.file(
                "etc/kubernetes/kubelet.env",
                &self.kubelet_environment(node),
            )?;
        }
        Ok(())
    }

    fn hosts(&self) -> String {
        let own = self
            .network
            .as_ref()
            .map(|network| IpAddr::V4(network.address));
        let own = own.iter().map(|address| (address, &self.name));
        let others = self.names.iter().map(|(name, address)| (address, name));
        let local = [
            "127.0.0.1 localhost\n".to_owned(),
            "::1 localhost\n".to_owned(),
        ];
        let lines = own
            .chain(others)
            .map(|(address, name)| format!("{address} {name}\n"));
        local.into_iter().chain(lines).collect()
    }

    fn kubelet_environment(&self, node: &Node) -> String {
        let labels: Vec<String> = node
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let address = self
            .network
            .as_ref()
            .map(|network| network.address.to_string());
        format!(
            "NODE_NAME={}\nNODE_IP={}\nNODE_LABELS={}\n",
            self.name,
            address.unwrap_or_default(),
            labels.join(",")
        )
    }
}

fn kubelet_settings(network: &Network) -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "clusterDNS": [network.gateway],
    })
}

fn pod_network(network: &Network) -> serde_json::Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": true,
            "ipMasq": false,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": network.pods}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": "/run/cni-ipam",
            },
        }],
    })
}

/// A random UUID from the kernel.
pub(crate) fn fresh_uuid() -> Result<String> {
    let uuid =
        fs::read_to_string("/proc/sys/kernel/random/uuid").context("the kernel gave no UUID")?;
    Ok(uuid.trim().to_owned())
}

/// A UUID as systemd writes it in `/etc/machine-id`.
fn random_id(uuid: &str) -> String {
    uuid.replace('-', "")
}

/// Where the files of one host lie.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub(crate) directory: PathBuf,
}

impl Paths {
    pub(crate) fn config(&self) -> PathBuf {
        self.directory.join("host.json")
    }
    /// The disk, `/sysroot` of the running host.
    pub(crate) fn disk(&self) -> PathBuf {
        self.directory.join("disk")
    }
    /// The host's own lower layer.
    pub(crate) fn layer(&self) -> PathBuf {
        self.directory.join("layer")
    }
    /// Where the root is put together; empty on the machine.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.join("root")
    }
    /// Locked by the supervisor for as long as the host is powered.
    pub(crate) fn lock(&self) -> PathBuf {
        self.directory.join("lock")
    }
    /// Process id of the host's PID 1.
    pub(crate) fn init(&self) -> PathBuf {
        self.directory.join("init.pid")
    }
    /// Exists when the host shall stay off once its PID 1 has ended.
    pub(crate) fn off(&self) -> PathBuf {
        self.directory.join("off")
    }
    /// Seconds from power on to PID 1.
    pub(crate) fn boot_delay(&self) -> PathBuf {
        self.directory.join("boot-delay")
    }
    /// One line for each beginning and end of a boot.
    pub(crate) fn boots(&self) -> PathBuf {
        self.directory.join("boots.jsonl")
    }
    /// The cgroups made for the host, one a line.
    pub(crate) fn cgroups(&self) -> PathBuf {
        self.directory.join("cgroups")
    }
    /// What the host wrote to its console.
    pub(crate) fn console(&self) -> PathBuf {
        self.directory.join("console.log")
    }

    pub(crate) fn load(&self) -> Result<HostConfig> {
        let path = self.config();
        let text = fs::read(&path)
            .with_context(|| format!("no host here: cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> HostConfig {
        HostConfig {
            name: "h1".to_owned(),
            base: PathBuf::from("/base"),
            layer: PathBuf::from("/layer"),
            network: Some(Network {
                namespace: PathBuf::from("/proc/1/ns/net"),
                bridge: "br0".to_owned(),
                address: Ipv4Addr::new(10, 88, 0, 11),
                prefix: 24,
                gateway: Ipv4Addr::new(10, 88, 0, 1),
                pods: "10.244.1.0/24".to_owned(),
            }),
            node: Some(Node {
                kubeconfig: "kind: Config".to_owned(),
                labels: BTreeMap::from([
                    ("a/b".to_owned(), "c".to_owned()),
                    ("d".to_owned(), String::new()),
                ]),
            }),
            names: BTreeMap::from([("registry".to_owned(), IpAddr::from([10, 88, 0, 2]))]),
        }
    }

    #[test]
    fn a_hosts_layer_says_who_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        config().write_layer(root).unwrap();
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
        assert_eq!(read("etc/hostname"), "h1\n");
        assert_eq!(
            read("etc/hosts"),
            "127.0.0.1 localhost\n::1 localhost\n10.88.0.11 h1\n10.88.0.2 registry\n"
        );
        assert_eq!(
            read("etc/kubernetes/kubelet.env"),
            "NODE_NAME=h1\nNODE_IP=10.88.0.11\nNODE_LABELS=a/b=c,d=\n"
        );
        assert_eq!(read("etc/kubernetes/kubelet.conf"), "kind: Config");
        assert!(
            read("etc/kubernetes/kubelet.conf.d/10-host.conf")
                .contains(r#""clusterDNS":["10.88.0.1"]"#)
        );
        assert!(read("etc/cni/net.d/10-pods.conflist").contains("10.244.1.0/24"));
    }

    #[test]
    fn a_machine_id_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        config().write_layer(directory.path()).unwrap();
        let id = || fs::read_to_string(directory.path().join("etc/machine-id")).unwrap();
        let first = id();
        assert_eq!(first.trim().len(), 32);
        config().write_layer(directory.path()).unwrap();
        assert_eq!(first, id());
    }

    #[test]
    fn a_config_survives_its_file() {
        let text = serde_json::to_string(&config()).unwrap();
        assert_eq!(serde_json::from_str::<HostConfig>(&text).unwrap(), config());
    }
}
