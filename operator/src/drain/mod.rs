//! Drains: the pods of cordoned nodes are evicted, and every pod that does not go is named.
//!
//! An engine with an interface of its own: [`Drains::start`], [`Drains::cancel`], and a stream of
//! [`DrainEvent`]s. It decides nothing about a rollout; a drain goes on until it is done or
//! cancelled, since a drain's deadline is the rollout's. A node costs a list, a watch and a last
//! list, a pod that nothing blocks one request.

mod board;
mod cause;
mod pod;
mod state;
mod task;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};

pub use cause::Cause;
pub use pod::PodName;

use task::Task;

/// Evictions under way at once, over all nodes: a bound on what a drain costs the API server.
const EVICTIONS: usize = 32;
/// Evictions under way at once on one node: webhooks that hang on some nodes leave room for others.
const EVICTIONS_A_NODE: usize = 8;

/// Something that a drain has to say.
#[derive(Clone, Debug, PartialEq)]
pub struct DrainEvent {
    /// The node that is drained.
    pub node: Arc<str>,
    /// The attempt that was started; one of an earlier attempt is void.
    pub attempt: u32,
    /// What it says.
    pub report: Report,
}

/// What a drain has to say.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// These pods are about to be evicted, and a person should know: said before the eviction.
    Evicting(Vec<Notable>),
    /// How far it is; said when it changes, at most once a second.
    Waiting(Waits),
    /// Listed again, and only what may stay is left. Nothing follows.
    Done {
        /// Pods that tolerate the cordon and came back after an eviction.
        stayed: Vec<PodName>,
    },
}

/// How far a drain is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// How many pods must still go; unknown until the first list.
    pub left: Option<usize>,
    /// Those of them that are waited for; the ones that something holds up come first.
    pub pods: Vec<PodWait>,
    /// Why the pods of the node cannot be seen, in the API server's words.
    pub trouble: Option<String>,
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(trouble) = &self.trouble {
            write!(f, "cannot see the node's pods: {trouble}; trying again")?;
            return Ok(());
        }
        match (self.pods.first(), self.left.unwrap_or(0)) {
            (Some(first), left) if left > 1 => write!(f, "{first} ({left} pods left)"),
            (Some(first), _) => write!(f, "{first}"),
            (None, 1) => write!(f, "evicting the last pod"),
            (None, left) => write!(f, "evicting {left} pods"),
        }
    }
}

/// A pod that a drain waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodWait {
    /// The pod.
    pub pod: PodName,
    /// Why it is still there.
    pub cause: Cause,
}

impl fmt::Display for PodWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waiting for pod {}: {}", self.pod, self.cause)
    }
}

/// A pod whose eviction a person should hear of first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notable {
    /// The pod.
    pub pod: PodName,
    /// Why.
    pub notes: Vec<Note>,
}

impl fmt::Display for Notable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let notes: Vec<_> = self.notes.iter().map(ToString::to_string).collect();
        write!(f, "evicting pod {}: {}", self.pod, notes.join("; "))
    }
}

/// Why a person should hear of an eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// No controller starts it again.
    Bare,
    /// Its emptyDir volumes are lost.
    EmptyDir,
    /// It tolerates the cordon and came after it; its replacement may stay.
    CameBack,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bare => "no controller will start it again",
            Self::EmptyDir => "the data of its emptyDir volumes is lost",
            Self::CameBack => {
                "it came after the cordon, which it tolerates; should it come back, it stays"
            }
        })
    }
}

/// Whether this replica may act; asked right before each eviction.
pub type MayEvict = Arc<dyn Fn() -> bool + Send + Sync>;

/// What all drains share.
#[derive(Clone)]
pub struct Settings {
    /// The pod that this program runs in, if it does: evicted last, and never a second time.
    pub own: Option<PodName>,
    /// Whether this replica may act.
    pub may_evict: MayEvict,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("own", &self.own)
            .finish_non_exhaustive()
    }
}

/// The drains under way, one task a node. Dropping it cancels them all.
#[derive(Debug)]
pub struct Drains {
    client: NoRetry,
    settings: Settings,
    events: mpsc::Sender<DrainEvent>,
    slots: Arc<Semaphore>,
    running: HashMap<Arc<str>, Running>,
}

#[derive(Debug)]
struct Running {
    attempt: u32,
    cancelled: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::SeqCst);
        self.task.abort();
    }
}

/// A client that hands refusals to its caller instead of retrying them.
#[derive(Clone)]
struct NoRetry(Client);

impl fmt::Debug for NoRetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl Drains {
    /// An engine that drains nothing yet. `client` must have been made with
    /// `Config::default_retry` off, or a refused eviction would be retried inside of it, unseen.
    #[must_use]
    pub fn new(client: Client, settings: Settings, events: mpsc::Sender<DrainEvent>) -> Self {
        let slots = Arc::new(Semaphore::new(EVICTIONS));
        Self {
            client: NoRetry(client),
            settings,
            events,
            slots,
            running: HashMap::new(),
        }
    }

    /// Drains `node`, which was cordoned at `cordoned`. Said again for an attempt under way it
    /// changes nothing; another attempt takes the place of the one before.
    ///
    /// Pods created before `cordoned` all have to go. It must therefore be the time of the cordon
    /// and not of this call, or a restarted operator would take pods that came back for old ones.
    pub fn start(&mut self, node: &str, attempt: u32, cordoned: Timestamp) {
        let same = |running: &Running| running.attempt == attempt && !running.task.is_finished();
        if self.running.get(node).is_some_and(same) {
            return;
        }
        self.cancel(node);
        let cancelled = Arc::new(AtomicBool::new(false));
        let node: Arc<str> = node.into();
        let task = Task {
            client: self.client.0.clone(),
            settings: self.settings.clone(),
            node: node.clone(),
            attempt,
            cordoned,
            cancelled: cancelled.clone(),
            slots: self.slots.clone(),
            events: self.events.clone(),
        };
        let task = tokio::spawn(task.run());
        self.running.insert(
            node,
            Running {
                attempt,
                cancelled,
                task,
            },
        );
    }

    /// Stops the drain of `node` at once, awaiting nothing. No eviction is begun after this
    /// returns; one that is on the wire already may still arrive. Events of the attempt may still
    /// be in the channel.
    pub fn cancel(&mut self, node: &str) {
        self.running.remove(node);
    }

    /// The drain of `node` has said its last word: what is kept of it goes, some kB a node. Another
    /// attempt goes on.
    pub fn ended(&mut self, node: &str, attempt: u32) {
        if self
            .running
            .get(node)
            .is_some_and(|it| it.attempt == attempt)
        {
            self.running.remove(node);
        }
    }

    /// How many drains are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.running
            .values()
            .filter(|running| !running.task.is_finished())
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(name: &str) -> PodWait {
        PodWait {
            pod: PodName::new("shop", name),
            cause: Cause::Busy,
        }
    }

    #[test]
    fn a_drain_says_how_far_it_is() {
        let busy = "waiting for pod shop/a: the API server is busy and asks to try later";
        let waits = |left, pods: &[PodWait]| Waits {
            left: Some(left),
            pods: pods.to_vec(),
            trouble: None,
        };
        assert_eq!(waits(1, &[wait("a")]).to_string(), busy);
        assert_eq!(
            waits(3, &[wait("a"), wait("b")]).to_string(),
            format!("{busy} (3 pods left)")
        );
        assert_eq!(waits(1, &[]).to_string(), "evicting the last pod");
        assert_eq!(waits(7, &[]).to_string(), "evicting 7 pods");
        let blind = Waits {
            trouble: Some("forbidden".to_owned()),
            ..Waits::default()
        };
        assert_eq!(
            blind.to_string(),
            "cannot see the node's pods: forbidden; trying again"
        );
    }

    #[test]
    fn a_notable_eviction_says_why() {
        let notable = Notable {
            pod: PodName::new("shop", "a"),
            notes: vec![Note::Bare, Note::EmptyDir],
        };
        let wanted = "evicting pod shop/a: no controller will start it again; \
                      the data of its emptyDir volumes is lost";
        assert_eq!(notable.to_string(), wanted);
    }
}
