//! The one place that writes to Nodes, `BootcNode`s and pools: every request passes here, with its
//! deadline, its turn and its check that this replica may act.

use std::time::Duration;

use crd::names::FIELD_MANAGER_OPERATOR;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    body::Body,
    outcome::{Failure, outcome},
    turns::{Line, Turns},
};
use crate::{
    lease::Fence,
    observe::{Stamp, Target, Written, wire},
    protobuf,
    report::Metrics,
};

/// How long a write may take. The API server gives a webhook ten seconds.
const DEADLINE: Duration = Duration::from_secs(15);

/// Writes to the API server. Cheap to clone; all clones share the bound.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    nodes: Client,
    turns: Turns,
    fence: Fence,
    metrics: Metrics,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("fence", &self.fence)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// A writer that acts only while `fence` lets it.
    #[must_use]
    pub fn new(client: Client, fence: Fence, metrics: Metrics) -> Self {
        Self {
            nodes: protobuf::of_nodes(&client),
            client,
            turns: Turns::new(),
            fence,
            metrics,
        }
    }

    /// Sends one request about `target` when it is its turn in `line`, and hands back the object as it is now. (Nothing for one
    /// that is new or gone: the watch brings that.)
    ///
    /// The body is made when it is this request's turn, and the request's own state too: thousands
    /// of nodes may be in line at once.
    ///
    /// # Errors
    /// `Absent` where there is no body, `NotLeader` where this replica may not act, or what the API
    /// server says.
    pub async fn write(
        &self,
        target: &Target,
        line: Line,
        body: impl FnOnce() -> Option<Body>,
    ) -> Result<Option<Written>, Failure> {
        let _turn = self.turns.next(line).await.ok_or(Failure::NotLeader)?;
        if !self.fence.may_act() {
            return Err(Failure::NotLeader);
        }
        let body = body().ok_or(Failure::Absent)?;
        let result = match timeout(DEADLINE, Box::pin(self.send(target, body))).await {
            Ok(answer) => answer.map_err(Failure::from),
            Err(_) => Err(Failure::Late(DEADLINE)),
        };
        self.metrics.wrote(target, &outcome(&result));
        result
    }

    async fn send(&self, target: &Target, body: Body) -> Result<Option<Written>, kube::Error> {
        match (target, body) {
            (_, Body::Create(object)) => {
                let manager = Some(FIELD_MANAGER_OPERATOR.to_owned());
                let params = PostParams {
                    field_manager: manager,
                    ..PostParams::default()
                };
                let api: Api<crd::BootcNode> = Api::all(self.client.clone());
                api.create(&params, &object).await.map(|_| None)
            }
            (Target::Node(name), body) => {
                let api: Api<wire::Node> = Api::all(self.nodes.clone());
                Ok(change(&api, name.as_str(), body).await?.map(Written::Node))
            }
            (Target::BootcNode(name), body) => {
                let api: Api<wire::BootcNode> = Api::all(self.client.clone());
                Ok(change(&api, name.as_str(), body)
                    .await?
                    .map(Written::BootcNode))
            }
            (Target::Pool(name), body) => {
                let api: Api<wire::Pool> = Api::all(self.client.clone());
                Ok(change(&api, name.as_str(), body).await?.map(Written::Pool))
            }
        }
    }
}

async fn change<W: wire::Watched>(
    api: &Api<W>,
    name: &str,
    body: Body,
) -> Result<Option<W>, kube::Error> {
    let plain = PatchParams {
        field_manager: Some(FIELD_MANAGER_OPERATOR.to_owned()),
        ..PatchParams::default()
    };
    let apply = PatchParams::apply(FIELD_MANAGER_OPERATOR).force();
    let object = match body {
        Body::Merge(patch) => api.patch(name, &plain, &Patch::Merge(patch)).await?,
        Body::Strategic(patch) => api.patch(name, &plain, &Patch::Strategic(patch)).await?,
        Body::ApplyStatus(object) => {
            api.patch_status(name, &apply, &Patch::<Value>::Apply(object))
                .await?
        }
        Body::Delete(stamp) => {
            api.delete(name, &deletion(stamp)).await?;
            return Ok(None);
        }
        Body::Create(_) => return Ok(None),
    };
    Ok(Some(object))
}

fn deletion(stamp: Stamp) -> DeleteParams {
    DeleteParams::background().preconditions(Preconditions {
        uid: Some(stamp.uid),
        resource_version: Some(stamp.version),
    })
}
