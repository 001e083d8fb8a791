//! The API server: objects with versions, the log of their changes that watches read, and writes
//! that are refused unless they name the version and the UID that they were decided on.

use std::{collections::BTreeMap, sync::Arc};

use fsm::{
    Image, NodeName, PoolName, Timestamp,
    command::{Effect, NodeWrite, PoolWrite},
    input::Outcome,
    view::{BootcNodeView, Kept, NodeView, PoolView, Waiting},
};

use crate::status::Status;

/// An object that is another one when its UID is.
pub(crate) trait Named: PartialEq + Clone {
    fn uid(&self) -> &str;
}

impl Named for NodeView {
    fn uid(&self) -> &str {
        &self.uid
    }
}

impl Named for PoolView {
    fn uid(&self) -> &str {
        &self.uid
    }
}

impl Named for BootcNode {
    fn uid(&self) -> &str {
        &self.view.uid
    }
}

/// A `BootcNode` as stored: what the operator reads of it, and the agent's own status in full.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct BootcNode {
    pub(crate) view: BootcNodeView,
    pub(crate) status: Option<Status>,
    /// Somebody's finalizer: once it is deleted it stays until that goes.
    held: bool,
}

/// One object in one version.
#[derive(Clone, Debug)]
pub(crate) struct Stored<T> {
    pub(crate) version: u64,
    pub(crate) object: Arc<T>,
}

/// One change: of which object, in which version, and the object after it.
#[derive(Clone, Debug)]
pub(crate) struct Change<K, T> {
    pub(crate) name: K,
    pub(crate) version: u64,
    pub(crate) object: Option<Arc<T>>,
}

/// All objects of a kind and all changes so far.
#[derive(Clone, Debug)]
pub(crate) struct Shelf<K, T> {
    pub(crate) now: BTreeMap<K, Stored<T>>,
    pub(crate) log: Vec<Change<K, T>>,
}

impl<K, T> Default for Shelf<K, T> {
    fn default() -> Self {
        Self {
            now: BTreeMap::new(),
            log: Vec::new(),
        }
    }
}

impl<K: Ord + Clone, T: Named> Shelf<K, T> {
    pub(crate) fn get(&self, name: &K) -> Option<&T> {
        self.now.get(name).map(|stored| &*stored.object)
    }

    fn put(&mut self, name: &K, object: T, version: u64) {
        let object = Arc::new(object);
        let stored = Stored {
            version,
            object: object.clone(),
        };
        self.now.insert(name.clone(), stored);
        self.log.push(Change {
            name: name.clone(),
            version,
            object: Some(object),
        });
    }

    fn remove(&mut self, name: &K, version: u64) {
        if self.now.remove(name).is_some() {
            self.log.push(Change {
                name: name.clone(),
                version,
                object: None,
            });
        }
    }

    /// May a write that names this version and UID take place?
    fn fenced(&self, name: &K, stamp: Option<&Stamp>) -> Result<T, Outcome> {
        let stored = self.now.get(name).ok_or(Outcome::Gone)?;
        let stamp = stamp.ok_or(Outcome::Gone)?;
        if stored.object.uid() != stamp.uid {
            return Err(Outcome::Gone);
        }
        if stored.version != stamp.version {
            return Err(Outcome::Conflict);
        }
        Ok((*stored.object).clone())
    }
}

/// Which object a write was decided on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) uid: String,
    pub(crate) version: u64,
}

/// A write on its way.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) target: Target,
    pub(crate) what: What,
    pub(crate) stamp: Option<Stamp>,
    pub(crate) by: Origin,
}

/// Who sends it, and what that one knew.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    /// By an operator that is no leader any more.
    pub(crate) old: bool,
    /// The version of the Node that this was decided on.
    pub(crate) node: Option<u64>,
}

/// The object of a write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Node(NodeName),
    BootcNode(NodeName),
    Pool(PoolName),
}

/// What is written.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Effect(Effect),
    Pool(PoolWrite),
    Waiting(Waiting),
}

/// The cluster's objects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Server {
    version: u64,
    uids: u32,
    pub(crate) nodes: Shelf<NodeName, NodeView>,
    pub(crate) bootc: Shelf<NodeName, BootcNode>,
    pub(crate) pools: Shelf<PoolName, PoolView>,
    /// Accepted writes of the operator that changed something.
    pub(crate) operator_writes: u64,
    /// The same of the agents.
    pub(crate) agent_writes: u64,
}

impl Server {
    pub(crate) fn uid(&mut self) -> String {
        self.uids += 1;
        format!("uid-{}", self.uids)
    }

    fn next(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    pub(crate) fn put_node(&mut self, name: &NodeName, node: NodeView) {
        let version = self.next();
        self.nodes.put(name, node, version);
    }

    /// Changes a Node if it is there and the change is one.
    pub(crate) fn edit_node(&mut self, name: &NodeName, edit: impl FnOnce(&mut NodeView)) -> bool {
        let Some(mut node) = self.nodes.get(name).cloned() else {
            return false;
        };
        edit(&mut node);
        if self.nodes.get(name) == Some(&node) {
            return false;
        }
        self.put_node(name, node);
        true
    }

    pub(crate) fn remove_node(&mut self, name: &NodeName) {
        let version = self.next();
        self.nodes.remove(name, version);
    }

    pub(crate) fn edit_bootc(
        &mut self,
        name: &NodeName,
        edit: impl FnOnce(&mut BootcNode),
    ) -> bool {
        let Some(mut node) = self.bootc.get(name).cloned() else {
            return false;
        };
        edit(&mut node);
        if self.bootc.get(name) == Some(&node) {
            return false;
        }
        let version = self.next();
        self.bootc.put(name, node, version);
        true
    }

    /// Somebody deletes a `BootcNode`: it stays while somebody holds it.
    pub(crate) fn remove_bootc(&mut self, name: &NodeName) {
        if self.bootc.get(name).is_some_and(|node| node.held) {
            self.edit_bootc(name, |node| {
                node.view.generation += i64::from(!node.view.deleting);
                node.view.deleting = true;
            });
            return;
        }
        let version = self.next();
        self.bootc.remove(name, version);
    }

    /// Somebody's finalizer comes or goes.
    pub(crate) fn hold_bootc(&mut self, name: &NodeName, held: bool) -> bool {
        // None can be put on what is being deleted.
        let deleting = self.bootc.get(name).is_some_and(|it| it.view.deleting);
        let done = !(held && deleting) && self.edit_bootc(name, |node| node.held = held);
        if done && deleting {
            self.remove_bootc(name);
        }
        done
    }

    pub(crate) fn put_pool(&mut self, name: &PoolName, pool: PoolView) {
        let version = self.next();
        self.pools.put(name, pool, version);
    }

    pub(crate) fn edit_pool(&mut self, name: &PoolName, edit: impl FnOnce(&mut PoolView)) -> bool {
        let Some(mut pool) = self.pools.get(name).cloned() else {
            return false;
        };
        let before = pool.clone();
        edit(&mut pool);
        if pool == before {
            return false;
        }
        if pool.spec != before.spec {
            pool.generation += 1;
        }
        self.put_pool(name, pool);
        true
    }

    /// A person deletes a pool: it stays while it has our finalizer.
    pub(crate) fn delete_pool(&mut self, name: &PoolName) {
        let Some(pool) = self.pools.get(name) else {
            return;
        };
        if pool.finalizer {
            self.edit_pool(name, |pool| pool.deleting = true);
        } else {
            let version = self.next();
            self.pools.remove(name, version);
        }
    }

    /// Does what the operator asks for, or says why not.
    pub(crate) fn write(&mut self, request: &Request) -> Outcome {
        let before = self.version;
        let outcome = match (&request.target, &request.what) {
            (Target::Node(name), What::Effect(effect)) => {
                self.write_node(name, effect, request.stamp.as_ref())
            }
            (Target::BootcNode(name), What::Effect(effect)) => {
                self.write_bootc(name, effect, request.stamp.as_ref())
            }
            (Target::BootcNode(name), What::Waiting(waiting)) => {
                self.write_waiting(name, waiting, request.stamp.as_ref())
            }
            (Target::Pool(name), What::Pool(what)) => {
                self.write_pool(name, what, request.stamp.as_ref())
            }
            _ => Outcome::Gone,
        };
        self.operator_writes += u64::from(self.version > before);
        outcome
    }

    fn write_node(&mut self, name: &NodeName, effect: &Effect, stamp: Option<&Stamp>) -> Outcome {
        let mut node = match self.nodes.fenced(name, stamp) {
            Ok(node) => node,
            Err(outcome) => return outcome,
        };
        match effect {
            Effect::Uncordon => (node.cordoned, node.cordoned_by) = (false, None),
            Effect::ForgetCordon => node.cordoned_by = None,
            Effect::Unlabel => node.labelled = false,
            Effect::Label => node.labelled = true,
            Effect::Cordon { by } => (node.cordoned, node.cordoned_by) = (true, Some(by.clone())),
            _ => {}
        }
        if self.nodes.get(name) != Some(&node) {
            self.put_node(name, node);
        }
        Outcome::Ok
    }

    fn write_bootc(&mut self, name: &NodeName, effect: &Effect, stamp: Option<&Stamp>) -> Outcome {
        if let Effect::Create { owner, write } = effect {
            if self.bootc.get(name).is_some() {
                return Outcome::Conflict;
            }
            let mut node = BootcNode::default();
            node.view.uid = self.uid();
            node.view.generation = 1;
            node.view.owner = Some(owner.clone());
            fill(&mut node.view, write);
            let version = self.next();
            self.bootc.put(name, node, version);
            return Outcome::Ok;
        }
        let mut node = match self.bootc.fenced(name, stamp) {
            Ok(node) => node,
            Err(outcome) => return outcome,
        };
        match effect {
            Effect::Delete => self.remove_bootc(name),
            Effect::Commit(write) => {
                node.view.generation += i64::from(node.view.spec != write.spec);
                fill(&mut node.view, write);
                let version = self.next();
                self.bootc.put(name, node, version);
            }
            _ => {}
        }
        Outcome::Ok
    }

    fn write_waiting(
        &mut self,
        name: &NodeName,
        waiting: &Waiting,
        stamp: Option<&Stamp>,
    ) -> Outcome {
        match self.bootc.fenced(name, stamp) {
            Ok(mut node) => {
                node.view.waiting = Some(waiting.clone());
                let version = self.next();
                self.bootc.put(name, node, version);
                Outcome::Ok
            }
            Err(outcome) => outcome,
        }
    }

    fn write_pool(&mut self, name: &PoolName, what: &PoolWrite, stamp: Option<&Stamp>) -> Outcome {
        let mut pool = match self.pools.fenced(name, stamp) {
            Ok(pool) => pool,
            Err(outcome) => return outcome,
        };
        match what {
            PoolWrite::AddFinalizer => pool.finalizer = true,
            PoolWrite::RemoveFinalizer => pool.finalizer = false,
            PoolWrite::Status(status) => pool.status = Some((**status).clone()),
        }
        let version = self.next();
        if pool.deleting && !pool.finalizer {
            self.pools.remove(name, version);
        } else {
            self.pools.put(name, pool, version);
        }
        Outcome::Ok
    }

    /// The agent's status; the object must still be the one that it speaks of.
    pub(crate) fn write_status(&mut self, name: &NodeName, uid: &str, status: Status) -> bool {
        if self.bootc.get(name).is_none_or(|node| node.view.uid != uid) {
            return false;
        }
        let changed = self.edit_bootc(name, |node| {
            node.view.report = Some(Arc::new(status.seen()));
            node.status = Some(status);
        });
        self.agent_writes += u64::from(changed);
        true
    }
}

fn fill(view: &mut BootcNodeView, write: &NodeWrite) {
    view.spec = write.spec.clone();
    view.kept = Kept::Is(write.record.clone());
    view.in_reboot_slot = write.in_reboot_slot;
    view.was_cordoned = write.was_cordoned;
    view.retry = write.retry;
}

/// Image `n` of those that all are about. `n` below 10; digests of tags differ by repository.
pub(crate) fn image(n: u8) -> Image {
    of("r/os", n)
}

/// Image `n` of a repository.
pub(crate) fn of(repository: &str, n: u8) -> Image {
    Image::of(repository, &format!("sha256:{n}")).unwrap_or_else(|| unreachable!())
}

/// Whole seconds, as the API keeps times.
pub(crate) fn cut(at: Timestamp) -> Timestamp {
    at.whole_seconds()
}
