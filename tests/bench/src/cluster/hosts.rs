//! Hosts in bulk, played at little cost: one watch on all `BootcNode`s, and the writes of real agents
//! and kubelets. They do no work of their own: what takes time is never them.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use crd::names::FIELD_MANAGER_AGENT;
use kube::{
    Client,
    api::{Patch, PatchParams},
    core::Request,
};
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    AT_ONCE,
    host::{Act, Host},
    nodes,
    wire::{self, BootcNodeSpec, Nothing, Object},
};

/// How long it may take until the next host is where it should be.
const PATIENCE: Duration = Duration::from_secs(120);

/// All hosts of a cluster. Dropped, they stop.
pub(crate) struct Hosts {
    shared: Arc<Shared>,
    _watch: JoinSet<()>,
}

/// Where all hosts shall come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Goal {
    image: String,
    /// It is enough if the image is staged.
    staged: bool,
}

impl Goal {
    fn is_reached(&self, host: &Host) -> bool {
        if self.staged {
            host.has_staged(&self.image)
        } else {
            host.has_settled(&self.image)
        }
    }
}

struct Shared {
    client: Client,
    turns: Semaphore,
    hosts: Vec<Mutex<Host>>,
    /// Told whenever a host was seen or has done something.
    changed: watch::Sender<()>,
    /// Told when this host has.
    each: Vec<watch::Sender<()>>,
    progress: Mutex<Progress>,
    is_quiet: AtomicBool,
}

/// How far all are.
#[derive(Debug, Default)]
struct Progress {
    goal: Goal,
    there: Vec<bool>,
    count: usize,
    freed: Vec<Instant>,
    /// The image that was wanted last of any host, and since when.
    wanted: Option<(String, Instant)>,
    failures: Vec<String>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hosts {
    /// Plays the hosts of nodes 0 to `size`, which run `image`.
    pub(crate) fn play(client: &Client, size: usize, image: &str) -> Self {
        let shared = Arc::new(Shared {
            client: client.clone(),
            turns: Semaphore::new(AT_ONCE),
            hosts: (0..size).map(|n| Mutex::new(Host::new(n, image))).collect(),
            changed: watch::Sender::default(),
            each: (0..size).map(|_| watch::Sender::default()).collect(),
            progress: Mutex::new(Progress {
                there: vec![false; size],
                ..Progress::default()
            }),
            is_quiet: AtomicBool::new(false),
        });
        let mut watch = JoinSet::new();
        watch.spawn(Arc::clone(&shared).follow());
        Self {
            shared,
            _watch: watch,
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.shared.hosts.len()
    }

    /// Lets all hosts do and say nothing.
    pub(crate) fn be_quiet(&self) {
        self.shared.is_quiet.store(true, Ordering::Release);
    }

    /// Waits until all hosts run this image and hold no slot.
    pub(crate) async fn until_all_run(&self, image: &str) -> Result<()> {
        self.until(image, false).await
    }

    /// Waits until all hosts have staged this image.
    pub(crate) async fn until_all_staged(&self, image: &str) -> Result<()> {
        self.until(image, true).await
    }

    async fn until(&self, image: &str, staged: bool) -> Result<()> {
        let mut changed = self.shared.changed.subscribe();
        let image = image.to_owned();
        self.shared.aim(Goal { image, staged });
        let mut before = 0;
        loop {
            let step = timeout(PATIENCE, async {
                loop {
                    changed.changed().await?;
                    let count = locked(&self.shared.progress).count;
                    if count > before || count == self.len() {
                        return anyhow::Ok(count);
                    }
                }
            });
            before = match step.await {
                Ok(count) => count?,
                Err(_) => bail!("{}", self.shared.complaint()),
            };
            if before == self.len() {
                return Ok(());
            }
        }
    }

    /// Waits until this image is wanted of any host; since when it is.
    pub(crate) async fn until_wanted(&self, image: &str) -> Result<Instant> {
        let mut changed = self.shared.changed.subscribe();
        let wait = timeout(PATIENCE, async {
            loop {
                if let Some((wanted, since)) = &locked(&self.shared.progress).wanted
                    && wanted == image
                {
                    return anyhow::Ok(*since);
                }
                changed.changed().await?;
            }
        });
        wait.await.context("nobody was told to run this image")?
    }

    /// Takes the times at which slots became free.
    pub(crate) fn take_freed(&self) -> Vec<Instant> {
        std::mem::take(&mut locked(&self.shared.progress).freed)
    }

    /// Waits until host `n` has staged this image.
    pub(crate) async fn until_staged(&self, n: usize, image: &str) -> Result<()> {
        self.until_one(n, |host| host.has_staged(image)).await
    }

    /// Waits until host `n` runs this image and has said so.
    pub(crate) async fn until_runs(&self, n: usize, image: &str) -> Result<()> {
        self.until_one(n, |host| host.runs(image)).await
    }

    async fn until_one(&self, n: usize, is_there: impl Fn(&Host) -> bool) -> Result<()> {
        let mut changed = self.shared.each(n)?.subscribe();
        let is_there = |(): &()| self.shared.host(n).is_ok_and(|host| is_there(&host));
        let wait = timeout(PATIENCE, changed.wait_for(is_there));
        let _ = wait.await.with_context(|| format!("host {n} is stuck"))??;
        Ok(())
    }

    /// UID of host `n`'s `BootcNode`, and its newest version.
    pub(crate) fn bootc_node(&self, n: usize) -> Result<(String, u64)> {
        let host = self.shared.host(n)?;
        let seen = host.seen.as_ref().context("it has no BootcNode")?;
        Ok((seen.metadata.uid.clone(), host.version))
    }

    /// Somebody made this version of host `n`'s `BootcNode`.
    pub(crate) fn written(&self, n: usize, version: u64) -> Result<()> {
        let mut host = self.shared.host(n)?;
        host.version = host.version.max(version);
        Ok(())
    }

    /// The version that host `n`'s last boot made of its Node.
    pub(crate) fn node_version(&self, n: usize) -> Result<u64> {
        Ok(self.shared.host(n)?.node_version)
    }

    /// The boot that host `n` is in.
    pub(crate) fn boot(&self, n: usize) -> Result<String> {
        Ok(self.shared.host(n)?.boot())
    }
}

impl Shared {
    fn host(&self, n: usize) -> Result<MutexGuard<'_, Host>> {
        Ok(locked(self.hosts.get(n).context("no such host")?))
    }

    fn each(&self, n: usize) -> Result<&watch::Sender<()>> {
        self.each.get(n).context("no such host")
    }

    async fn follow(self: Arc<Self>) {
        let mut acting = JoinSet::new();
        let client = self.client.clone();
        wire::watch(client, wire::BOOTC_NODES, |node| {
            while acting.try_join_next().is_some() {}
            if let Some(n) = self.see(node) {
                acting.spawn(Arc::clone(&self).act(n));
            }
        })
        .await;
    }

    /// Takes in what was seen of a host; answers which one has to do something.
    fn see(&self, node: Object<BootcNodeSpec>) -> Option<usize> {
        let n = node.metadata.name.get(5..10)?.parse().ok()?;
        let version = node.metadata.version();
        let mut host = self.host(n).ok()?;
        if host
            .seen
            .as_ref()
            .is_some_and(|seen| seen.metadata.version() > version)
        {
            return None;
        }
        self.note(&host, &node);
        host.version = host.version.max(version);
        host.seen = Some(node);
        let begins = !host.busy && !self.is_quiet.load(Ordering::Acquire);
        host.busy |= begins;
        drop(host);
        self.look(n);
        begins.then_some(n)
    }

    fn note(&self, host: &Host, node: &Object<BootcNodeSpec>) {
        let (now, mut progress) = (Instant::now(), locked(&self.progress));
        if let Some(image) = &node.spec.desired_image
            && progress
                .wanted
                .as_ref()
                .is_none_or(|(known, _)| known != image)
        {
            progress.wanted = Some((image.clone(), now));
        }
        let slot = crd::names::ANNOTATION_IN_REBOOT_SLOT;
        if host.holds_slot() && !node.metadata.annotations.contains_key(slot) {
            progress.freed.push(now);
        }
    }

    /// Says and does what host `n` has to, one after the other.
    async fn act(self: Arc<Self>, n: usize) {
        loop {
            let next = {
                let Ok(mut host) = self.host(n) else { return };
                let next = host.next();
                host.busy = next.is_some();
                next
            };
            self.look(n);
            let Some(act) = next else { return };
            if let Err(error) = self.do_it(n, act).await {
                let mut progress = locked(&self.progress);
                progress.failures.push(format!("host {n}: {error:#}"));
                return;
            }
        }
    }

    async fn do_it(&self, n: usize, act: Act) -> Result<()> {
        let _turn = self.turns.acquire().await?;
        match act {
            Act::Report(reason, generation, status) => {
                let version = self.report(n, status).await?;
                let mut host = self.host(n)?;
                host.version = host.version.max(version);
                host.reported(reason, generation);
            }
            Act::Boot(image, status) => {
                let params = PatchParams {
                    field_manager: Some("kubelet".to_owned()),
                    ..PatchParams::default()
                };
                let version = self
                    .status(wire::NODES, n, &params, &Patch::Strategic(status))
                    .await?;
                let mut host = self.host(n)?;
                host.node_version = version;
                host.booted_into(image);
            }
        }
        Ok(())
    }

    async fn report(&self, n: usize, status: Value) -> Result<u64> {
        let uid = {
            let host = self.host(n)?;
            host.seen.as_ref().map(|seen| seen.metadata.uid.clone())
        };
        let body = json!({
            "apiVersion": "node.bootc.dev/v1alpha1", "kind": "BootcNode",
            "metadata": { "uid": uid }, "status": status,
        });
        let params = PatchParams::apply(FIELD_MANAGER_AGENT).force();
        self.status(wire::BOOTC_NODES, n, &params, &Patch::Apply(body))
            .await
    }

    async fn status(
        &self,
        kind: &str,
        n: usize,
        params: &PatchParams,
        patch: &Patch<Value>,
    ) -> Result<u64> {
        let request =
            Request::new(kind).patch_subresource("status", &nodes::name(n), params, patch)?;
        let object: Object<Nothing> = self.client.request(request).await?;
        Ok(object.metadata.version())
    }

    fn aim(&self, goal: Goal) {
        let mut progress = locked(&self.progress);
        progress.there.fill(false);
        (progress.goal, progress.count) = (goal, 0);
        drop(progress);
        (0..self.hosts.len()).for_each(|n| self.look(n));
    }

    /// Looks whether host `n` is where it shall come to.
    fn look(&self, n: usize) {
        if let Ok(host) = self.host(n) {
            let mut progress = locked(&self.progress);
            let there = progress.goal.is_reached(&host);
            if let Some(known) = progress.there.get_mut(n) {
                let before = std::mem::replace(known, there);
                progress.count = progress.count + usize::from(there) - usize::from(before);
            }
        }
        self.changed.send_replace(());
        if let Ok(each) = self.each(n) {
            each.send_replace(());
        }
    }

    fn complaint(&self) -> String {
        let missing = locked(&self.progress).there.iter().position(|there| !there);
        // Its lock comes before that of the progress.
        let host = missing.and_then(|n| self.host(n).ok());
        let progress = locked(&self.progress);
        format!(
            "{} of {} hosts have come to {:?}, and no other for {PATIENCE:?}; failures: {:?}; the first \
             missing one: {host:?}",
            progress.count,
            self.hosts.len(),
            progress.goal,
            progress.failures.iter().take(3).collect::<Vec<_>>(),
        )
    }
}
