//! A toy cluster that does what a [`Rollout`] asks for: objects in maps, agents, kubelets and drains
//! that take one step at a time, in an order drawn from a seed. It checks the guarantees after each
//! write and can kill the operator before or after any of them.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fsm::{
    Command, Config, Image, Input, NodeName, PoolName, Rollout, Running, Timestamp,
    command::{Decision, Effect, NodeWrite, PoolWrite},
    input::{DrainReport, Outcome},
    time::Seconds,
    view::{
        Activity, AgentFault, AgentFaultKind, Amount, BootcNodeView, ImageRef, Kept, NodeView,
        PoolSpec, PoolView, Report, Waiting,
    },
};

/// Image number `n`.
pub fn image(n: u32) -> Image {
    Image::of("registry.test/os", &format!("sha256:{n:064}")).unwrap()
}

fn running(image: &Image) -> Running {
    Running {
        image: Some(image.as_str().to_owned()),
        digest: image.digest().to_owned(),
    }
}

/// What stands in a host beside the API objects.
#[derive(Clone, Debug)]
pub struct Host {
    pub booted: Image,
    pub staged: Option<Image>,
    pub boots: u32,
    /// Reboots that the agent asked for.
    pub reboots: u32,
    pub down: bool,
    /// The next reboot ends in the old image, and the agent says so.
    pub falls_back: bool,
    /// The next reboots lose the update without a word.
    pub loses_update: u32,
    /// Does not come back from a reboot.
    pub stays_down: bool,
    /// The agent does nothing.
    pub silent: bool,
    /// The agent cannot stage.
    pub broken: Option<String>,
    fell_back: Option<Image>,
    asked_reboot: bool,
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
    /// Drains of these nodes do not end.
    pub blocked: BTreeSet<NodeName>,
    pub log: Vec<String>,
    pub commands: Vec<Command>,
    drains: BTreeMap<NodeName, Draining>,
    /// Nodes whose pods are gone since their cordon.
    drained: BTreeSet<NodeName>,
    news: VecDeque<News>,
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
    PoolSpec {
        image: ImageRef::Pinned(image),
        invalid: None,
        max_unavailable: Amount::Count(1),
        paused: false,
        drain_timeout: None,
        reboot_timeout: None,
        max_concurrent_staging: None,
        min_ready: Seconds(0),
        soft_reboot: false,
        secret: None,
    }
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
            blocked: BTreeSet::new(),
            log: Vec::new(),
            commands: Vec::new(),
            drains: BTreeMap::new(),
            drained: BTreeSet::new(),
            news: VecDeque::new(),
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
        self.news.push_back(News::Pool(name.into()));
    }

    pub fn add_node(&mut self, name: &str, claims: &[&str]) {
        let uid = self.uid();
        let node = NodeView {
            uid,
            ready: Some(true),
            ready_since: Some(self.now),
            boot_id: Some(format!("{name}-1")),
            claims: claims.iter().map(|claim| PoolName::from(*claim)).collect(),
            ..NodeView::default()
        };
        self.nodes.insert(name.into(), node);
        let host = Host {
            booted: image(1),
            staged: None,
            boots: 1,
            reboots: 0,
            down: false,
            falls_back: false,
            loses_update: 0,
            stays_down: false,
            silent: false,
            broken: None,
            fell_back: None,
            asked_reboot: false,
        };
        self.hosts.insert(name.into(), host);
        self.news.push_back(News::Node(name.into()));
    }

    fn uid(&mut self) -> String {
        self.next_uid += 1;
        format!("uid-{}", self.next_uid)
    }

    /// The operator starts with full lists and no memory.
    pub fn start(&mut self) {
        self.rollout = Rollout::new(Config::default());
        self.drains.clear();
        self.news.clear();
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
        self.news.push_back(News::Pool(name.into()));
    }

    pub fn edit_node(&mut self, name: &str, edit: impl FnOnce(&mut NodeView)) {
        edit(self.nodes.get_mut(&NodeName::from(name)).unwrap());
        self.news.push_back(News::Node(name.into()));
    }

    pub fn edit_bootc(&mut self, name: &str, edit: impl FnOnce(&mut BootcNodeView)) {
        edit(self.bootc.get_mut(&NodeName::from(name)).unwrap());
        self.news.push_back(News::Bootc(name.into()));
    }

    pub fn delete_bootc(&mut self, name: &str) {
        self.bootc.remove(&NodeName::from(name));
        self.news.push_back(News::Bootc(name.into()));
    }

    pub fn delete_node(&mut self, name: &str) {
        self.nodes.remove(&NodeName::from(name));
        self.hosts.remove(&NodeName::from(name));
        self.news.push_back(News::Node(name.into()));
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

    /// Feeds one input and does what it asks for. False if the operator was killed.
    pub fn feed(&mut self, input: Input) -> bool {
        let commands = self.rollout.handle(self.now, input);
        self.check_sums();
        for command in commands {
            self.commands.push(command.clone());
            if !self.obey(command) {
                self.crashes += 1;
                self.log.push(format!("killed: {:?}", self.crash));
                self.crash = None;
                self.start();
                return false;
            }
        }
        true
    }

    fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Decide(decision) => return self.decide(&decision),
            Command::Pool { pool, write, what } => {
                if !self.write_pool(&pool, &what) {
                    return false;
                }
                self.answers.push_back(Input::PoolDone {
                    pool,
                    write,
                    outcome: Outcome::Ok,
                });
            }
            Command::Waiting { node, waiting } => self.write_waiting(node, waiting),
            Command::Resolve {
                pool, reference, ..
            } => {
                self.resolved += 1;
                let result = self
                    .tags
                    .get(&reference)
                    .cloned()
                    .unwrap_or(Err("no such tag".into()));
                self.answers.push_back(Input::Resolved {
                    pool,
                    reference,
                    result,
                });
            }
            Command::WakeAt(at) => self.wake = at,
            Command::Hop { node, hop, .. } => {
                self.log.push(format!(
                    "{node}: {} -> {} ({})",
                    hop.from, hop.to, hop.cause
                ));
            }
            Command::Notice(notice) => self.log.push(format!(
                "{:?} {}: {}",
                notice.about, notice.reason, notice.note
            )),
        }
        true
    }

    fn write_waiting(&mut self, node: NodeName, waiting: Waiting) {
        let outcome = match self.bootc.get_mut(&node) {
            Some(bootc) => {
                bootc.waiting = Some(waiting);
                self.waiting_writes += 1;
                Outcome::Ok
            }
            None => Outcome::Gone,
        };
        self.news.push_back(News::Bootc(node.clone()));
        self.answers.push_back(Input::WaitingDone { node, outcome });
    }

    fn write_pool(&mut self, name: &PoolName, what: &PoolWrite) -> bool {
        if !self.counted(Crash::Before) {
            return false;
        }
        if let Some(pool) = self.pools.get_mut(name) {
            match what {
                PoolWrite::AddFinalizer => pool.finalizer = true,
                PoolWrite::RemoveFinalizer => {
                    assert!(pool.deleting);
                    self.pools.remove(name);
                }
                PoolWrite::Status(status) => {
                    assert_ne!(
                        pool.status.as_ref(),
                        Some(&**status),
                        "a status is not written again"
                    );
                    pool.status = Some((**status).clone());
                    self.status_writes += 1;
                }
            }
        }
        self.news.push_back(News::Pool(name.clone()));
        self.writes += 1;
        self.survives(Crash::After)
    }

    /// Does the operator live to make this write?
    fn counted(&self, crash: fn(usize) -> Crash) -> bool {
        self.crash != Some(crash(self.writes))
    }

    /// Does it live to see the answer?
    fn survives(&self, crash: fn(usize) -> Crash) -> bool {
        self.crash != Some(crash(self.writes - 1))
    }

    fn decide(&mut self, decision: &Decision) -> bool {
        let mut done = 0;
        let mut outcome = Outcome::Ok;
        let names: Vec<_> = decision.effects.iter().map(name_of).collect();
        self.log.push(format!(
            "{}: #{} {}",
            decision.node,
            decision.id,
            names.join(", ")
        ));
        for effect in &decision.effects {
            if effect.is_write() {
                if let Some(refusal) = self.refuse.get(&decision.node) {
                    outcome = refusal.clone();
                    break;
                }
                if !self.counted(Crash::Before) {
                    return false;
                }
            }
            match self.effect(&decision.node, effect) {
                Outcome::Ok => done += 1,
                other => {
                    outcome = other;
                    break;
                }
            }
            if effect.is_write() {
                self.writes += 1;
                *self.node_writes.entry(decision.node.clone()).or_default() += 1;
                self.check(&decision.node);
                if !self.survives(Crash::After) {
                    return false;
                }
            }
        }
        self.answers.push_back(Input::Done {
            node: decision.node.clone(),
            decision: decision.id,
            done,
            outcome,
        });
        true
    }

    fn effect(&mut self, name: &NodeName, effect: &Effect) -> Outcome {
        match effect {
            Effect::CancelDrain => {
                self.drains.remove(name);
                return Outcome::Ok;
            }
            Effect::StartDrain { attempt } => {
                let blocked = self.blocked.contains(name);
                self.drains.insert(
                    name.clone(),
                    Draining {
                        attempt: *attempt,
                        blocked,
                    },
                );
                return Outcome::Ok;
            }
            Effect::Create { owner, write } => {
                if self.bootc.contains_key(name) {
                    return Outcome::Conflict;
                }
                let view = BootcNodeView {
                    uid: self.uid(),
                    generation: 1,
                    owner: Some(owner.clone()),
                    ..BootcNodeView::default()
                };
                self.bootc.insert(name.clone(), view);
                self.creations += 1;
                self.commit(name, write, true);
                return Outcome::Ok;
            }
            Effect::Commit(write) => {
                if !self.bootc.contains_key(name) {
                    return Outcome::Gone;
                }
                self.commit(name, write, false);
                return Outcome::Ok;
            }
            Effect::Delete => {
                self.news.push_back(News::Bootc(name.clone()));
                return self
                    .bootc
                    .remove(name)
                    .map_or(Outcome::Gone, |_| Outcome::Ok);
            }
            _ => {}
        }
        let Some(node) = self.nodes.get_mut(name) else {
            return Outcome::Gone;
        };
        let before = node.clone();
        match effect {
            Effect::Uncordon => (node.cordoned, node.cordoned_by) = (false, None),
            Effect::ForgetCordon => node.cordoned_by = None,
            Effect::Unlabel => node.labelled = false,
            Effect::Label => node.labelled = true,
            Effect::Cordon { by } => (node.cordoned, node.cordoned_by) = (true, Some(by.clone())),
            _ => {}
        }
        assert_ne!(before, *node, "{name}: {effect:?} changes nothing");
        if !node.cordoned {
            assert!(
                !self.drains.contains_key(name),
                "{name} is uncordoned while it is drained"
            );
            self.drained.remove(name);
        }
        self.news.push_back(News::Node(name.clone()));
        Outcome::Ok
    }

    fn commit(&mut self, name: &NodeName, write: &NodeWrite, fresh: bool) {
        let bootc = self.bootc.get_mut(name).unwrap();
        let approves = write.spec.booted
            && (!bootc.spec.booted || bootc.spec.approved_boot != write.spec.approved_boot);
        if approves {
            let wanted = write.spec.image.as_ref().unwrap();
            let report = bootc.report.as_ref().unwrap();
            assert!(
                self.nodes[name].cordoned,
                "{name} is approved and not cordoned"
            );
            assert!(
                self.drained.contains(name),
                "{name} is approved and not drained"
            );
            assert!(
                report.staged.as_ref().unwrap().is(wanted),
                "{name} is approved for another image"
            );
            assert_eq!(
                bootc.spec.image.as_ref(),
                Some(wanted),
                "approved with the image in one write"
            );
            assert!(write.in_reboot_slot, "{name} is approved without a slot");
        }
        if bootc.spec.image != write.spec.image {
            assert!(!write.spec.booted, "{name}: a new image comes with Staged");
        }
        if bootc.spec != write.spec && !fresh {
            bootc.generation += 1;
        }
        bootc.spec = write.spec.clone();
        let json = serde_json::to_string(&write.record).unwrap();
        bootc.kept = Kept::Is(Box::new(serde_json::from_str(&json).unwrap()));
        bootc.in_reboot_slot = write.in_reboot_slot;
        bootc.was_cordoned = write.was_cordoned;
        bootc.retry = write.retry;
        self.news.push_back(News::Bootc(name.clone()));
    }

    /// The guarantees that hold after every write.
    fn check(&self, _: &NodeName) {
        for (name, pool) in &self.pools {
            let of = |bootc: &&BootcNodeView| {
                bootc
                    .owner
                    .as_ref()
                    .is_some_and(|owner| owner.pool == *name)
            };
            let held = self
                .bootc
                .values()
                .filter(of)
                .filter(|bootc| bootc.in_reboot_slot)
                .count();
            let nodes = self
                .nodes
                .values()
                .filter(|node| node.claims.contains(name))
                .count();
            let allowed = pool.spec.max_unavailable.of(nodes).max(self.slack());
            assert!(held <= allowed, "{held} slots of {allowed}");
        }
    }

    /// Lowering the limit throws nobody out: tests that do so say how many there may be.
    fn slack(&self) -> usize {
        self.tags.get("slack").map_or(0, |_| usize::MAX)
    }

    pub fn allow_more_holders(&mut self) {
        self.tags.insert("slack".into(), Err(String::new()));
    }

    fn check_sums(&self) {
        for name in self.pools.keys() {
            if let Some(sum) = self.rollout.sum(name) {
                assert_eq!(sum, &sum.recount());
            }
        }
    }

    fn random(&mut self, below: usize) -> usize {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.seed >> 33) as usize) % below
    }

    /// One step of somebody who can make one. False if nobody can.
    pub fn step(&mut self) -> bool {
        let mut turns: Vec<Turn> = Vec::new();
        turns.extend((!self.news.is_empty()).then_some(Turn::News));
        turns.extend((!self.answers.is_empty()).then_some(Turn::Answer));
        turns.extend(
            self.drains
                .iter()
                .filter(|(_, drain)| !drain.blocked)
                .map(|(name, _)| Turn::Drain(name.clone())),
        );
        turns.extend(
            self.hosts
                .keys()
                .filter(|name| self.has_work(name))
                .map(|name| Turn::Host(name.clone())),
        );
        if turns.is_empty() {
            return false;
        }
        let turn = self.random(turns.len());
        self.now.0 += 100;
        match turns.swap_remove(turn) {
            Turn::News => self.deliver(),
            Turn::Answer => {
                let answer = self.answers.pop_front().unwrap();
                self.feed(answer);
            }
            Turn::Drain(name) => {
                let drain = self.drains.remove(&name).unwrap();
                self.drained.insert(name.clone());
                self.feed(Input::Drain {
                    node: name,
                    attempt: drain.attempt,
                    report: DrainReport::Done,
                });
            }
            Turn::Host(name) => self.host_step(&name),
        }
        true
    }

    fn deliver(&mut self) {
        let input = match self.news.pop_front().unwrap() {
            News::Node(name) => Input::Node(name.clone(), self.nodes.get(&name).cloned()),
            News::Bootc(name) => Input::BootcNode(name.clone(), self.bootc.get(&name).cloned()),
            News::Pool(name) => Input::Pool(name.clone(), self.pools.get(&name).cloned()),
        };
        self.feed(input);
    }

    /// Runs until nobody can make a step; timers are left alone.
    pub fn settle(&mut self) {
        for _ in 0..20_000 {
            if !self.step() {
                return;
            }
        }
        panic!("it does not come to rest:\n{}", self.log.join("\n"));
    }

    /// Runs with time passing until nothing happens for `quiet` seconds.
    pub fn run(&mut self, quiet: u32) {
        for _ in 0..2_000 {
            self.settle();
            let end = self.now + Seconds(quiet);
            match self.wake.filter(|at| *at <= end) {
                Some(at) => {
                    self.now = self.now.max(at);
                    self.feed(Input::Tick);
                }
                None => return,
            }
        }
        panic!("it does not come to rest:\n{}", self.log.join("\n"));
    }

    /// Lets time pass.
    pub fn pass(&mut self, seconds: u32) {
        let end = self.now + Seconds(seconds);
        for _ in 0..10_000 {
            self.settle();
            match self.wake.filter(|at| *at <= end) {
                Some(at) => {
                    self.now = self.now.max(at);
                    self.feed(Input::Tick);
                }
                None => break,
            }
        }
        self.now = self.now.max(end);
        self.settle();
    }

    /// Runs until `when` holds; says whether it ever did.
    pub fn until(&mut self, when: impl Fn(&Self) -> bool) -> bool {
        for _ in 0..20_000 {
            if when(self) {
                return true;
            }
            if !self.step() {
                match self.wake {
                    Some(at) if at <= self.now + Seconds(7200) => {
                        self.now = self.now.max(at);
                        self.feed(Input::Tick);
                    }
                    _ => return when(self),
                }
            }
        }
        false
    }

    fn has_work(&self, name: &NodeName) -> bool {
        let Some(host) = self.hosts.get(name) else {
            return false;
        };
        if host.down {
            return !host.stays_down;
        }
        if host.silent || !self.nodes.get(name).is_some_and(|node| node.labelled) {
            return false;
        }
        let Some(bootc) = self.bootc.get(name) else {
            return false;
        };
        let (report, act) = self.next_report(name, host, bootc);
        host.asked_reboot || !matches!(act, Act::Nothing) || bootc.report != Some(report)
    }

    /// What the agent says next, and whether it then stages or reboots.
    fn next_report(&self, name: &NodeName, host: &Host, bootc: &BootcNodeView) -> (Report, Act) {
        let boot = format!("{name}-{}", host.boots);
        let mut report = Report {
            observed_generation: Some(bootc.generation),
            boot: Some(boot.clone()),
            booted: Some(running(&host.booted)),
            staged: host.staged.as_ref().map(running),
            activity: Activity::Idle,
            degraded: None,
        };
        let Some(wanted) = &bootc.spec.image else {
            return (report, Act::Nothing);
        };
        if *wanted == host.booted {
            return (report, Act::Nothing);
        }
        let fault = |kind, message: &str| {
            Some(AgentFault {
                kind,
                message: message.to_owned(),
            })
        };
        if host.fell_back.as_ref() == Some(wanted) {
            report.degraded = fault(AgentFaultKind::FellBack, "the host fell back");
            return (report, Act::Nothing);
        }
        if let Some(broken) = &host.broken {
            report.degraded = fault(AgentFaultKind::Error, broken);
            return (report, Act::Nothing);
        }
        if host.staged.as_ref() != Some(wanted) {
            let act = if bootc
                .report
                .as_ref()
                .is_some_and(|report| report.activity == Activity::Staging)
            {
                Act::Stage(wanted.clone())
            } else {
                Act::Nothing
            };
            report.activity = Activity::Staging;
            return (report, act);
        }
        if bootc.spec.booted
            && bootc
                .spec
                .approved_boot
                .as_ref()
                .is_none_or(|approved| *approved == boot)
        {
            report.activity = Activity::Rebooting;
            return (report, Act::Reboot);
        }
        report.activity = Activity::Staged;
        (report, Act::Nothing)
    }

    fn host_step(&mut self, name: &NodeName) {
        if self.hosts[name].down {
            return self.boot(name);
        }
        let host = self.hosts[name].clone();
        if host.asked_reboot {
            return self.shut_down(name);
        }
        let bootc = self.bootc[name].clone();
        let (mut report, act) = self.next_report(name, &host, &bootc);
        match act {
            Act::Nothing => {}
            Act::Stage(image) => {
                report.staged = Some(running(&image));
                report.activity = Activity::Staged;
                self.hosts.get_mut(name).unwrap().staged = Some(image);
            }
            Act::Reboot => self.hosts.get_mut(name).unwrap().asked_reboot = true,
        }
        self.bootc.get_mut(name).unwrap().report = Some(report);
        self.news.push_back(News::Bootc(name.clone()));
    }

    fn shut_down(&mut self, name: &NodeName) {
        let host = self.hosts.get_mut(name).unwrap();
        (host.asked_reboot, host.down) = (false, true);
        host.reboots += 1;
        let node = self.nodes.get_mut(name).unwrap();
        assert!(node.cordoned, "{name} goes down and is not cordoned");
        (node.ready, node.ready_since) = (Some(false), Some(self.now));
        self.news.push_back(News::Node(name.clone()));
    }

    /// The host comes up again: with the staged image, if nothing is in the way.
    pub fn boot(&mut self, name: &NodeName) {
        let host = self.hosts.get_mut(name).unwrap();
        host.down = false;
        host.boots += 1;
        if let Some(staged) = host.staged.take() {
            if host.falls_back {
                host.fell_back = Some(staged);
            } else if host.loses_update > 0 {
                host.loses_update -= 1;
            } else {
                host.booted = staged;
            }
        }
        let boot = format!("{name}-{}", host.boots);
        let node = self.nodes.get_mut(name).unwrap();
        (node.ready, node.ready_since, node.boot_id) = (Some(true), Some(self.now), Some(boot));
        self.news.push_back(News::Node(name.clone()));
    }

    /// Power is cut: a boot that nobody asked for.
    pub fn power_cut(&mut self, name: &str) {
        let name = NodeName::from(name);
        let host = self.hosts.get_mut(&name).unwrap();
        host.asked_reboot = false;
        host.staged = None;
        self.boot(&name);
    }

    /// A person asks for another try; the agent forgets what it knows.
    pub fn retry(&mut self, name: &str) {
        let at = self.now;
        let nodes = [NodeName::from(name)].into();
        self.host(name).fell_back = None;
        self.edit_pool("p", |pool| {
            pool.retry = Some(fsm::view::Retry { nodes, at })
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

/// An effect in few words.
pub fn name_of(effect: &Effect) -> String {
    match effect {
        Effect::Commit(write) => format!("Commit({})", write.record.state),
        Effect::Create { write, .. } => format!("Create({})", write.record.state),
        other => format!("{other:?}"),
    }
}

#[derive(Clone, Debug)]
enum Turn {
    News,
    Answer,
    Drain(NodeName),
    Host(NodeName),
}

#[derive(Clone, Debug)]
enum Act {
    Nothing,
    Stage(Image),
    Reboot,
}
