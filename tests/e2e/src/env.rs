//! One cluster for one test: made by [`Env::new`], gone when it is dropped,
//! also when the test panics.

use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use bed::run_dir::RunDir;
use crd::BootcNodePool;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use crate::bink::Bink;
use crate::images::{Image, Images};
use crate::wait::until;
use crate::{install, rights};

/// How long kubectl may take until it forwards a port.
const FORWARD: Duration = Duration::from_secs(30);

/// What a test wants of its cluster.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its name; unset: one that nobody else has.
    pub name: Option<String>,
    /// Hosts, the first one with the control-plane role.
    pub nodes: usize,
    /// Whether operator and agent are installed.
    pub install: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: None,
            nodes: 1,
            install: true,
        }
    }
}

/// A port of this machine that leads to a pod.
#[derive(Debug)]
pub struct Forward {
    /// It.
    pub port: u16,
    _child: Child,
    // kubectl says something about each connection, and ends when nobody can hear it.
    _lines: Lines<BufReader<ChildStdout>>,
}

/// A running cluster.
pub struct Env {
    /// As cluster admin.
    pub client: Client,
    /// Its kubeconfig, for people and for kubectl.
    pub kubeconfig: PathBuf,
    /// The command that made it.
    pub bink: Bink,
    /// What was pushed to its registry.
    pub images: Images,
    /// Names of its nodes.
    pub nodes: Vec<String>,
    // In this order: the cluster is ended from within its folder.
    stop: Stop,
    dir: RunDir,
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bink, nodes) = (&self.bink, &self.nodes);
        f.debug_struct("Env")
            .field("bink", bink)
            .field("nodes", nodes)
            .finish_non_exhaustive()
    }
}

/// Ends the cluster when it is dropped. It exists before the cluster does, so
/// that a start that failed half-way is cleaned up too.
#[derive(Debug)]
struct Stop {
    bink: Bink,
    /// What its API server was asked for is known.
    noted: AtomicBool,
}

impl Stop {
    fn new(bink: Bink) -> Self {
        Self {
            bink,
            noted: AtomicBool::new(false),
        }
    }

    /// What the cluster's API server was asked for until now, once; a cluster
    /// that never came up has nothing to say.
    fn note(&self) {
        if self.noted.swap(true, Ordering::Relaxed) {
            return;
        }
        let log = self.bink.audit_log();
        let noted = log.and_then(|log| log.as_deref().map_or(Ok(()), rights::note));
        if let Err(error) = noted {
            eprintln!("nothing is known of what was asked for: {error:#}");
        }
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.note();
        match self.bink.stop().status() {
            Ok(status) if status.success() => {}
            outcome => eprintln!(
                "cluster {} may still be there: {outcome:?}",
                self.bink.cluster()
            ),
        }
    }
}

impl Env {
    /// Starts a cluster, waits for its nodes and installs the operator.
    pub async fn new(config: Config) -> Result<Self> {
        let name = config.name.unwrap_or_else(unique_name);
        let dir = RunDir::fresh("e2e")?;
        let bink = Bink::find(&name, dir.path())?;
        let images = Images::push(&bink.registry().await?, !bink.is_bed()).await?;

        let stop = Stop::new(bink.clone());
        let nodes: Vec<String> = (1..=config.nodes.max(1))
            .map(|i| format!("node{i}"))
            .collect();
        bink.start(&nodes[0]).await?;
        for node in &nodes[1..] {
            bink.add(node, &[]).await?;
        }
        let kubeconfig = bink.expose().await?;
        let client = client(&kubeconfig).await?;
        let env = Self {
            client,
            kubeconfig,
            bink,
            images,
            nodes,
            stop,
            dir,
        };
        env.all_ready().await?;
        if config.install {
            env.install(&env.images).await?;
        }
        Ok(env)
    }

    /// Installs operator and agent, or another version of them, and waits for
    /// the operator.
    pub async fn install(&self, images: &Images) -> Result<()> {
        self.install_with(images, &[]).await
    }

    /// The same with more `patches`, as kustomize has them.
    pub async fn install_with(&self, images: &Images, patches: &[Value]) -> Result<()> {
        let manifest = install::render(images, patches, self.dir.path()).await?;
        let apply = ["apply", "--server-side", "-f", "-"];
        self.kubectl(&apply, manifest.as_bytes()).await?;
        install::is_available(&self.client, &images.operator).await
    }

    /// Takes away what [`install`](Self::install) made. From here on programs
    /// that are on their way out may be refused.
    pub async fn uninstall(&self) -> Result<()> {
        self.stop.note();
        let manifest = install::render(&self.images, &[], self.dir.path()).await?;
        let delete = ["delete", "--timeout=100s", "-f", "-"];
        self.kubectl(&delete, manifest.as_bytes()).await.map(drop)
    }

    /// Lets a port of this machine lead to one of a pod behind a Service, as
    /// long as the answer lives.
    pub async fn forward(&self, service: &str, namespace: &str, port: u16) -> Result<Forward> {
        let mut child = install::command(Some(&self.kubeconfig))?
            .args(["port-forward", "--address=127.0.0.1", "-n", namespace])
            .args([format!("service/{service}"), format!(":{port}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot run kubectl")?;
        let stdout = child.stdout.take().context("kubectl says nothing")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = timeout(FORWARD, lines.next_line())
            .await
            .context("no port is forwarded")??;
        let line = line.context("kubectl port-forward has ended")?;
        let port = line
            .strip_prefix("Forwarding from 127.0.0.1:")
            .and_then(|rest| rest.split(' ').next())
            .with_context(|| format!("kubectl port-forward says {line}"))?;
        Ok(Forward {
            port: port.parse()?,
            _child: child,
            _lines: lines,
        })
    }

    /// Runs kubectl as a cluster admin with this on its standard input.
    pub async fn kubectl(&self, args: &[&str], input: &[u8]) -> Result<String> {
        install::kubectl(Some(&self.kubeconfig), args, input).await
    }

    /// The image that a host runs, as its bootc says.
    pub async fn booted(&self, node: &str) -> Result<Image> {
        let said = self
            .bink
            .ssh(node, "bootc status --json --format-version=1")
            .await?;
        let status: Value = serde_json::from_str(&said.stdout)
            .with_context(|| format!("bootc status on {node}: {} {}", said.stdout, said.stderr))?;
        let image = &status["status"]["booted"]["image"];
        let text = |value: &Value| {
            value
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("bootc status on {node}: {}", said.stdout))
        };
        let name = text(&image["image"]["image"])?;
        let name = name.split_once('@').map_or(name.as_str(), |(name, _)| name);
        let name = name
            .rsplit_once(':')
            .filter(|(_, tag)| !tag.contains('/'))
            .map_or(name, |(name, _)| name);
        Ok(Image {
            name: name.to_owned(),
            digest: text(&image["imageDigest"])?,
        })
    }

    /// Makes a pool of all nodes.
    pub async fn pool(&self, name: &str, image: &Image) -> Result<BootcNodePool> {
        let pool = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": {
                "nodeSelector": { "matchLabels": { "kubernetes.io/os": "linux" } },
                "image": { "ref": image.reference() },
            },
        }))?;
        let pools = Api::<BootcNodePool>::all(self.client.clone());
        Ok(pools.create(&PostParams::default(), &pool).await?)
    }

    /// Changes the image of a pool.
    pub async fn set_image(&self, pool: &BootcNodePool, image: &Image) -> Result<()> {
        let patch = json!({ "spec": { "image": { "ref": image.reference() } } });
        let pools = Api::<BootcNodePool>::all(self.client.clone());
        pools
            .patch(
                &pool.name_any(),
                &PatchParams::default(),
                &Patch::Merge(patch),
            )
            .await?;
        Ok(())
    }

    /// How often a host has booted since its disk was made, by its own journal.
    pub async fn boots(&self, node: &str) -> Result<usize> {
        let said = self
            .bink
            .ssh(node, "journalctl --list-boots --quiet --no-pager")
            .await?;
        ensure!(said.code == 0, "journalctl on {node}: {}", said.stderr);
        Ok(said.stdout.lines().count())
    }

    /// Waits until every node is Ready.
    async fn all_ready(&self) -> Result<()> {
        let nodes = Api::<Node>::all(self.client.clone());
        until(
            "all nodes are Ready",
            Duration::from_secs(300),
            async || {
                let list = nodes.list(&kube::api::ListParams::default()).await?;
                let ready = list.iter().filter(|node| is_ready(node)).count();
                Ok(if ready >= self.nodes.len() {
                    Ok(())
                } else {
                    Err(format!("{ready} of {}", self.nodes.len()))
                })
            },
        )
        .await
    }
}

/// Is the node's condition Ready=True?
#[must_use]
pub fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

async fn client(kubeconfig: &PathBuf) -> Result<Client> {
    let read = Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("cannot read {}", kubeconfig.display()))?;
    let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Short, and unlike that of any other run on this machine.
fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .subsec_nanos();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!(
        "e2e-{:x}-{:x}",
        std::process::id(),
        nanos.wrapping_add(count) & 0xffff
    )
}
