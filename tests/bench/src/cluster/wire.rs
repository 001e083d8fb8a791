//! Objects as far as figures look at them, and a watch that costs little.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use futures::StreamExt as _;
use kube::{
    Client,
    api::WatchParams,
    core::{Request, WatchEvent},
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::sleep;

/// Where the `BootcNode`s are.
pub(crate) const BOOTC_NODES: &str = "/apis/node.bootc.dev/v1alpha1/bootcnodes";
/// Where the Nodes are.
pub(crate) const NODES: &str = "/api/v1/nodes";
/// Where all pods are.
pub(crate) const PODS: &str = "/api/v1/pods";

/// How long to wait before a watch that broke off is taken up again.
const PAUSE: Duration = Duration::from_millis(100);

/// An object with what is looked at of its spec.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Object<S> {
    /// Who it is.
    pub(crate) metadata: Meta,
    /// What is wanted of it.
    #[serde(default)]
    pub(crate) spec: S,
}

/// Who an object is.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Meta {
    /// Its name.
    pub(crate) name: String,
    /// Empty for objects of the cluster.
    #[serde(default)]
    pub(crate) namespace: String,
    /// Which object of that name.
    pub(crate) uid: String,
    /// Which version of it.
    pub(crate) resource_version: String,
    /// Which spec of it.
    #[serde(default)]
    pub(crate) generation: i64,
    /// Somebody wants it gone.
    #[serde(default)]
    pub(crate) deletion_timestamp: Option<String>,
    /// Notes on it.
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Meta {
    /// The version as a number: etcd counts them up.
    pub(crate) fn version(&self) -> u64 {
        self.resource_version.parse().unwrap_or(0)
    }
}

/// What is looked at of a `BootcNode`'s spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BootcNodeSpec {
    /// The image that it shall run.
    #[serde(default)]
    pub(crate) desired_image: Option<String>,
    /// `Staged` or `Booted`.
    #[serde(default)]
    pub(crate) desired_image_state: String,
    /// The boot for which `Booted` holds.
    #[serde(default)]
    pub(crate) approved_boot: Option<String>,
}

/// What is looked at of a Node's spec.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct NodeSpec {
    /// Cordoned.
    #[serde(default)]
    pub(crate) unschedulable: bool,
}

/// Nothing of a spec.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Nothing {}

/// Tells of every object at `path` as it is now, and of each change of one that is not its end, for
/// ever.
pub(crate) async fn watch<S>(client: Client, path: &str, mut seen: impl FnMut(Object<S>))
where
    S: Clone + Default + DeserializeOwned,
{
    let mut version = "0".to_owned();
    loop {
        // Errors and expired versions alike: from the beginning.
        if follow(&client, path, &mut version, &mut seen)
            .await
            .is_err()
        {
            "0".clone_into(&mut version);
        }
        sleep(PAUSE).await;
    }
}

async fn follow<S>(
    client: &Client,
    path: &str,
    version: &mut String,
    seen: &mut impl FnMut(Object<S>),
) -> anyhow::Result<()>
where
    S: Clone + Default + DeserializeOwned,
{
    let request = Request::new(path).watch(&WatchParams::default(), version)?;
    let mut events = pin!(client.request_events::<Object<S>>(request).await?);
    while let Some(event) = events.next().await {
        match event? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                version.clone_from(&object.metadata.resource_version);
                seen(object);
            }
            WatchEvent::Deleted(_) => {}
            WatchEvent::Bookmark(bookmark) => {
                version.clone_from(&bookmark.metadata.resource_version);
            }
            WatchEvent::Error(status) => anyhow::bail!("{}", status.message),
        }
    }
    Ok(())
}
