//! One node's drain: the thin asynchronous shell around its [`Board`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{
    StreamExt,
    stream::{BoxStream, FuturesUnordered},
};
use k8s_openapi::{
    api::{core::v1::Pod as FullPod, policy::v1::Eviction},
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::IgnoredAny;
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, info};

use super::{
    DrainEvent, EVICTIONS_A_NODE, Report, Settings,
    board::{Board, Target},
    cause::{self, Answer, Cause},
    pod::{Pod, PodView, Uid},
    state::State,
};
use crate::words;

/// The deadline of an eviction: an admission webhook may take 30 s, and giving up before it would
/// let a slow webhook block a pod for ever.
const EVICTION: Duration = Duration::from_secs(35);
/// The deadline of the last list.
const LIST: Duration = Duration::from_secs(30);

/// One node's drain, before it runs.
pub(super) struct Task {
    pub(super) client: Client,
    pub(super) settings: Settings,
    pub(super) node: Arc<str>,
    pub(super) attempt: u32,
    pub(super) cordoned: Timestamp,
    pub(super) cancelled: Arc<AtomicBool>,
    pub(super) slots: Arc<Semaphore>,
    pub(super) events: mpsc::Sender<DrainEvent>,
}

type Watch = BoxStream<'static, watcher::Result<Event<PodView>>>;

/// The receiver of the events is gone, and with it the operator.
struct Deaf;

impl Task {
    pub(super) async fn run(self) {
        info!(node = %self.node, attempt = self.attempt, "drain begins");
        // Without a listener the operator itself is going.
        if self.drain().await.is_ok() {
            info!(node = %self.node, attempt = self.attempt, "drained");
        }
    }

    async fn drain(&self) -> Result<(), Deaf> {
        let board = Board::new(self.cordoned, self.settings.own.clone());
        let mut state = State::new(board, Instant::now());
        let mut watch = self.watch();
        let mut asked = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(seen) = watch.next() => state.seen(seen, Instant::now()),
                Some((uid, answer)) = asked.next() => state.answered(&uid, answer, Instant::now()),
                () = until(state.wake()) => state.tick(Instant::now()),
            }
            if state.wants_new_watch() {
                watch = self.watch();
            }
            if state.wants_last_list() {
                state.listed_again(self.list().await, Instant::now());
                if state.is_done() {
                    return self
                        .send(Report::Done {
                            stayed: state.staying(),
                        })
                        .await;
                }
            }
            let targets = state.due(EVICTIONS_A_NODE.saturating_sub(asked.len()));
            self.note(&targets).await?;
            asked.extend(targets.into_iter().map(|target| self.evict(target)));
            if let Some(waits) = state.news() {
                self.send(Report::Waiting(waits)).await?;
            }
        }
    }

    /// The selector of the pods on this node; the API server has an index for it.
    fn selector(&self) -> String {
        format!("spec.nodeName={}", self.node)
    }

    fn watch(&self) -> Watch {
        let config = watcher::Config::default().fields(&self.selector());
        watcher(Api::<PodView>::all(self.client.clone()), config)
            .default_backoff()
            .boxed()
    }

    /// All pods of the node, as of now and not of some moment before.
    async fn list(&self) -> Result<Vec<Pod>, String> {
        let api = Api::<PodView>::all(self.client.clone());
        let params = ListParams::default().fields(&self.selector());
        match timeout(LIST, api.list(&params)).await {
            Ok(Ok(list)) => Ok(list.items.iter().filter_map(Pod::read).collect()),
            Ok(Err(error)) => Err(words::request(&error)),
            Err(_) => Err(format!(
                "no answer to a list of its pods in {} s",
                LIST.as_secs()
            )),
        }
    }

    /// Says which pods are about to be evicted, where a person should know.
    async fn note(&self, targets: &[Target]) -> Result<(), Deaf> {
        let notable: Vec<_> = targets
            .iter()
            .filter_map(|target| target.notable.clone())
            .collect();
        if notable.is_empty() {
            Ok(())
        } else {
            self.send(Report::Evicting(notable)).await
        }
    }

    async fn evict(&self, target: Target) -> (Uid, Answer) {
        let answer = self.ask(&target).await;
        debug!(node = %self.node, pod = %target.name, ?answer, "eviction answered");
        (target.uid, answer)
    }

    async fn ask(&self, target: &Target) -> Answer {
        // The semaphore is never closed; without a permit the eviction would merely be unbounded.
        let _permit = self.slots.acquire().await.ok();
        let api: Api<FullPod> = Api::namespaced(self.client.clone(), &target.name.namespace);
        let eviction = eviction(target);
        let params = PostParams::default();
        let request = api.create_subresource::<_, IgnoredAny>(
            "eviction",
            &target.name.name,
            &params,
            &eviction,
        );
        if self.cancelled.load(Ordering::SeqCst) || !(self.settings.may_evict)() {
            return Answer::refused(Cause::NotLeader);
        }
        match timeout(EVICTION, request).await {
            Ok(answer) => cause::read(&target.name, answer.map(|_| ())),
            Err(_) => Answer::refused(Cause::NoAnswer { after: EVICTION }),
        }
    }

    async fn send(&self, report: Report) -> Result<(), Deaf> {
        let event = DrainEvent {
            node: self.node.clone(),
            attempt: self.attempt,
            report,
        };
        self.events.send(event).await.map_err(|_| Deaf)
    }
}

/// An eviction of this very pod: a later one of the same name is not meant.
fn eviction(target: &Target) -> Eviction {
    let preconditions = Preconditions {
        uid: Some(target.uid.to_string()),
        resource_version: None,
    };
    Eviction {
        metadata: ObjectMeta {
            name: Some(target.name.name.to_string()),
            namespace: Some(target.name.namespace.to_string()),
            ..ObjectMeta::default()
        },
        delete_options: Some(DeleteOptions {
            preconditions: Some(preconditions),
            ..DeleteOptions::default()
        }),
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::pod::PodName;

    #[test]
    fn an_eviction_means_one_pod_by_its_uid() {
        let target = Target {
            name: PodName::new("shop", "db-0"),
            uid: "first".into(),
            notable: None,
        };
        let body = serde_json::to_value(eviction(&target)).unwrap();
        assert_eq!(body["metadata"]["name"], "db-0");
        assert_eq!(body["metadata"]["namespace"], "shop");
        assert_eq!(body["deleteOptions"]["preconditions"]["uid"], "first");
        assert!(body["deleteOptions"].get("gracePeriodSeconds").is_none());
    }
}
