//! The hosts of a cluster: made, powered, known to the API server, removed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use bed_bootc::install::{Install, Source, install};
use bed_bootc::origin::ImageRef;
use bed_host::layer::{Kubernetes, Layer};
use bed_host::{Host, HostConfig, Network, Node, Power};
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::control::NodeSpec;
use super::network;
use super::state::{NodeState, State, check_name};
use crate::control_plane::{ControlPlane, Identity};
use crate::detached::SELF;
use crate::process::last_words;
use crate::progress::Step;

/// How long a host may take until its node is registered.
const REGISTERED: Duration = Duration::from_secs(180);
/// How long a dead cluster's host may take to be off.
const OFF: Duration = Duration::from_secs(30);
/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(100);
/// `sudo` of the hosts: whoever enters one is root already, but commands for
/// real hosts of bink, where the user is `core`, say it.
const SUDO: &str = "#!/bin/sh\nwhile [ \"${1#-}\" != \"$1\" ]; do shift; done\nexec \"$@\"\n";

/// What all hosts of a cluster share.
#[derive(Debug, Clone)]
pub(super) struct Common {
    /// The cluster's directory.
    pub(super) dir: PathBuf,
    /// The base tree.
    pub(super) base: PathBuf,
    /// The stand-in for bootc.
    pub(super) bootc: PathBuf,
    /// The Go parts.
    pub(super) bin: PathBuf,
    /// The image that a host has unless it is said.
    pub(super) image: String,
    /// The image that holds a pod's namespaces.
    pub(super) pause: String,
}

/// The hosts, and the power of those that are on. Dropped, all are off.
pub(super) struct Hosts {
    common: Common,
    client: Client,
    powered: BTreeMap<String, Power>,
    pub(super) state: State,
}

impl Hosts {
    pub(super) fn new(common: Common, client: Client, state: State) -> Result<Self> {
        let layer = Layer {
            bootc: Some(common.bootc.clone()),
            registries: vec![network::registry(), network::protected_registry()],
            kubernetes: Some(Kubernetes {
                bin: common.bin.clone(),
                pause: common.pause.clone(),
            }),
        };
        layer.write(&common.dir.join("layer"))?;
        let sudo = common.dir.join("layer/usr/bin/sudo");
        fs::write(&sudo, SUDO)?;
        fs::set_permissions(&sudo, fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            common,
            client,
            powered: BTreeMap::new(),
            state,
        })
    }

    /// Makes a host, switches it on and waits until its node is registered.
    pub(super) async fn add(
        &mut self,
        spec: &NodeSpec,
        control_plane: &ControlPlane,
    ) -> Result<()> {
        check_name(&spec.name)?;
        if self.state.nodes.contains_key(&spec.name) {
            bail!("{} already exists", spec.name);
        }
        let index = self.state.free_index()?;
        let config = self.config(spec, index, control_plane)?;
        let node = NodeState {
            index,
            address: network::host(index),
            role: spec.role,
            created: SystemTime::now(),
        };
        self.state.nodes.insert(spec.name.clone(), node);
        self.state.save(&self.common.dir)?;
        let added = self.boot(spec, config).await;
        if added.is_err() {
            self.forget(&spec.name).await?;
        }
        added.with_context(|| format!("cannot add {}", spec.name))
    }

    async fn boot(&mut self, spec: &NodeSpec, config: HostConfig) -> Result<()> {
        let what = self.install(spec);
        let dir = State::host_dir(&self.common.dir, &spec.name);
        let host = tokio::task::spawn_blocking(move || -> Result<Host> {
            let host = Host::create(&dir, &config)?;
            install(&host.disk(), &what).context("cannot install the OS image")?;
            Ok(host)
        });
        self.power(&spec.name, &host.await??)?;
        self.wait_registered(&spec.name).await?;
        self.label(spec).await
    }

    /// Switches a host on that went off.
    pub(super) fn power_on(&mut self, name: &str) -> Result<()> {
        self.state.node(name)?;
        let host = Host::open(&State::host_dir(&self.common.dir, name))?;
        if host.is_on()? {
            bail!("{name} is on already");
        }
        self.power(name, &host)
    }

    /// Switches a host off and forgets it and its node.
    pub(super) async fn remove(&mut self, name: &str) -> Result<()> {
        self.state.node(name)?;
        self.forget(name).await?;
        let nodes = Api::<NodeObject>::all(self.client.clone());
        match nodes.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            deleted => Ok(deleted.map(drop)?),
        }
    }

    async fn forget(&mut self, name: &str) -> Result<()> {
        let power = self.powered.remove(name);
        let dir = State::host_dir(&self.common.dir, name);
        tokio::task::spawn_blocking(move || {
            drop(power);
            clear(&dir)
        })
        .await??;
        self.state.nodes.remove(name);
        self.state.save(&self.common.dir)
    }

    fn power(&mut self, name: &str, host: &Host) -> Result<()> {
        self.powered
            .insert(name.to_owned(), host.power_on(Path::new(SELF))?);
        Ok(())
    }

    fn config(
        &self,
        spec: &NodeSpec,
        index: u8,
        control_plane: &ControlPlane,
    ) -> Result<HostConfig> {
        let network = Network {
            namespace: format!("/proc/{}/ns/net", std::process::id()).into(),
            bridge: network::BRIDGE.to_owned(),
            address: network::host(index),
            prefix: network::PREFIX,
            gateway: network::GATEWAY,
            pods: network::pods(index),
        };
        let node = Node {
            kubeconfig: control_plane.kubeconfig_for(&Identity::node(&spec.name))?,
            labels: BTreeMap::new(),
        };
        Ok(HostConfig {
            name: spec.name.clone(),
            base: self.common.base.clone(),
            layer: self.common.dir.join("layer"),
            network: Some(network),
            node: Some(node),
            names: BTreeMap::from([(network::REGISTRY_NAME.to_owned(), network::REGISTRY.into())]),
        })
    }

    fn install(&self, spec: &NodeSpec) -> Install {
        let image = spec.image.as_ref().unwrap_or(&self.common.image);
        let endpoint = format!("http://{}:{}", network::REGISTRY, network::REGISTRY_PORT);
        Install {
            image: ImageRef::registry(image),
            source: Source::Registry {
                endpoint: Some(endpoint),
            },
            base: self.common.base.clone(),
        }
    }

    async fn wait_registered(&mut self, name: &str) -> Result<()> {
        let nodes = Api::<NodeObject>::all(self.client.clone());
        let deadline = Instant::now() + REGISTERED;
        let mut step = Step::new(format!("booting {name}, until its node is registered"));
        loop {
            // The API server may be away for a moment: that is what tests do.
            if let Ok(Some(_)) = nodes.get_opt(name).await {
                step.done();
                return Ok(());
            }
            let power = self
                .powered
                .get_mut(name)
                .context("the host has no power")?;
            let is_off = power.ended()?.is_some();
            if is_off || Instant::now() > deadline {
                let dir = State::host_dir(&self.common.dir, name);
                let console = last_words(&Host::open(&dir)?.console_log());
                let what = if is_off {
                    "its host went off"
                } else {
                    "its kubelet did not register it"
                };
                bail!("{what}; the end of its console:\n{console}");
            }
            step.tick("");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Sets the labels that a kubelet may not set itself.
    async fn label(&self, spec: &NodeSpec) -> Result<()> {
        let mut labels: BTreeMap<&str, &str> = spec
            .labels
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        labels.insert(spec.role.label(), "");
        let nodes = Api::<NodeObject>::all(self.client.clone());
        let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
        nodes
            .patch(&spec.name, &PatchParams::default(), &patch)
            .await
            .context("cannot label the node")?;
        Ok(())
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let powered = std::mem::take(&mut self.powered);
        let off = powered
            .into_values()
            .map(|power| thread::spawn(move || drop(power)));
        for thread in off.collect::<Vec<_>>() {
            let _ended = thread.join();
        }
        if let Err(error) = clear_all(&self.common.dir) {
            crate::progress::say(format_args!("{error:#}"));
        }
    }
}

/// Removes every host below a cluster's directory; they are off, or will be in
/// a moment, as whoever held their power has ended.
pub(crate) fn clear_all(dir: &Path) -> Result<()> {
    let Ok(hosts) = fs::read_dir(dir.join("hosts")) else {
        return Ok(());
    };
    for host in hosts {
        clear(&host?.path())?;
    }
    Ok(())
}

/// Removes a host, or what is there of one that was never finished.
fn clear(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    match Host::open(dir) {
        Ok(host) => {
            host.wait_off(OFF)?;
            host.remove()
        }
        Err(_) => {
            fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))
        }
    }
}
