//! The API server, as the agent uses it: one watch on one object, its status, and a Secret now and then.

use std::time::Duration;

use crd::{BootcNode, BootcNodeStatus, names::FIELD_MANAGER_AGENT};
use fsm::host::Secret as SecretSpec;
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Config, Resource as _,
    api::{Patch, PatchParams},
    core::DeserializeGuard,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use tokio::time::timeout;

/// The longest that one request may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// A watch that says nothing for so long is dead: the API server ends each after five minutes.
const SILENCE: Duration = Duration::from_secs(330);
const DOCKER_CONFIG: &str = ".dockerconfigjson";

/// The API server and the name of our object.
#[derive(Clone)]
pub struct Server {
    client: Client,
    node: String,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The API server refused it or could not be reached.
    #[error("{0}")]
    Kube(#[from] kube::Error),
    /// It did not answer in time.
    #[error("the API server has not answered within {} s", DEADLINE.as_secs())]
    Silent,
    /// The Secret has no credentials.
    #[error("it has no key {DOCKER_CONFIG}")]
    NoCredentials,
}

/// What the watch says.
#[derive(Debug)]
pub enum Seen {
    /// The object as it is.
    Node(Box<BootcNode>),
    /// There is none.
    Gone,
}

impl Server {
    /// Connects as kube does everywhere: in a pod by its service account, else by `KUBECONFIG`.
    ///
    /// # Errors
    /// If there is neither, or it cannot be used.
    pub async fn connect(node: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let config = Config::infer().await?;
        Ok(Self::new(config, node)?)
    }

    /// Connects by `config`.
    ///
    /// # Errors
    /// If the configuration cannot be used.
    pub fn new(mut config: Config, node: &str) -> Result<Self, kube::Error> {
        config.connect_timeout = Some(DEADLINE);
        config.read_timeout = Some(SILENCE);
        // Ours is slower and knows what it is for.
        config.default_retry = false;
        Ok(Self::with(Client::try_from(config)?, node))
    }

    /// Uses this client.
    #[must_use]
    pub fn with(client: Client, node: &str) -> Self {
        Self {
            client,
            node: node.to_owned(),
        }
    }

    /// Refuses an API server that is too old. One that does not answer is not refused: the host may
    /// be up before it.
    ///
    /// # Errors
    /// With the version that is needed.
    pub async fn check(&self) -> Result<(), crd::api_server::TooOld> {
        match timeout(DEADLINE, self.client.apiserver_version()).await {
            Ok(Ok(version)) => crd::api_server::check(&version),
            _ => Ok(()),
        }
    }

    fn nodes(&self) -> Api<BootcNode> {
        Api::all(self.client.clone())
    }

    /// The object and every change of it, for ever; errors are logged and retried within.
    pub fn watch(&self) -> impl Stream<Item = Seen> + use<> {
        let api: Api<DeserializeGuard<BootcNode>> = Api::all(self.client.clone());
        let only = watcher::Config::default().fields(&format!("metadata.name={}", self.node));
        let mut found = false;
        watcher(api, only)
            .default_backoff()
            .filter_map(move |event| std::future::ready(seen(event, &mut found)))
    }

    /// The object as the API server has it now; `None` if there is none.
    ///
    /// # Errors
    /// If the API server does not say.
    pub async fn node(&self) -> Result<Option<BootcNode>, ApiError> {
        let api = self.nodes();
        let node = timeout(DEADLINE, api.get_opt(&self.node)).await;
        Ok(node.map_err(|_| ApiError::Silent)??)
    }

    /// Writes our part of the object's status. The object must still be this one.
    ///
    /// # Errors
    /// If the API server refuses it or is not there.
    pub async fn write(
        &self,
        node: &BootcNode,
        status: &BootcNodeStatus,
    ) -> Result<BootcNode, ApiError> {
        let body = json!({
            "apiVersion": BootcNode::api_version(&()),
            "kind": BootcNode::kind(&()),
            "metadata": { "name": self.node, "uid": node.metadata.uid },
            "status": status,
        });
        let api = self.nodes();
        let params = PatchParams::apply(FIELD_MANAGER_AGENT).force();
        let patch = Patch::Apply(body);
        let written = timeout(DEADLINE, api.patch_status(&self.node, &params, &patch)).await;
        Ok(written.map_err(|_| ApiError::Silent)??)
    }

    /// The registry credentials in a Secret.
    ///
    /// # Errors
    /// If it cannot be read or has none. Never shows its content.
    pub async fn credentials(&self, secret: &SecretSpec) -> Result<Vec<u8>, ApiError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &secret.namespace);
        let found = timeout(DEADLINE, api.get(&secret.name)).await;
        let found = found.map_err(|_| ApiError::Silent)??;
        let data = found.data.and_then(|mut data| data.remove(DOCKER_CONFIG));
        data.map(|it| it.0).ok_or(ApiError::NoCredentials)
    }
}

/// What an event of the watch says of our object, if anything. `found` is carried over a list: only a
/// list that ends without the object says that there is none.
fn seen(
    event: Result<watcher::Event<DeserializeGuard<BootcNode>>, watcher::Error>,
    found: &mut bool,
) -> Option<Seen> {
    let node = match event {
        Ok(watcher::Event::Init) => {
            *found = false;
            return None;
        }
        Ok(watcher::Event::InitDone) => return (!*found).then_some(Seen::Gone),
        Ok(watcher::Event::Delete(_)) => return Some(Seen::Gone),
        Ok(watcher::Event::InitApply(node) | watcher::Event::Apply(node)) => node,
        Err(error) => {
            tracing::warn!(%error, "the watch on the BootcNode was interrupted");
            return None;
        }
    };
    *found = true;
    match node.0 {
        Ok(node) => Some(Seen::Node(Box::new(node))),
        Err(error) => {
            tracing::warn!(%error, "the BootcNode cannot be read; keeping to what it said before");
            None
        }
    }
}
