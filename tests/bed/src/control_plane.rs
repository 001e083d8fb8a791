//! etcd and the Kubernetes control plane, without nodes.
//!
//! TLS is real, with a certificate authority of its own for each control plane;
//! RBAC, the Node authorizer and `NodeRestriction` are on; service account tokens
//! are issued. Each component can be stopped, frozen and started again, on the
//! same address.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use bed::control_plane::{Config, ControlPlane};
//!
//! let cluster = ControlPlane::start(Config::default()).await?;
//! let client = cluster.client().await?;
//! # Ok(()) }
//! ```

mod arguments;
pub mod audit;
mod kubeconfig;
mod pki;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::parts::{self, Part};
use crate::process::{Daemon, Program};
use crate::progress::Step;
use crate::run_dir::RunDir;

pub use audit::AuditEvent;
pub use kubeconfig::kubeconfig;
pub use pki::{Identity, Pki};

/// How long a component may take until it serves.
const READY: Duration = Duration::from_secs(60);
/// How long a component may take to end when it is asked to. An API server
/// would wait a minute for its clients to close their connections.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(50);
/// How often it is tried with other ports when somebody took one between its
/// choice and its use.
const PORT_TRIES: u32 = 3;

/// What a control plane is to be like.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Run kube-controller-manager: service accounts and their tokens, garbage
    /// collection, daemon sets, node health.
    pub controller_manager: bool,
    /// Run kube-scheduler.
    pub scheduler: bool,
    /// An audit policy in YAML; its events are read with [`ControlPlane::audit`].
    pub audit_policy: Option<String>,
    /// Further flags of etcd.
    pub etcd_flags: Vec<String>,
    /// Further flags of kube-apiserver.
    pub api_server_flags: Vec<String>,
    /// Further flags of kube-controller-manager.
    pub controller_manager_flags: Vec<String>,
    /// Where it serves; unset: free ports of the loopback address.
    pub addresses: Option<Addresses>,
}

/// Where a control plane serves.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// The address that the API server binds.
    pub bind: SocketAddrV4,
    /// What the API server tells others to reach it by.
    pub advertise: Ipv4Addr,
    /// The address in the kubeconfig.
    pub server: SocketAddrV4,
    /// etcd's two ports on the loopback address: for clients and for peers.
    pub etcd: (u16, u16),
}

impl Addresses {
    /// Ports of the loopback address that are free at the moment.
    fn free() -> Result<Self> {
        // Held together, so that they differ.
        let held = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let [api, client, peer] = held.each_ref().map(|listener| match listener {
            Ok(listener) => Ok(listener.local_addr()?.port()),
            Err(error) => bail!("no free port on the loopback address: {error}"),
        });
        let server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, api?);
        Ok(Self {
            bind: server,
            advertise: Ipv4Addr::LOCALHOST,
            server,
            etcd: (client?, peer?),
        })
    }
}

/// A part of the control plane that can be stopped and started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Component {
    /// etcd.
    Etcd,
    /// kube-apiserver.
    ApiServer,
    /// kube-controller-manager.
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
}

/// A control plane that runs. Dropped, it is killed and its state removed.
#[derive(Debug)]
pub struct ControlPlane {
    programs: BTreeMap<Component, Program>,
    running: Mutex<BTreeMap<Component, Daemon>>,
    addresses: Addresses,
    pki: Pki,
    // The last field: its directory goes when the processes are gone.
    dir: RunDir,
}

impl ControlPlane {
    /// Builds what is missing, starts the control plane in a directory of its
    /// own and waits until it is ready.
    pub async fn start(config: Config) -> Result<Self> {
        Self::start_in(config, || RunDir::fresh("control-plane")).await
    }

    /// The same in directories that the caller claims.
    pub async fn start_in(config: Config, claim: impl Fn() -> Result<RunDir>) -> Result<Self> {
        let bin = tokio::task::spawn_blocking(|| parts::ensure(&[Part::Kubernetes])).await??;
        let mut tries = if config.addresses.is_some() {
            1
        } else {
            PORT_TRIES
        };
        loop {
            tries -= 1;
            match Self::attempt(&config, &bin, claim()?).await {
                Err(error)
                    if tries > 0 && format!("{error:#}").contains("address already in use") => {}
                outcome => return outcome.context("the control plane did not start"),
            }
        }
    }

    async fn attempt(config: &Config, bin: &Path, dir: RunDir) -> Result<Self> {
        let addresses = match &config.addresses {
            Some(addresses) => addresses.clone(),
            None => Addresses::free()?,
        };
        let pki = Pki::create(&dir.path().join("pki"), &addresses)?;
        let admin = pki.client(&Identity::admin())?;
        let server = format!("https://{}", addresses.server);
        fs::write(
            dir.path().join("kubeconfig"),
            kubeconfig(&server, &pki, &admin),
        )?;
        let programs = arguments::programs(config, &addresses, bin, dir.path())?;
        let cluster = Self {
            programs,
            running: Mutex::default(),
            addresses,
            pki,
            dir,
        };
        for component in cluster.programs.keys() {
            cluster.launch(*component)?;
        }
        for component in cluster.programs.keys() {
            cluster.wait_ready(*component).await?;
        }
        Ok(cluster)
    }

    /// Its directory: kubeconfig, logs, certificates.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A kubeconfig file of an admin, with everything in it.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir().join("kubeconfig")
    }

    /// The URL of the API server.
    #[must_use]
    pub fn server(&self) -> String {
        format!("https://{}", self.addresses.server)
    }

    /// Its certificate authority.
    #[must_use]
    pub const fn pki(&self) -> &Pki {
        &self.pki
    }

    /// The text of a kubeconfig for anybody, with a client certificate.
    pub fn kubeconfig_for(&self, who: &Identity) -> Result<String> {
        Ok(kubeconfig(
            &self.server(),
            &self.pki,
            &self.pki.client(who)?,
        ))
    }

    /// The text of an admin's kubeconfig that names another address of the
    /// API server, one that is passed on to it.
    pub fn kubeconfig_at(&self, server: &str) -> Result<String> {
        Ok(kubeconfig(
            server,
            &self.pki,
            &self.pki.client(&Identity::admin())?,
        ))
    }

    /// A client for anybody.
    ///
    /// Unlike kube's default it repeats nothing by itself: a test wants to see
    /// each answer.
    pub async fn client_for(&self, who: &Identity) -> Result<kube::Client> {
        kubeconfig::client(&self.kubeconfig_for(who)?).await
    }

    /// A client of an admin.
    pub async fn client(&self) -> Result<kube::Client> {
        self.client_for(&Identity::admin()).await
    }

    /// What the API server has logged by the audit policy so far, in order.
    /// Empty when there is no policy.
    pub fn audit(&self) -> Result<Vec<AuditEvent>> {
        audit::read(&self.dir().join(audit::LOG))
    }

    /// Stops a component, politely, and waits until it is gone and its port
    /// free.
    pub async fn stop(&self, component: Component) -> Result<()> {
        let daemon = self.running().remove(&component);
        let Some(daemon) = daemon else {
            bail!("{component:?} does not run")
        };
        tokio::task::spawn_blocking(move || daemon.stop(PATIENCE)).await??;
        Ok(())
    }

    /// Kills a component as a crash would.
    pub fn kill(&self, component: Component) -> Result<()> {
        let daemon = self.running().remove(&component);
        let Some(daemon) = daemon else {
            bail!("{component:?} does not run")
        };
        drop(daemon);
        Ok(())
    }

    /// Freezes a component: its connections stay open and nothing answers.
    pub fn freeze(&self, component: Component) -> Result<()> {
        self.signal(component, Signal::SIGSTOP)
    }

    /// Lets a frozen component go on.
    pub fn thaw(&self, component: Component) -> Result<()> {
        self.signal(component, Signal::SIGCONT)
    }

    /// Starts a component that was stopped, on the same address, and waits
    /// until it serves.
    pub async fn start_again(&self, component: Component) -> Result<()> {
        self.launch(component)?;
        self.wait_ready(component).await
    }

    fn signal(&self, component: Component, signal: Signal) -> Result<()> {
        match self.running().get(&component) {
            Some(daemon) => daemon.signal(signal),
            None => bail!("{component:?} does not run"),
        }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<Component, Daemon>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn launch(&self, component: Component) -> Result<()> {
        let Some(program) = self.programs.get(&component) else {
            bail!("this control plane has no {component:?}")
        };
        let mut running = self.running();
        if running.contains_key(&component) {
            bail!("{component:?} runs already");
        }
        running.insert(component, program.start()?);
        Ok(())
    }

    async fn wait_ready(&self, component: Component) -> Result<()> {
        let deadline = Instant::now() + READY;
        let mut step = Step::quiet(format!("waiting for {component:?}"));
        while !self.is_ready(component).await? {
            self.check(component)?;
            if Instant::now() > deadline {
                let words = self
                    .running()
                    .get(&component)
                    .map(Daemon::last_words)
                    .unwrap_or_default();
                bail!("{component:?} is not ready after {READY:?}; the end of its log:\n{words}");
            }
            step.tick("");
            tokio::time::sleep(POLL).await;
        }
        step.done();
        Ok(())
    }

    async fn is_ready(&self, component: Component) -> Result<bool> {
        match component {
            // etcd answers to nobody but the API server, which answers for it.
            Component::Etcd | Component::Scheduler => Ok(true),
            Component::ApiServer => kubeconfig::is_ready(&self.client().await?).await,
            Component::ControllerManager => {
                kubeconfig::has_default_account(&self.client().await?).await
            }
        }
    }

    /// Fails when a component, or etcd for the API server, has ended.
    fn check(&self, component: Component) -> Result<()> {
        let mut running = self.running();
        for (name, daemon) in running.iter_mut() {
            if *name == component || *name == Component::Etcd {
                daemon.check()?;
            }
        }
        Ok(())
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // etcd last: without it the others would fill their logs.
        while let Some((_, daemon)) = self.running().pop_last() {
            drop(daemon);
        }
    }
}
