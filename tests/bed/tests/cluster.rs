//! A cluster from the command line: three Ready nodes with a pod of ours on
//! each, and nothing left of it in the end.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bed::image::{self, Registry};
use bed::{owner, paths, registry};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;

/// Far above what anything here takes: only a hang lasts this long.
const PATIENCE: Duration = Duration::from_secs(180);

/// A `bink` that works on one cluster, in a folder of its own.
struct Bink {
    cluster: String,
    owner: u32,
    dir: tempfile::TempDir,
}

impl Bink {
    fn new(cluster: &str) -> Self {
        let cluster = format!("{cluster}-{}", std::process::id());
        Self {
            cluster,
            owner: std::process::id(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bink"));
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
            .args(["--cluster-name", &self.cluster])
            .args(arguments);
        command.env(owner::VARIABLE, self.owner.to_string());
        command
    }

    /// Runs it to its end, and until nobody has its standard output or error
    /// open any more: a daemon that it leaves behind has neither.
    fn output(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().unwrap();
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// The standard output of a command that succeeds.
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(
            output.status.success(),
            "bink {arguments:?}: {}",
            output.status
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn state_dir(&self) -> PathBuf {
        paths::run()
            .unwrap()
            .join(format!("cluster-{}", self.cluster))
    }
}

impl Drop for Bink {
    fn drop(&mut self) {
        let _stopped = self
            .command(&["cluster", "stop", "--force", "--remove-data"])
            .status();
    }
}

async fn client(kubeconfig: &Path) -> Client {
    let _chosen_before = rustls::crypto::ring::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    Client::try_from(
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap(),
    )
    .unwrap()
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

/// A pod on each node that pulls from the registry.
fn daemon_set(image: &str) -> DaemonSet {
    serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [{"name": "web", "image": image, "ports": [{"containerPort": 8080}]}],
                },
            },
        },
    }))
    .unwrap()
}

/// Processes of this machine whose command line names the directory.
fn processes(of: &Path) -> Vec<String> {
    let own = std::process::id().to_string();
    let commands = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|process| {
            let command = fs::read_to_string(process.path().join("cmdline"))
                .ok()?
                .replace('\0', " ");
            let is_ours = process.file_name() != own.as_str() && command.contains(of.to_str()?);
            is_ours.then_some(command)
        });
    commands.collect()
}

/// Devices of the machine's own network, and its named network namespaces.
fn network() -> BTreeSet<String> {
    let names = |dir| {
        fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().display().to_string())
    };
    names("/sys/class/net").chain(names("/run/netns")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_run_our_pods_and_nothing_is_left() {
    let before = network();
    let bink = Bink::new("three");
    assert_eq!(bink.run(&["registry", "start"]), "");
    let port = registry::find().unwrap().unwrap().port;
    let info = bink.run(&["registry", "info"]);
    assert!(
        info.starts_with("Registry:  running\n")
            && info.contains(&format!("\nHost port: {port}\n")),
        "{info}"
    );
    let web = image::web().unwrap();
    let digest = Registry::plain(&format!("127.0.0.1:{port}"))
        .push(&web, "test/web", "1")
        .await
        .unwrap();

    assert_eq!(bink.run(&["cluster", "start"]), "");
    assert_eq!(
        bink.output(&["cluster", "start"]).status.code(),
        Some(1),
        "it was started twice"
    );
    bink.run(&["node", "add", "node2", "--label", "bed/test=yes"]);
    bink.run(&["node", "add", "node3"]);
    let exposed = bink.run(&["api", "expose"]);
    let kubeconfig =
        Path::new(exposed.trim().strip_prefix("export KUBECONFIG=").unwrap()).to_path_buf();
    let client = client(&kubeconfig).await;

    let nodes = Api::<Node>::all(client.clone());
    eventually("three nodes are Ready", async || {
        let list = nodes.list(&ListParams::default()).await.unwrap();
        list.items.len() == 3 && list.iter().all(is_ready)
    })
    .await;
    let labels = |node: Node| node.metadata.labels.unwrap();
    assert!(
        labels(nodes.get("node1").await.unwrap())
            .contains_key("node-role.kubernetes.io/control-plane")
    );
    let second = labels(nodes.get("node2").await.unwrap());
    assert!(second.contains_key("node-role.kubernetes.io/worker"));
    assert_eq!(second["bed/test"], "yes");

    let sets = Api::<DaemonSet>::namespaced(client.clone(), "default");
    let image = format!("registry.cluster.local:5000/test/web@{digest}");
    sets.create(&PostParams::default(), &daemon_set(&image))
        .await
        .unwrap();
    eventually("a pod runs on each node", async || {
        let status = sets.get("web").await.unwrap().status.unwrap_or_default();
        status.number_ready == 3
    })
    .await;
    answers_by_pod_ip(&client).await;

    assert_eq!(
        bink.run(&[
            "node",
            "ssh",
            "node2",
            "--",
            "sudo cat /etc/hostname; exit 0"
        ]),
        "node2\n"
    );
    assert_eq!(
        bink.output(&["node", "ssh", "node2", "--", "exit 7"])
            .status
            .code(),
        Some(7)
    );
    a_door_leads_to_this_machine(&bink);
    bink.run(&["node", "remove", "node3", "--force"]);
    eventually("the removed node is gone", async || {
        nodes.get_opt("node3").await.unwrap().is_none()
    })
    .await;
    assert_eq!(
        bink.run(&["cluster", "list", "--name-only"])
            .lines()
            .filter(|line| *line == bink.cluster)
            .count(),
        1
    );

    let dir = bink.state_dir();
    let cgroups = fs::read_to_string(dir.join("hosts/node1/cgroups")).unwrap();
    assert!(!processes(&dir).is_empty());
    bink.run(&["cluster", "stop", "--force", "--remove-data"]);
    assert_eq!(processes(&dir), Vec::<String>::new());
    assert!(!dir.exists(), "{} is left", dir.display());
    assert!(
        !fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .contains(dir.to_str().unwrap()),
        "a mount is left"
    );
    for cgroup in cgroups.lines() {
        assert!(!Path::new(cgroup).exists(), "cgroup {cgroup} is left");
    }
    assert!(!kubeconfig.exists(), "the kubeconfig is left");
    assert_eq!(network(), before, "the machine's network has changed");
}

/// Each pod answers with its name, by way of the API server.
async fn answers_by_pod_ip(client: &Client) {
    let pods = Api::<Pod>::namespaced(client.clone(), "default")
        .list(&ListParams::default())
        .await
        .unwrap();
    assert_eq!(pods.items.len(), 3);
    for pod in pods {
        let name = pod.metadata.name.unwrap();
        let path = format!("/api/v1/namespaces/default/pods/{name}:8080/proxy/");
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        assert_eq!(
            client.request_text(request).await.unwrap(),
            format!("{name}\n")
        );
    }
}

/// What listens on this machine's loopback address is reached by hosts once it is asked for.
fn a_door_leads_to_this_machine(bink: &Bink) {
    let here = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = here.local_addr().unwrap().port().to_string();
    let answering = thread::spawn(move || here.accept().unwrap().0.write_all(b"hello").unwrap());
    let there = bink.run(&["bed", "door", &port]);
    let (address, same) = there.trim().split_once(':').unwrap();
    assert_eq!(same, port);
    let ask = format!("bash -c 'cat < /dev/tcp/{address}/{port}'");
    assert_eq!(bink.run(&["node", "ssh", "node2", "--", &ask]), "hello");
    answering.join().unwrap();
    let taken = bink.output(&["bed", "door", &port]);
    assert_eq!(taken.status.code(), Some(1), "it was made twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_takes_everything_with_it_and_the_next_command_cleans_up() {
    let bink = Bink::new("killed");
    bink.run(&["cluster", "start"]);
    let dir = bink.state_dir();
    let cgroups = fs::read_to_string(dir.join("hosts/node1/cgroups")).unwrap();
    let state: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.join("cluster.json")).unwrap()).unwrap();
    let daemon = i32::try_from(state["daemon"]["pid"].as_i64().unwrap()).unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(daemon),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();

    eventually("every process is gone", async || processes(&dir).is_empty()).await;
    // Any command clears what a crash left; one of another test may have been the next.
    bink.output(&["cluster", "stop", "--force", "--remove-data"]);
    assert!(!dir.exists(), "{} is left", dir.display());
    for cgroup in cgroups.lines() {
        assert!(!Path::new(cgroup).exists(), "cgroup {cgroup} is left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_ends_with_its_owner() {
    let mut owner = Command::new("sleep").arg("600").spawn().unwrap();
    let mut bink = Bink::new("owned");
    bink.owner = owner.id();
    bink.run(&["cluster", "start"]);
    let dir = bink.state_dir();
    assert!(dir.exists());
    owner.kill().unwrap();
    owner.wait().unwrap();
    eventually("the cluster is gone", async || !dir.exists()).await;
    assert_eq!(processes(&dir), Vec::<String>::new());
    bink.owner = std::process::id();
}
