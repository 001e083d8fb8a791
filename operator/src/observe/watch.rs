//! The three watches, and the check before them.

use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::{Stream, StreamExt as _};
use kube::{
    Api, Client,
    api::ListParams,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::{
    index::Watch,
    wire::{BootcNode, Node, Pool, Watched},
};
use crate::{protobuf, report::Metrics, words};

/// So many objects of a list are asked for at a time. A page is in memory as text and as objects:
/// with the client's 500 Nodes that is the most that the operator of a cluster of that size ever needs.
const PAGE: u32 = 250;
/// How long the first question may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long an API server that does not answer is asked again before the start fails.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long between two questions.
const PAUSE: Duration = Duration::from_secs(2);

/// Everything that happens to Nodes, `BootcNode`s and pools: first the lists, then changes, for
/// ever. A watch that breaks off is taken up again with back-off.
pub fn watch(client: &Client, metrics: &Metrics) -> impl Stream<Item = Watch> + Send + use<> {
    let nodes = events::<Node>(&protobuf::of_nodes(client), metrics, "Node").map(Watch::Node);
    let bootc_nodes = events::<BootcNode>(client, metrics, "BootcNode").map(Watch::BootcNode);
    let pools = events::<Pool>(client, metrics, "BootcNodePool").map(Watch::Pool);
    let (nodes, bootc_nodes, pools) = (nodes.boxed(), bootc_nodes.boxed(), pools.boxed());
    futures::stream::select_all([nodes, bootc_nodes, pools])
}

fn events<W: Watched + 'static>(
    client: &Client,
    metrics: &Metrics,
    kind: &'static str,
) -> impl Stream<Item = Event<W>> + Send + use<W> {
    let metrics = metrics.clone();
    let config = watcher::Config::default().page_size(PAGE);
    watcher(Api::<W>::all(client.clone()), config)
        .default_backoff()
        .filter_map(move |event| {
            let news = match event {
                Ok(event) => Some(event),
                Err(error) => {
                    let error = words::watch(&error);
                    warn!(kind, error, "the watch broke off and is taken up again");
                    metrics.watch_restarted(kind);
                    None
                }
            };
            std::future::ready(news)
        })
}

/// Whether the API server is there, new enough, and knows our kinds; says what to do where it is or
/// does not.
pub async fn check(client: &Client) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        // A server that does not say its version says more to the next question.
        if let Ok(Ok(version)) = timeout(ANSWER, client.apiserver_version()).await {
            crd::api_server::check(&version)?;
        }
        let pools = list_one::<Pool>(client).await;
        let answer = match pools {
            Ok(()) => list_one::<BootcNode>(client).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(()) => return Ok(()),
            Err(error) => explain(&error)?,
        }
        if start.elapsed() > PATIENCE {
            bail!(
                "the API server does not answer; check the address and credentials in KUBECONFIG, \
                 or in a pod its service account and network"
            );
        }
        sleep(PAUSE).await;
    }
}

async fn list_one<W: Watched>(client: &Client) -> Result<(), kube::Error> {
    let api = Api::<W>::all(client.clone());
    let one = ListParams::default().limit(1);
    match timeout(ANSWER, api.list_metadata(&one)).await {
        Ok(answer) => answer.map(drop),
        Err(_) => Err(kube::Error::Service(
            format!("no answer within {ANSWER:?}").into(),
        )),
    }
}

/// Fails where asking again cannot help.
fn explain(error: &kube::Error) -> anyhow::Result<()> {
    let kube::Error::Api(status) = error else {
        let error = words::request(error);
        warn!(error, "the API server does not answer, asking again");
        return Ok(());
    };
    let install = "kubectl apply -f deploy/install.yaml";
    let fatal = |what: &str| {
        Err(anyhow::anyhow!("{}", status.message)).context(format!("{what}: {install}"))
    };
    match status.code {
        404 => fatal("the API server does not know BootcNodePool and BootcNode; install the CRDs"),
        401 | 403 => fatal("the operator may not list BootcNodePools; install its ClusterRole"),
        _ => {
            let error = words::request(error);
            warn!(error, "the API server is not ready, asking again");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::client::Body;
    use serde_json::json;

    /// A cluster that gives every question the same answer.
    fn answering(code: u16) -> Client {
        let service = tower::service_fn(move |_: http::Request<Body>| async move {
            let answer = if code == 200 {
                json!({ "metadata": {}, "items": [] })
            } else {
                json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "message": "the server's words", "reason": "", "code": code })
            };
            let body = Body::from(answer.to_string().into_bytes());
            let mut response = http::Response::new(body);
            *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
            Ok::<_, std::convert::Infallible>(response)
        });
        Client::new(service, "default")
    }

    #[tokio::test]
    async fn a_start_that_cannot_succeed_says_what_to_do() {
        for (code, words) in [
            (
                404,
                "install the CRDs: kubectl apply -f deploy/install.yaml",
            ),
            (
                403,
                "install its ClusterRole: kubectl apply -f deploy/install.yaml",
            ),
            (401, "kubectl apply -f deploy/install.yaml"),
        ] {
            let error = format!("{:#}", check(&answering(code)).await.unwrap_err());
            assert!(
                error.contains(words) && error.contains("the server's words"),
                "{error}"
            );
        }
        assert!(check(&answering(200)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_is_not_ready_is_asked_again_for_a_while() {
        let start = Instant::now();
        let error = check(&answering(503)).await.unwrap_err().to_string();
        assert!(error.contains("KUBECONFIG"), "{error}");
        assert!(start.elapsed() >= PATIENCE);
    }
}
