//! The daemon that holds a cluster, and its start from a command.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bed_host::ip::Ip;
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

use super::control::{self, Action, NodeSpec, Reply, Request};
use super::dns;
use super::forward::{self, Gate, Stay};
use super::hosts::{Common, Hosts};
use super::network;
use super::state::{State, check_name};
use crate::control_plane::{self, Addresses, ControlPlane};
use crate::detached::{self, Handshake};
use crate::image::{self, Registry};
use crate::parts::{self, Part};
use crate::run_dir::{Mark, RunDir};
use crate::{cargo, owner, paths, preflight, progress, registry, run_dir};

/// The hidden command that is the daemon; its argument is a [`Spec`].
pub const COMMAND: [&str; 2] = ["bed", "run-cluster"];
/// etcd's ports inside of a cluster, as everywhere.
const ETCD: (u16, u16) = (2379, 2380);
/// How often the daemon looks whether its owner lives.
const WATCH: Duration = Duration::from_millis(500);
/// The version of the OS image that hosts have unless another is said.
const FIRST_VERSION: &str = "1";

/// Notes what pods other than Kubernetes' own ask for; a watch also when it
/// begins, since the cluster may be gone before it ends.
const AUDIT: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  userGroups: [\"system:serviceaccounts:kube-system\"]
- level: Metadata
  userGroups: [\"system:serviceaccounts\"]
- level: None
";

/// A cluster to be started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// Its first node.
    pub node: NodeSpec,
    /// The API server's port on this machine; 0: any.
    pub api_port: u16,
    /// For whom it runs, see [`crate::owner`].
    pub owner: Option<Mark>,
    /// What was built and fetched before.
    built: Option<Built>,
}

/// What is built and fetched: a daemon could not, from a network of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Built {
    bin: PathBuf,
    base: PathBuf,
    bootc: PathBuf,
}

impl Spec {
    /// A cluster of one node, for the owner that the environment names.
    pub fn new(name: &str, node: NodeSpec, api_port: u16) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            node,
            api_port,
            owner: owner::from_environment()?,
            built: None,
        })
    }
}

/// Builds and fetches what is missing: minutes the first time, else nothing.
pub fn build() -> Result<Built> {
    Ok(Built {
        bin: parts::ensure(&Part::CLUSTER)?,
        base: bed_host::base::tree(&paths::bed()?)?,
        bootc: cargo::static_program("bed-bootc", "bootc")?,
    })
}

/// Builds what is missing and starts a cluster; its daemon outlives us.
pub fn start(mut spec: Spec) -> Result<State> {
    check_name(&spec.name)?;
    check_name(&spec.node.name)?;
    preflight::check()?;
    if State::find(&spec.name)?.is_some() {
        bail!("{} already exists", spec.node.name);
    }
    spec.built = Some(build()?);
    registry::start(Mark::of(std::process::id()))?;
    let mut arguments = COMMAND.map(str::to_owned).to_vec();
    arguments.push(serde_json::to_string(&spec)?);
    detached::launch(&arguments).with_context(|| format!("cluster {} did not start", spec.name))?;
    State::running(&spec.name)
}

/// The daemon itself: [`COMMAND`].
pub fn run(spec: &str) -> Result<()> {
    let mut handshake = Handshake::begin()?;
    let outcome = serde_json::from_str(spec)
        .context("no cluster to run")
        .and_then(|spec| hold(&spec, &mut handshake));
    outcome.or_else(|error| handshake.failed(&error))
}

/// Enters a network of its own and holds the cluster until somebody ends it.
fn hold(spec: &Spec, handshake: &mut Handshake) -> Result<()> {
    let built = spec
        .built
        .as_ref()
        .context("nothing is built for this cluster")?;
    let dir = RunDir::claim(&State::dir_name(&spec.name))?;
    handshake.log_to(&dir.path().join("daemon.log"))?;
    registry::start(Mark::of(std::process::id()))?;
    let api = bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, spec.api_port))?;
    // From here on this thread is in the cluster's network; `machine` stays.
    let machine = Stay::here(pass_to_machine)?;
    enter_network(built)?;
    let (registry_gate, gate) = watch::channel(true);
    let doors = [network::REGISTRY_PORT, network::PROTECTED_PORT];
    let [everybody, protected] = doors.map(|port| bind(SocketAddrV4::new(network::REGISTRY, port)));
    let (further, asked) = mpsc::unbounded_channel();
    machine.give(Doors {
        registry: [everybody?, protected?],
        gate,
        further: asked,
    })?;
    let ways = Ways {
        registry: registry_gate,
        further,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tokio::select! {
            ended = detached::termination() => ended,
            ended = owner_is_gone(spec.owner) => ended,
            ended = Cluster::serve(spec, built, &dir, api, ways, handshake) => ended,
        }
    })
}

fn control_plane_dir(cluster: &str) -> String {
    format!("{}.control-plane", State::dir_name(cluster))
}

/// Where the API server of a cluster logs requests of service accounts.
pub fn audit_log(cluster: &str) -> Result<PathBuf> {
    let dir = paths::run()?.join(control_plane_dir(cluster));
    Ok(dir.join(control_plane::audit::LOG))
}

fn bind(address: SocketAddrV4) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "port {} is taken: choose another (the API server's: --api-port)",
            address.port()
        ),
        _ => anyhow::Error::new(error).context(format!("cannot listen on {address}")),
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Where hosts and pods find what this machine has on its loopback address.
struct Doors {
    /// The registry's: for everybody, and the protected one.
    registry: [TcpListener; 2],
    gate: Gate,
    /// More, as they are asked for.
    further: mpsc::UnboundedReceiver<TcpListener>,
}

/// What a cluster can do about them.
struct Ways {
    /// Closed, the registry is out of reach for hosts and pods.
    registry: watch::Sender<bool>,
    further: mpsc::UnboundedSender<TcpListener>,
}

/// Passes connections of hosts and pods on to the two doors of the machine's
/// registry, wherever that is at the moment, and to what else was asked for.
async fn pass_to_machine(doors: Doors) {
    let [everybody, protected] = doors.registry;
    let port = |of: fn(&registry::Running) -> u16| {
        move || registry::find().ok().flatten().map(|running| of(&running))
    };
    tokio::join!(
        pass_to(everybody, doors.gate.clone(), port(|it| it.port)),
        pass_to(protected, doors.gate, port(|it| it.protected)),
        pass_further(doors.further),
    );
}

/// Each leads to the port that it has itself.
async fn pass_further(mut doors: mpsc::UnboundedReceiver<TcpListener>) {
    while let Some(door) = doors.recv().await {
        let port = door.local_addr().ok().map(|address| address.port());
        tokio::spawn(pass_to(door, forward::open(), move || port));
    }
}

async fn pass_to(listener: TcpListener, gate: Gate, port: impl Fn() -> Option<u16>) {
    let target = || Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port()?));
    match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => forward::forward(listener, target, gate).await,
        Err(error) => progress::say(format_args!("hosts cannot reach this machine: {error}")),
    }
}

fn enter_network(built: &Built) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)
        .context("cannot make a network namespace; this needs root")?;
    let ip = Ip::of(&built.base)?;
    for arguments in network::setup() {
        ip.run(None, &arguments)?;
    }
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot pass traffic on between hosts")
}

/// Ends when the owner has; never when there is none.
async fn owner_is_gone(owner: Option<Mark>) -> Result<()> {
    let Some(owner) = owner else {
        return std::future::pending().await;
    };
    while owner.lives() {
        tokio::time::sleep(WATCH).await;
    }
    Ok(())
}

/// All that a cluster is made of. Dropped from the top: hosts before their
/// API server.
struct Cluster {
    hosts: Hosts,
    control_plane: ControlPlane,
    ways: Ways,
}

impl Cluster {
    /// Starts everything, says that it is ready and serves requests.
    async fn serve(
        spec: &Spec,
        built: &Built,
        dir: &RunDir,
        api: TcpListener,
        ways: Ways,
        handshake: &mut Handshake,
    ) -> Result<()> {
        let port = api.local_addr()?.port();
        let api = tokio::net::TcpListener::from_std(api)?;
        let gateway = SocketAddrV4::new(network::GATEWAY, network::API_PORT);
        tokio::spawn(forward::forward(
            api,
            move || Some(gateway),
            forward::open(),
        ));
        tokio::spawn(dns::serve(dns::bind().await?));
        let mut cluster = Self::start(spec, built, dir, port, ways).await?;
        cluster
            .hosts
            .add(&spec.node, &cluster.control_plane)
            .await?;
        let requests = UnixListener::from_std(control::listen(dir.path())?)?;
        handshake.ready()?;
        loop {
            let (stream, _) = requests.accept().await?;
            // A command that ends before its answer takes nothing with it.
            let _answered = cluster.answer(stream).await;
        }
    }

    async fn start(
        spec: &Spec,
        built: &Built,
        dir: &RunDir,
        port: u16,
        ways: Ways,
    ) -> Result<Self> {
        let name = control_plane_dir(&spec.name);
        let config = control_plane::Config {
            audit_policy: Some(AUDIT.to_owned()),
            controller_manager: true,
            scheduler: true,
            addresses: Some(addresses()),
            ..control_plane::Config::default()
        };
        let step = progress::Step::new("starting the control plane");
        let images = tokio::spawn(push_images());
        let control_plane = ControlPlane::start_in(config, || RunDir::claim(&name)).await?;
        let from_outside = control_plane.kubeconfig_at(&format!("https://127.0.0.1:{port}"))?;
        fs::write(dir.path().join("kubeconfig"), from_outside)?;
        let (image, pause) = images.await??;
        step.done();
        let common = Common {
            dir: dir.path().to_path_buf(),
            base: built.base.clone(),
            bootc: built.bootc.clone(),
            bin: built.bin.clone(),
            image,
            pause,
        };
        let daemon = Mark::of(std::process::id()).context("cannot see our own process")?;
        let state = State {
            name: spec.name.clone(),
            api_port: port,
            daemon,
            nodes: std::collections::BTreeMap::new(),
        };
        state.save(dir.path())?;
        let hosts = Hosts::new(common, control_plane.client().await?, state)?;
        Ok(Self {
            hosts,
            control_plane,
            ways,
        })
    }

    /// Does what is asked and shows the progress to whoever asked.
    async fn answer(&mut self, stream: UnixStream) -> Result<()> {
        let (read, mut write) = stream.into_split();
        let mut request = String::new();
        BufReader::new(read).read_line(&mut request).await?;
        let (sender, mut said) = mpsc::unbounded_channel();
        let redirect = progress::redirect(move |line| {
            let _nobody_listens = sender.send(line);
        });
        let mut work = pin!(self.obey(&request));
        let outcome = loop {
            tokio::select! {
                biased;
                Some(line) = said.recv() => {
                    // Who does not listen any more gets its work done all the same.
                    let _nobody_listens = tell(&mut write, &Reply::Progress(line)).await;
                }
                outcome = &mut work => break outcome,
            }
        };
        drop(redirect);
        let reply = match outcome {
            Ok(()) => Reply::Done,
            Err(error) => Reply::Failed(format!("{error:#}")),
        };
        tell(&mut write, &reply).await
    }

    async fn obey(&mut self, line: &str) -> Result<()> {
        match serde_json::from_str(line).context("no request")? {
            Request::AddNode(spec) => self.hosts.add(&spec, &self.control_plane).await,
            Request::RemoveNode { name } => self.hosts.remove(&name).await,
            Request::PowerOn { name } => self.hosts.power_on(&name),
            Request::Registry { is_in } => {
                self.ways.registry.send_replace(is_in);
                Ok(())
            }
            Request::Door { port } => {
                let door = bind(SocketAddrV4::new(network::REGISTRY, port))?;
                let given = self.ways.further.send(door).ok();
                given.context("the thread in the machine's network has ended")
            }
            Request::ControlPlane { component, action } => match action {
                Action::Stop => self.control_plane.stop(component).await,
                Action::Kill => self.control_plane.kill(component),
                Action::Start => self.control_plane.start_again(component).await,
                Action::Freeze => self.control_plane.freeze(component),
                Action::Thaw => self.control_plane.thaw(component),
            },
        }
    }
}

async fn tell(to: &mut OwnedWriteHalf, reply: &Reply) -> Result<()> {
    let line = format!("{}\n", serde_json::to_string(reply)?);
    Ok(to.write_all(line.as_bytes()).await?)
}

fn addresses() -> Addresses {
    Addresses {
        bind: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, network::API_PORT),
        advertise: network::GATEWAY,
        server: network::api(),
        etcd: ETCD,
    }
}

/// Pushes the images that every cluster needs; answers the references of the
/// OS image and of the pause image.
async fn push_images() -> Result<(String, String)> {
    let registry =
        Registry::plain(&SocketAddrV4::new(network::REGISTRY, network::REGISTRY_PORT).to_string());
    registry.push(&image::pause()?, "bed/pause", "1").await?;
    let os = image::os(FIRST_VERSION, FIRST_VERSION)?;
    let digest = registry.push(&os, "bed/os", FIRST_VERSION).await?;
    let name = network::registry();
    Ok((
        format!("{name}/bed/os@{digest}"),
        format!("{name}/bed/pause:1"),
    ))
}

/// Ends a cluster and removes all that was of it. It is no error when there is
/// none.
pub fn stop(name: &str, deadline: Duration) -> Result<()> {
    if let Some(state) = State::find(name)? {
        state
            .daemon
            .ask_to_end(deadline)
            .with_context(|| format!("cluster {name} does not end"))?;
    }
    run_dir::clear()
}
