//! Events for people, through events.k8s.io.
//!
//! Written by hand: kube's `Recorder` joins Events by reason alone and keeps the first one's note,
//! so a second image would be told with the first one's name.

use std::time::Duration;

use fsm::{
    NodeName, PoolName,
    command::{About, Notice},
};
use k8s_openapi::{
    api::{
        core::v1::{Node, ObjectReference},
        events::v1::Event,
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tracing::{info, warn};

use super::{
    Metrics, Told,
    series::{Next, Series},
};
use crate::{
    observe::{Index, Stamp, Target},
    words,
};

/// Objects without a namespace have their Events in this one.
const NAMESPACE: &str = "default";
/// How long an Event may take; it is no harm if one is lost.
const DEADLINE: Duration = Duration::from_secs(5);
/// Events that wait to be written; more are dropped.
const WAITING: usize = 512;
/// Room among them that is left to warnings and to what is told of pools: a large rollout's steps
/// come faster than they are written, and what ends it must be read.
const RESERVED: usize = 128;
/// The time between two of them, on average: what is told of a rollout must not slow it down, and
/// each costs the API server as much as a write that moves a node on. Twenty a second are more than
/// people read.
const PAUSE: Duration = Duration::from_millis(50);
/// So many may follow each other at once after a rest.
const BURST: u32 = 50;
/// The API's limit of a note, in bytes.
const NOTE: usize = 1024;

/// What happens to the Node itself is told of that as well, where `kubectl describe node` shows it.
const ON_NODES: [&str; 9] = [
    "Draining",
    "Rebooting",
    "CordonLost",
    "DrainTimedOut",
    "DrainTakingTooLong",
    "Evicting",
    "PodsStay",
    "SlotGivenBack",
    "FellBack",
];

/// The queue of Events.
#[derive(Debug)]
pub struct Events {
    queue: mpsc::Sender<Box<Event>>,
    me: String,
    metrics: Metrics,
}

impl Events {
    /// A queue, and the work of writing what is in it, to be run beside everything else.
    pub fn new(
        client: Client,
        me: String,
        metrics: Metrics,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, receiver) = mpsc::channel(WAITING);
        let work = publish(client, receiver, metrics.clone());
        (Self { queue, me, metrics }, work)
    }

    /// How many wait to be written.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Logs a notice and queues its Event.
    pub fn tell(&self, notice: &Notice, index: &Index) {
        let (pool, node) = match &notice.about {
            About::Pool(pool) => (Some(pool), None),
            About::Node(node, pool) => (pool.as_ref(), Some(node)),
        };
        let (pool, node) = (pool.map(PoolName::as_str), node.map(NodeName::as_str));
        let (reason, text) = (&notice.reason, &notice.note);
        if notice.warning {
            warn!(pool, node, reason, "{text}");
        } else {
            info!(pool, node, reason, "{text}");
        }
        let now = Timestamp::now();
        let objects = objects(&notice.about, index);
        if let Some(node) = node.filter(|_| ON_NODES.contains(&reason.as_str()))
            && objects.0.kind.as_deref() != Some("Node")
        {
            let on = (node_reference(node, index), Some(objects.0.clone()));
            self.queue(event(notice, on, &self.me, now));
        }
        self.queue(event(notice, objects, &self.me, now));
    }

    /// Logs a notice and queues its Event on the Node alone: what was done to that itself.
    pub fn tell_on_node(&self, node: &NodeName, notice: &Notice, index: &Index) {
        let (name, reason, text) = (node.as_str(), &notice.reason, &notice.note);
        info!(node = name, reason, "{text}");
        let (bootc_node, _) = objects(&notice.about, index);
        let on = (node_reference(name, index), Some(bootc_node));
        self.queue(event(notice, on, &self.me, Timestamp::now()));
    }

    fn queue(&self, event: Event) {
        let is_full = is_step(&event) && self.queue.capacity() <= RESERVED;
        if is_full || self.queue.try_send(Box::new(event)).is_err() {
            self.metrics.events(Told::Dropped);
        }
    }
}

/// A step of one node, as it should be.
fn is_step(event: &Event) -> bool {
    let regarding = event.regarding.as_ref();
    let kind = regarding.and_then(|object| object.kind.as_deref());
    event.type_.as_deref() == Some("Normal") && kind != Some(crd::BootcNodePool::kind(&()).as_ref())
}

/// Puts a series' count on the Event that it is about.
async fn count(api: &Api<Event>, name: &str, count: i32, at: Timestamp) -> Result<(), kube::Error> {
    let series = json!({ "series": { "count": count, "lastObservedTime": MicroTime(at) } });
    let params = PatchParams::default();
    api.patch(name, &params, &Patch::Merge(series)).await?;
    Ok(())
}

async fn write(api: &Api<Event>, series: &mut Series, event: &Event) -> Result<(), kube::Error> {
    // It may have waited: its time is that of what it tells.
    let at = event.event_time.as_ref();
    let at = at.map_or_else(Timestamp::now, |at| at.0);
    if let Next::Count {
        name,
        count: so_often,
    } = series.next(event, at)
    {
        match count(api, &name, so_often, at).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            result => return result,
        }
    }
    let created = api.create(&PostParams::default(), event).await;
    if created.is_err() {
        series.forget(event);
    }
    created.map(drop)
}

async fn publish(client: Client, mut queue: mpsc::Receiver<Box<Event>>, metrics: Metrics) {
    let api: Api<Event> = Api::namespaced(client, NAMESPACE);
    let (mut series, mut failing) = (Series::default(), false);
    let mut next = Instant::now();
    while let Some(event) = queue.recv().await {
        let error = match timeout(DEADLINE, write(&api, &mut series, &event)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(words::request(&error)),
            Err(_) => Some(format!("no answer within {DEADLINE:?}")),
        };
        // Said once, and again after it went well for a while.
        if let Some(error) = error.as_ref().filter(|_| !failing) {
            warn!(%error, "cannot write Events; they are in this log alone");
        }
        failing = error.is_some();
        metrics.events(if failing { Told::Failed } else { Told::Sent });
        let now = Instant::now();
        next = next.max(now.checked_sub(PAUSE * BURST).unwrap_or(now)) + PAUSE;
        sleep_until(next).await;
    }
}

/// The object that an Event is about, and the one that goes with it.
type Objects = (ObjectReference, Option<ObjectReference>);

fn event(notice: &Notice, (regarding, related): Objects, me: &str, at: Timestamp) -> Event {
    let kind = regarding.kind.as_deref().unwrap_or_default();
    let name = regarding.name.as_deref().unwrap_or("bootc");
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:x}{}", at.as_nanosecond(), kind.len())),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(at)),
        type_: Some(if notice.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(notice.reason.clone()),
        action: Some(notice.action.clone()),
        note: Some(cut(&notice.note)),
        regarding: Some(regarding),
        related,
        reporting_controller: Some("bootc.dev/bootc-operator".to_owned()),
        reporting_instance: Some(me.to_owned()),
        ..Event::default()
    }
}

fn node_reference(name: &str, index: &Index) -> ObjectReference {
    let stamp = index.stamp(&Target::Node(name.into()));
    reference::<Node>(name, stamp)
}

fn objects(about: &About, index: &Index) -> Objects {
    let pool = |name: &PoolName| {
        let stamp = index.stamp(&Target::Pool(name.clone()));
        reference::<crd::BootcNodePool>(name.as_str(), stamp)
    };
    match about {
        About::Pool(name) => (pool(name), None),
        About::Node(name, of) => {
            let node = match index.stamp(&Target::BootcNode(name.clone())) {
                Some(stamp) => reference::<crd::BootcNode>(name.as_str(), Some(stamp)),
                None => node_reference(name.as_str(), index),
            };
            (node, of.as_ref().map(pool))
        }
    }
}

fn reference<K: Resource<DynamicType = ()>>(name: &str, stamp: Option<Stamp>) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: Some(name.to_owned()),
        uid: stamp.map(|stamp| stamp.uid),
        ..ObjectReference::default()
    }
}

/// The note within the API's limit, cut at a character's edge.
fn cut(note: &str) -> String {
    if note.len() <= NOTE {
        return note.to_owned();
    }
    let fits = note
        .char_indices()
        .map(|(at, _)| at)
        .take_while(|at| at + "...".len() <= NOTE);
    let end = fits.last().unwrap_or(0);
    format!("{}...", note.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Watch;
    use kube::runtime::watcher;
    use serde_json::json;

    fn notice(about: About, note: &str) -> Notice {
        Notice {
            about,
            warning: true,
            reason: "Staging".into(),
            action: "NodeUpdate".into(),
            note: note.into(),
        }
    }

    fn index() -> Index {
        let mut index = Index::default();
        let meta = |name: &str, uid: &str| json!({ "metadata": { "name": name, "uid": uid } });
        let event = |object| watcher::Event::Apply(object);
        index.watched(Watch::BootcNode(event(
            serde_json::from_value(meta("w1", "b1")).unwrap(),
        )));
        let node = serde_json::from_value(meta("w2", "n2")).unwrap();
        index.watched(Watch::Node(watcher::Event::Apply(node)));
        let pool = serde_json::from_value(meta("workers", "p1")).unwrap();
        index.watched(Watch::Pool(watcher::Event::Apply(pool)));
        index
    }

    fn built(about: &About) -> Event {
        event(
            &notice(about.clone(), "a note"),
            objects(about, &index()),
            "me",
            Timestamp::UNIX_EPOCH,
        )
    }

    #[test]
    fn an_event_names_its_object_and_the_pool() {
        let event = built(&About::Node("w1".into(), Some("workers".into())));
        let (regarding, related) = (event.regarding.unwrap(), event.related.unwrap());
        assert_eq!(regarding.kind.as_deref(), Some("BootcNode"));
        assert_eq!(regarding.uid.as_deref(), Some("b1"));
        assert_eq!(related.kind.as_deref(), Some("BootcNodePool"));
        assert_eq!(related.uid.as_deref(), Some("p1"));
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        assert_eq!(event.note.as_deref(), Some("a note"));
    }

    #[test]
    fn a_node_without_a_bootcnode_is_named_itself() {
        let regarding = built(&About::Node("w2".into(), None)).regarding.unwrap();
        assert_eq!(regarding.kind.as_deref(), Some("Node"));
        assert_eq!(regarding.uid.as_deref(), Some("n2"));
        let regarding = built(&About::Pool("workers".into())).regarding.unwrap();
        assert_eq!(regarding.kind.as_deref(), Some("BootcNodePool"));
    }

    #[tokio::test]
    async fn steps_leave_room_for_what_must_be_read() {
        let (queue, _receiver) = mpsc::channel(WAITING);
        let events = Events {
            queue,
            me: "me".into(),
            metrics: Metrics::new().0,
        };
        let step = || Event {
            type_: Some("Normal".into()),
            ..built(&About::Node("w1".into(), None))
        };
        for _ in 0..2 * WAITING {
            events.queue(step());
        }
        assert_eq!(events.waiting(), WAITING - RESERVED);
        events.queue(built(&About::Node("w1".into(), None)));
        events.queue(built(&About::Pool("workers".into())));
        assert_eq!(events.waiting(), WAITING - RESERVED + 2);
        for _ in 0..WAITING {
            events.queue(built(&About::Pool("workers".into())));
        }
        assert_eq!(events.waiting(), WAITING);
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        for letter in ["a", "ä", "語"] {
            let cut = cut(&letter.repeat(NOTE + 1));
            assert!(cut.len() <= NOTE && cut.len() > NOTE - 4, "{}", cut.len());
            assert!(cut.ends_with("..."));
        }
        let exact = "a".repeat(NOTE);
        assert_eq!(cut(&exact), exact);
    }
}
