//! One watch for each Secret that a pool names, and what they say.

use std::collections::{BTreeMap, BTreeSet};

use fsm::view::SecretRef;
use futures::StreamExt;
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tokio::{sync::mpsc, task::JoinHandle};
use tracing::debug;

use crate::words;

use super::{Problem, SecretError, SecretHash, problem, view::SecretView};

/// A pull secret as it now is. Said at first sight and at each change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretEvent {
    /// The Secret.
    pub secret: SecretRef,
    /// Its hash, or what is wrong with it.
    pub found: Result<SecretHash, SecretError>,
}

/// The watches of the Secrets that pools name. Dropping it ends them.
pub struct Secrets {
    client: Client,
    events: mpsc::Sender<SecretEvent>,
    watches: BTreeMap<SecretRef, Watch>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.watches.keys()).finish()
    }
}

#[derive(Debug)]
struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Secrets {
    /// Watches nothing yet.
    #[must_use]
    pub fn new(client: Client, events: mpsc::Sender<SecretEvent>) -> Self {
        Self {
            client,
            events,
            watches: BTreeMap::new(),
        }
    }

    /// Watches these Secrets and no others; those that are watched already go on.
    pub fn watch(&mut self, named: &BTreeSet<SecretRef>) {
        self.watches.retain(|secret, _| named.contains(secret));
        for secret in named {
            let Self {
                client,
                events,
                watches,
            } = self;
            watches.entry(secret.clone()).or_insert_with(|| {
                Watch(tokio::spawn(follow(
                    client.clone(),
                    secret.clone(),
                    events.clone(),
                )))
            });
        }
    }
}

/// Says what a Secret is like until nobody listens any more.
async fn follow(client: Client, secret: SecretRef, events: mpsc::Sender<SecretEvent>) {
    let api: Api<SecretView> = Api::namespaced(client, &secret.namespace);
    // A watch that begins with the present state: the right to list is not needed.
    let config = watcher::Config::default()
        .fields(&format!("metadata.name={}", secret.name))
        .streaming_lists();
    let mut watch = watcher(api, config).default_backoff().boxed();
    let mut sight = Sight::default();
    let mut said = None;
    while let Some(seen) = watch.next().await {
        let found = sight.take(&secret, seen);
        if found.is_none() || found == said {
            continue;
        }
        said.clone_from(&found);
        let Some(found) = found else { continue };
        debug!(secret = %format_args!("{}/{}", secret.namespace, secret.name), ok = found.is_ok(), "pull secret seen");
        let found = found.map_err(|problem| SecretError {
            secret: secret.clone(),
            problem,
        });
        if events
            .send(SecretEvent {
                secret: secret.clone(),
                found,
            })
            .await
            .is_err()
        {
            return;
        }
    }
}

type Found = Result<SecretHash, Problem>;

/// What the watch of one Secret has shown so far.
#[derive(Debug, Default)]
struct Sight {
    found: Option<Found>,
    /// What a list that is not complete yet has shown.
    listing: Option<Found>,
}

impl Sight {
    /// Takes what the watch says, and says what is known by it; nothing before the first answer.
    fn take(
        &mut self,
        secret: &SecretRef,
        seen: watcher::Result<Event<SecretView>>,
    ) -> Option<Found> {
        match seen {
            Ok(Event::Init) => self.listing = None,
            Ok(Event::InitApply(view)) => self.listing = Some(read(&view)),
            Ok(Event::InitDone) => {
                self.found = Some(self.listing.take().unwrap_or(Err(Problem::Missing)));
            }
            Ok(Event::Apply(view)) => self.found = Some(read(&view)),
            Ok(Event::Delete(_)) => self.found = Some(Err(Problem::Missing)),
            Err(error) => self.failed(secret, &error),
        }
        self.found.clone()
    }

    /// A watch that breaks off is taken up again, and what it showed still holds; one that the API
    /// server refuses does not come back by itself.
    fn failed(&mut self, secret: &SecretRef, error: &watcher::Error) {
        let problem = match error {
            watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => {
                problem(secret, error)
            }
            error => Problem::Unreadable(words::watch(error)),
        };
        let refused = matches!(problem, Problem::Forbidden { .. });
        if refused || !matches!(self.found, Some(Ok(_))) {
            self.found = Some(Err(problem));
        }
    }
}

fn read(view: &SecretView) -> Found {
    view.read().map(|(hash, _)| hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;
    use serde_json::json;

    fn secret() -> SecretRef {
        SecretRef {
            name: "pull".to_owned(),
            namespace: "fleet".to_owned(),
        }
    }

    fn view(content: &str) -> SecretView {
        let data =
            json!({".dockerconfigjson": k8s_openapi::ByteString(content.as_bytes().to_vec())});
        let kind = "kubernetes.io/dockerconfigjson";
        serde_json::from_value(json!({"metadata": {"name": "pull"}, "type": kind, "data": data}))
            .unwrap()
    }

    fn refused(code: u16) -> watcher::Error {
        let status = Status::failure("no", "").with_code(code).boxed();
        watcher::Error::WatchStartFailed(kube::Error::Api(status))
    }

    fn broken() -> watcher::Error {
        watcher::Error::WatchError(Status::failure("too old", "Expired").boxed())
    }

    #[test]
    fn a_secret_is_followed_through_its_life() {
        let mut sight = Sight::default();
        let mut take = |seen| sight.take(&secret(), seen);
        assert_eq!(take(Ok(Event::Init)), None);
        assert_eq!(take(Ok(Event::InitDone)), Some(Err(Problem::Missing)));
        let first = take(Ok(Event::Apply(view(r#"{"auths":{}}"#))))
            .unwrap()
            .unwrap();
        let second = take(Ok(Event::Apply(view(r#"{"auths": {}}"#))))
            .unwrap()
            .unwrap();
        assert_ne!(first, second);
        assert!(matches!(
            take(Ok(Event::Apply(view("{")))),
            Some(Err(Problem::Malformed(_)))
        ));
        assert_eq!(
            take(Ok(Event::Delete(view("{")))),
            Some(Err(Problem::Missing))
        );
    }

    #[test]
    fn nothing_is_said_of_a_list_under_way() {
        let mut sight = Sight::default();
        sight.take(&secret(), Ok(Event::Init));
        assert_eq!(
            sight.take(&secret(), Ok(Event::InitApply(view(r#"{"auths":{}}"#)))),
            None
        );
        let found = sight.take(&secret(), Ok(Event::InitDone)).unwrap();
        assert!(found.is_ok());
        assert_eq!(
            sight.take(&secret(), Ok(Event::Init)),
            Some(found),
            "what is known still holds"
        );
        assert_eq!(
            sight.take(&secret(), Ok(Event::InitDone)),
            Some(Err(Problem::Missing))
        );
    }

    #[test]
    fn only_a_refusal_takes_a_known_secret_away() {
        let mut sight = Sight::default();
        let unknown = sight.take(&secret(), Err(broken()));
        assert!(
            matches!(unknown, Some(Err(Problem::Unreadable(_)))),
            "{unknown:?}"
        );
        let known = sight.take(&secret(), Ok(Event::Apply(view(r#"{"auths":{}}"#))));
        assert_eq!(sight.take(&secret(), Err(broken())), known);
        assert_eq!(sight.take(&secret(), Err(refused(500))), known);
        let refusal = sight.take(&secret(), Err(refused(403)));
        assert!(
            matches!(refusal, Some(Err(Problem::Forbidden { .. }))),
            "{refusal:?}"
        );
    }
}
