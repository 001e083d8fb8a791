//! Work that takes time: begun here, done in tasks, and back as a [`Message`].

use fsm::{
    NodeName, PoolName,
    command::PoolWrite,
    view::{SecretRef, Waiting},
};
use kube::Client;

use super::{Asked, Message, Shell};
use crate::{
    apply::{
        Lane, Line,
        body::{self, Body},
    },
    observe::{Stamp, Target},
    registry::Resolver,
    report::status,
    secrets,
};

impl Shell {
    /// Lets a lane go on: a drain's effects are taken here, writes elsewhere.
    pub(super) fn go_on(&mut self, mut lane: Lane) {
        while let Some(effect) = lane.take_drain() {
            self.drain(&lane.node.clone(), &effect);
        }
        let (writer, outbox) = (self.writer.clone(), self.outbox.clone());
        self.tasks.spawn(async move {
            let told = |effected| {
                // Nobody listens only when the shell is gone, and this task with it.
                let _ = outbox.send(Message::Effected(effected));
            };
            let step = lane.advance(&writer, told).await;
            let _ = outbox.send(Message::Lane(step));
        });
    }

    /// Writes to a pool.
    pub(super) fn write_pool(&mut self, pool: PoolName, write: u64, what: &PoolWrite) {
        let stamp = self.index.stamp(&Target::Pool(pool.clone()));
        let body = stamp.as_ref().map(|stamp| match what {
            PoolWrite::AddFinalizer => body::finalizer(stamp, self.index.finalizers(&pool), true),
            PoolWrite::RemoveFinalizer => {
                body::finalizer(stamp, self.index.finalizers(&pool), false)
            }
            PoolWrite::Status(shown) => status::pool(&pool, stamp, shown),
        });
        self.write(Asked::Pool { pool, write }, stamp, || body);
    }

    /// Writes what a node waits for.
    pub(super) fn write_waiting(&mut self, node: NodeName, waiting: Waiting) {
        let stamp = self.index.stamp(&Target::BootcNode(node.clone()));
        let (name, of) = (node.clone(), stamp.clone());
        let body = move || of.map(|of| status::waiting(&name, &of, &waiting));
        self.write(Asked::Waiting(node), stamp, body);
    }

    /// These come at a pace, so they need not wait behind all nodes that are to stage.
    fn write(
        &mut self,
        asked: Asked,
        stamp: Option<Stamp>,
        body: impl FnOnce() -> Option<Body> + Send + 'static,
    ) {
        let (writer, outbox) = (self.writer.clone(), self.outbox.clone());
        self.tasks.spawn(async move {
            let result = writer.write(&asked.target(), Line::First, body).await;
            let stamp = stamp.unwrap_or_default();
            let _ = outbox.send(Message::Written(asked, stamp, result));
        });
    }

    /// Asks a registry.
    pub(super) fn resolve(&mut self, pool: PoolName, reference: String, secret: Option<SecretRef>) {
        let (client, resolver) = (self.client.clone(), self.resolver.clone());
        let outbox = self.outbox.clone();
        self.tasks.spawn(async move {
            let result = resolve(&client, &resolver, &reference, secret.as_ref()).await;
            let _ = outbox.send(Message::Resolved {
                pool,
                reference,
                result,
            });
        });
    }
}

/// The credentials are fetched for this one question and kept nowhere.
async fn resolve(
    client: &Client,
    resolver: &Resolver,
    reference: &str,
    secret: Option<&SecretRef>,
) -> Result<String, String> {
    let logins = match secret {
        Some(secret) => Some(
            secrets::fetch(client, secret)
                .await
                .map_err(|error| error.to_string())?,
        ),
        None => None,
    };
    let digest = resolver.resolve(reference, logins.as_ref()).await;
    digest.map_err(|error| error.to_string())
}
