//! The cluster as whoever calls may see it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use futures::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use operator::{
    observe::{
        Watch,
        wire::{BootcNode, Node, Pool, Watched},
    },
    words,
};
use tokio::time::timeout;

use crate::cli::Connection;

/// As good as for ever.
const EVER: Duration = Duration::from_secs(365 * 86_400);

/// A connection, and how long an answer may take.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    deadline: Duration,
}

impl Cluster {
    /// Reads the kubeconfig; asks nothing yet.
    pub(crate) async fn connect(wanted: &Connection) -> anyhow::Result<Self> {
        let kubeconfig = match &wanted.kubeconfig {
            Some(file) => Kubeconfig::read_from(file),
            None => Kubeconfig::read(),
        };
        let options = KubeConfigOptions {
            context: wanted.context.clone(),
            ..KubeConfigOptions::default()
        };
        let config = match kubeconfig {
            Ok(kubeconfig) => kube::Config::from_custom_kubeconfig(kubeconfig, &options).await,
            Err(error) => Err(error),
        };
        let mut config = config.map_err(|error| {
            anyhow!(
                "no cluster to talk to: {}; name one with --kubeconfig and --context, or set KUBECONFIG",
                words::chain(&error)
            )
        })?;
        config.default_retry = false;
        let client = Client::try_from(config).context("the kubeconfig cannot be used")?;
        let deadline = match wanted.request_timeout {
            Duration::ZERO => EVER,
            deadline => deadline,
        };
        Ok(Self { client, deadline })
    }

    /// One request with its deadline, and words for people where it fails.
    pub(crate) async fn ask<T>(
        &self,
        what: &str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> anyhow::Result<T> {
        match timeout(self.deadline, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status)))
                if status.code == 404
                    && status
                        .message
                        .contains("the server could not find the requested resource") =>
            {
                bail!(
                    "cannot {what}: the cluster does not know it; install with kubectl apply -f deploy/install.yaml"
                )
            }
            Ok(Err(error)) => bail!("cannot {what}: {}", words::request(&error)),
            Err(_) => bail!(
                "cannot {what}: no answer within {:?}; see --request-timeout",
                self.deadline
            ),
        }
    }

    /// All that a rollout is made of.
    pub(crate) async fn objects(&self) -> anyhow::Result<Objects> {
        let pools = self.list::<Pool>("list BootcNodePools");
        let bootc = self.list::<BootcNode>("list BootcNodes");
        let nodes = self.list::<Node>("list Nodes");
        let (pools, bootc, nodes) = tokio::join!(pools, bootc, nodes);
        let (nodes, unread) = match nodes {
            Ok(nodes) => (Some(nodes), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        Ok(Objects {
            pools: pools?,
            bootc: bootc?,
            nodes,
            unread,
            fresh: Fresh::default(),
        })
    }

    /// What happens to them from now on: first the lists, then changes. A watch that breaks off is
    /// taken up again.
    pub(crate) fn watch(&self) -> BoxStream<'static, Watch> {
        let pools = events::<Pool>(&self.client).map(Watch::Pool).boxed();
        let bootc = events::<BootcNode>(&self.client)
            .map(Watch::BootcNode)
            .boxed();
        let nodes = events::<Node>(&self.client).map(Watch::Node).boxed();
        stream::select_all([pools, bootc, nodes]).boxed()
    }

    async fn list<W: Watched + 'static>(&self, what: &str) -> anyhow::Result<BTreeMap<String, W>> {
        let api = Api::<W>::all(self.client.clone());
        let all = ListParams::default();
        let list = self.ask(what, api.list(&all)).await?;
        let named = list.items.into_iter();
        Ok(named.map(|object| (object.name_any(), object)).collect())
    }
}

fn events<W: Watched + 'static>(client: &Client) -> impl Stream<Item = Event<W>> + Send + use<W> {
    watcher(Api::<W>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .filter_map(async |event| event.ok())
}

/// The objects, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    pub(crate) pools: BTreeMap<String, Pool>,
    pub(crate) bootc: BTreeMap<String, BootcNode>,
    /// `None` where they may not be read.
    pub(crate) nodes: Option<BTreeMap<String, Node>>,
    /// Why they are not there.
    pub(crate) unread: Option<String>,
    fresh: Fresh,
}

/// Lists that a watch has begun anew.
#[derive(Clone, Debug, Default)]
struct Fresh {
    pools: BTreeMap<String, Pool>,
    bootc: BTreeMap<String, BootcNode>,
    nodes: BTreeMap<String, Node>,
}

impl Objects {
    /// Takes in news of a watch.
    pub(crate) fn watched(&mut self, watch: Watch) {
        match watch {
            Watch::Pool(event) => turn(&mut self.pools, &mut self.fresh.pools, event),
            Watch::BootcNode(event) => turn(&mut self.bootc, &mut self.fresh.bootc, event),
            Watch::Node(event) => {
                if let Some(nodes) = &mut self.nodes {
                    turn(nodes, &mut self.fresh.nodes, event);
                }
            }
        }
    }
}

fn turn<W: Watched>(
    known: &mut BTreeMap<String, W>,
    fresh: &mut BTreeMap<String, W>,
    event: Event<W>,
) {
    match event {
        Event::Init => fresh.clear(),
        Event::InitApply(object) => drop(fresh.insert(object.name_any(), object)),
        Event::InitDone => *known = std::mem::take(fresh),
        Event::Apply(object) => drop(known.insert(object.name_any(), object)),
        Event::Delete(object) => drop(known.remove(&object.name_any())),
    }
}
