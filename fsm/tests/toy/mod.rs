//! A toy cluster that does what a [`Rollout`] asks for: objects in maps, agents, kubelets and drains
//! that take one step at a time, in an order drawn from a seed. It checks the guarantees after each
//! write and can kill the operator before or after any of them.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::struct_excessive_bools,
    reason = "each test uses its part"
)]

mod api;
pub mod host;
mod steps;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fsm::{
    Command, Config, Image, Input, NodeName, PoolName, Rollout, State, Timestamp,
    input::{BlockedPod, DrainReport, Outcome},
    view::{BootcNodeView, ImageRef, NodeView, PoolSpec, PoolView},
};

use host::Host;

/// Image number `n`.
pub fn image(n: u32) -> Image {
    Image::of("registry.test/os", &format!("sha256:{n:064}")).unwrap()
}

/// A drain under way.
#[derive(Clone, Debug)]
struct Draining {
    attempt: u32,
    blocked: bool,
}

/// When the operator is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    Before(usize),
    After(usize),
}

#[derive(Clone, Debug)]
pub struct Toy {
    pub now: Timestamp,
    pub nodes: BTreeMap<NodeName, NodeView>,
    pub bootc: BTreeMap<NodeName, BootcNodeView>,
    pub pools: BTreeMap<PoolName, PoolView>,
    pub hosts: BTreeMap<NodeName, Host>,
    pub rollout: Rollout,
    pub writes: usize,
    pub node_writes: BTreeMap<NodeName, usize>,
    pub status_writes: usize,
    pub waiting_writes: usize,
    pub creations: usize,
    pub crash: Option<Crash>,
    pub crashes: usize,
    /// Answers given to the next writes of a node instead of doing them.
    pub refuse: BTreeMap<NodeName, Outcome>,
    /// Tags and what they resolve to.
    pub tags: BTreeMap<String, Result<String, String>>,
    pub resolved: usize,
    /// Answers given to the next writes to a pool instead of doing them.
    pub pool_answers: VecDeque<Outcome>,
    /// All that the operator was told since it started, and what it made of it.
    pub journal: Vec<(Timestamp, Input, Vec<Command>)>,
    /// Agents name no boot and no generation.
    pub plain_agents: bool,
    /// Drains of these nodes do not end.
    pub blocked: BTreeSet<NodeName>,
    /// Milliseconds by which the clock of the Nodes' conditions is ahead of the operator's.
    pub nodes_ahead: i64,
    pub log: Vec<String>,
    pub commands: Vec<Command>,
    drains: BTreeMap<NodeName, Draining>,
    /// Nodes whose pods are gone since their cordon.
    drained: BTreeSet<NodeName>,
    /// Nodes that were let go: one that is on its way down already goes down uncordoned.
    let_go: BTreeSet<NodeName>,
    news: VecDeque<News>,
    /// Version of each object, and the one that the operator knows.
    versions: BTreeMap<News, (u64, u64)>,
    answers: VecDeque<Input>,
    wake: Option<Timestamp>,
    seed: u64,
    next_uid: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum News {
    Node(NodeName),
    Bootc(NodeName),
    Pool(PoolName),
}

pub fn pool_spec(image: Image) -> PoolSpec {
    PoolSpec::of(ImageRef::Pinned(image))
}

impl Toy {
    /// `nodes` hosts w1, w2, … that run image 1, all claimed by pool `p`, which wants image 1.
    pub fn new(nodes: u32, seed: u64) -> Self {
        let mut toy = Self {
            now: Timestamp(1_000_000_000_000),
            nodes: BTreeMap::new(),
            bootc: BTreeMap::new(),
            pools: BTreeMap::new(),
            hosts: BTreeMap::new(),
            rollout: Rollout::new(Config::default()),
            writes: 0,
            node_writes: BTreeMap::new(),
            status_writes: 0,
            waiting_writes: 0,
            creations: 0,
            crash: None,
            crashes: 0,
            refuse: BTreeMap::new(),
            tags: BTreeMap::new(),
            resolved: 0,
            pool_answers: VecDeque::new(),
            journal: Vec::new(),
            plain_agents: false,
            blocked: BTreeSet::new(),
            nodes_ahead: 0,
            log: Vec::new(),
            commands: Vec::new(),
            drains: BTreeMap::new(),
            drained: BTreeSet::new(),
            let_go: BTreeSet::new(),
            news: VecDeque::new(),
            versions: BTreeMap::new(),
            answers: VecDeque::new(),
            wake: None,
            seed,
            next_uid: 0,
        };
        toy.add_pool("p", pool_spec(image(1)));
        for n in 1..=nodes {
            toy.add_node(&format!("w{n}"), &["p"]);
        }
        toy.start();
        toy
    }

    pub fn add_pool(&mut self, name: &str, spec: PoolSpec) {
        let uid = self.uid();
        let view = PoolView {
            uid,
            generation: 1,
            deleting: false,
            finalizer: false,
            spec,
            retry: None,
            status: None,
        };
        self.pools.insert(name.into(), view);
        self.changed(News::Pool(name.into()));
    }

    pub fn add_node(&mut self, name: &str, claims: &[&str]) {
        let uid = self.uid();
        let node = NodeView {
            uid,
            ready: Some(true),
            ready_since: Some(self.node_time()),
            boot_id: Some(format!("{name}-1")),
            claims: claims.iter().map(|claim| PoolName::from(*claim)).collect(),
            ..NodeView::default()
        };
        self.nodes.insert(name.into(), node);
        let host = Host::new(image(1));
        self.hosts.insert(name.into(), host);
        self.changed(News::Node(name.into()));
    }

    fn node_time(&self) -> Timestamp {
        Timestamp(self.now.0 + self.nodes_ahead)
    }

    /// Somebody else than the operator changed an object.
    fn changed(&mut self, news: News) {
        self.versions.entry(news.clone()).or_default().0 += 1;
        self.news.push_back(news);
    }

    /// The operator changed an object: it knows the new version from the answer.
    fn written(&mut self, news: News) {
        let version = self.versions.entry(news.clone()).or_default();
        *version = (version.0 + 1, version.0 + 1);
        self.news.push_back(news);
    }

    /// Does the operator know this object as it is?
    fn is_known(&self, news: &News) -> bool {
        self.versions
            .get(news)
            .is_none_or(|(is, known)| is == known)
    }

    fn uid(&mut self) -> String {
        self.next_uid += 1;
        format!("uid-{}", self.next_uid)
    }

    /// The operator starts with full lists and no memory.
    pub fn start(&mut self) {
        self.rollout = Rollout::new(Config::default());
        self.journal.clear();
        self.drains.clear();
        self.news.clear();
        for version in self.versions.values_mut() {
            version.1 = version.0;
        }
        self.answers.clear();
        self.wake = None;
        let mut inputs: Vec<Input> = Vec::new();
        inputs.extend(
            self.pools
                .iter()
                .map(|(name, view)| Input::Pool(name.clone(), Some(view.clone()))),
        );
        inputs.extend(
            self.nodes
                .iter()
                .map(|(name, view)| Input::Node(name.clone(), Some(view.clone()))),
        );
        inputs.extend(
            self.bootc
                .iter()
                .map(|(name, view)| Input::BootcNode(name.clone(), Some(view.clone()))),
        );
        inputs.push(Input::Synced);
        for input in inputs {
            if !self.feed(input) {
                return;
            }
        }
    }

    pub fn edit_pool(&mut self, name: &str, edit: impl FnOnce(&mut PoolView)) {
        let pool = self.pools.get_mut(&PoolName::from(name)).unwrap();
        let before = pool.spec.clone();
        edit(pool);
        if pool.spec != before {
            pool.generation += 1;
        }
        self.changed(News::Pool(name.into()));
    }

    pub fn edit_node(&mut self, name: &str, edit: impl FnOnce(&mut NodeView)) {
        edit(self.nodes.get_mut(&NodeName::from(name)).unwrap());
        self.changed(News::Node(name.into()));
    }

    pub fn edit_bootc(&mut self, name: &str, edit: impl FnOnce(&mut BootcNodeView)) {
        edit(self.bootc.get_mut(&NodeName::from(name)).unwrap());
        self.changed(News::Bootc(name.into()));
    }

    pub fn delete_bootc(&mut self, name: &str) {
        self.bootc.remove(&NodeName::from(name));
        self.changed(News::Bootc(name.into()));
    }

    pub fn delete_node(&mut self, name: &str) {
        self.nodes.remove(&NodeName::from(name));
        self.hosts.remove(&NodeName::from(name));
        self.changed(News::Node(name.into()));
    }

    pub fn want(&mut self, n: u32) {
        self.edit_pool("p", |pool| pool.spec.image = ImageRef::Pinned(image(n)));
    }

    pub fn host(&mut self, name: &str) -> &mut Host {
        self.hosts.get_mut(&NodeName::from(name)).unwrap()
    }

    pub fn record(&self, name: &str) -> fsm::Record {
        self.rollout
            .record(&name.into())
            .cloned()
            .unwrap_or_default()
    }

    pub fn status(&self) -> fsm::view::PoolStatus {
        self.pools[&PoolName::from("p")]
            .status
            .clone()
            .unwrap_or_default()
    }

    /// Both nodes have staged image 2, and the write of this node's slot gets no answer.
    pub fn loses_a_grant(&mut self, node: &str) {
        self.edit_pool("p", |pool| pool.spec.paused = true);
        self.want(2);
        self.run(60);
        self.refuse
            .insert(node.into(), Outcome::Failed("timeout".into()));
        self.edit_pool("p", |pool| pool.spec.paused = false);
        self.settle_news();
        self.settle_news();
    }

    /// The drain of a node says that the last pod is kept by its budget.
    pub fn says_pods_wait(&mut self, node: &str) {
        let pods = vec![BlockedPod {
            pod: "shop/web".into(),
            why: Some("PodDisruptionBudget shop/web allows 0 disruptions".into()),
        }];
        let attempt = self.record(node).attempt;
        self.feed(Input::Drain {
            node: node.into(),
            attempt,
            report: DrainReport::Pods(pods),
        });
    }

    /// The node's drain goes on.
    pub fn unblock(&mut self, name: &str) {
        let name = NodeName::from(name);
        self.blocked.remove(&name);
        if let Some(drain) = self.drains.get_mut(&name) {
            drain.blocked = false;
        }
    }

    /// A person asks for another try; the agent forgets what it knows.
    pub fn retry(&mut self, name: &str) {
        let at = self.now;
        let nodes = [NodeName::from(name)].into();
        self.host(name).fell_back = None;
        self.edit_pool("p", |pool| {
            pool.retry = Some(fsm::view::Retry { nodes, at });
        });
    }

    /// Every node runs image `n`, nobody holds a slot, nothing of ours is left on the Nodes.
    pub fn assert_all_run(&self, n: u32) {
        let log = self.log.join("\n");
        for (name, host) in &self.hosts {
            assert_eq!(host.booted, image(n), "{name}\n{log}");
            let (node, bootc) = (&self.nodes[name], &self.bootc[name]);
            assert!(
                node.labelled && node.cordoned_by.is_none(),
                "{name}: {node:?}\n{log}"
            );
            assert!(!bootc.in_reboot_slot, "{name}: {bootc:?}\n{log}");
        }
        let status = self.status();
        assert_eq!(
            status.up_to_date.as_ref().unwrap().reason,
            "AllUpdated",
            "{status:?}\n{log}"
        );
        assert_eq!(
            status.is_degraded.as_ref().unwrap().reason,
            "OK",
            "{status:?}\n{log}"
        );
        assert_eq!(status.deployed_digest.as_deref(), Some(image(n).digest()));
    }
}

/// The phases of an update.
pub const PHASES: [State; 6] = [
    State::Staging,
    State::Staged,
    State::Cordoned,
    State::Draining,
    State::Rebooting,
    State::Verifying,
];

/// Clusters of `nodes` nodes of which one is in `phase` on its way to image 2, in different orders
/// of events. (In some orders a phase that needs no write is passed unseen.)
pub fn in_phase(phase: State, nodes: u32, seeds: u64) -> Vec<Toy> {
    let reached = (0..seeds).filter_map(|seed| {
        let mut toy = Toy::new(nodes, seed);
        toy.run(60);
        toy.want(2);
        toy.until(|toy| {
            toy.nodes
                .keys()
                .any(|name| toy.rollout.record(name).is_some_and(|it| it.state == phase))
        })
        .then_some(toy)
    });
    let reached: Vec<Toy> = reached.collect();
    assert!(!reached.is_empty(), "{phase} is never reached");
    reached
}
