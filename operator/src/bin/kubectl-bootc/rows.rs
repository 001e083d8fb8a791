//! What is told of a pool and of a node: one shape for tables, JSON and YAML.

use crd::{BootcNodeStatus, ImageInfo, names};
use fsm::{State, Timestamp, image::short};
use operator::observe::{owner, time::rfc3339, wire::NodeCondition};
use serde::Serialize;

use crate::{
    model::{Model, OPERATOR, condition, pool_condition},
    output::Colour,
};

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PoolRow {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) target_digest: Option<String>,
    pub(crate) deployed_digest: Option<String>,
    pub(crate) nodes: usize,
    pub(crate) updated: usize,
    pub(crate) degraded: usize,
    pub(crate) slots_used: Option<usize>,
    pub(crate) slots_allowed: Option<usize>,
    pub(crate) paused: bool,
    pub(crate) up_to_date: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) problem: Option<Problem>,
    pub(crate) since: Option<String>,
    #[serde(skip)]
    pub(crate) since_at: Option<Timestamp>,
}

/// What is wrong with a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeRow {
    pub(crate) name: String,
    pub(crate) pool: Option<String>,
    pub(crate) state: String,
    pub(crate) since: Option<String>,
    #[serde(skip)]
    pub(crate) since_at: Option<Timestamp>,
    pub(crate) wanted: Option<String>,
    pub(crate) booted: Option<Image>,
    pub(crate) staged: Option<Image>,
    pub(crate) rollback: Option<Image>,
    pub(crate) in_slot: bool,
    pub(crate) ready: Option<bool>,
    pub(crate) cordoned: Option<bool>,
    pub(crate) updated: bool,
    pub(crate) waiting: Option<Waiting>,
    pub(crate) progress: Option<String>,
    pub(crate) degraded: Option<String>,
}

/// What a node waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Waiting {
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) since: Option<String>,
}

/// An image on a host.
#[expect(clippy::struct_field_names, reason = "as in the API")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Image {
    pub(crate) version: Option<String>,
    pub(crate) digest: String,
    pub(crate) image: String,
}

impl Image {
    fn of(info: &ImageInfo) -> Self {
        Self {
            version: info.version.clone(),
            digest: info.image_digest.clone(),
            image: info.image.clone(),
        }
    }

    /// Its version, or the head of its digest where it has none.
    pub(crate) fn text(&self) -> String {
        let digest = short(&self.digest);
        let digest = digest.strip_prefix("sha256:").unwrap_or(digest);
        self.version.clone().unwrap_or_else(|| digest.to_owned())
    }
}

impl PoolRow {
    /// Of one pool.
    pub(crate) fn of(model: &Model<'_>, name: &str) -> Option<Self> {
        let pool = model.objects.pools.get(name)?;
        let spec = pool.spec.get();
        let status = pool.status.get().cloned().unwrap_or_default();
        let up_to_date = pool_condition(pool, names::condition::UP_TO_DATE);
        let degraded = pool_condition(pool, names::condition::DEGRADED);
        let sum = model.sum(name);
        let max = spec.and_then(|spec| {
            crd::Amount::try_from(&spec.rollout.max_unavailable)
                .ok()
                .map(amount)
        });
        let counted = |count: i64| usize::try_from(count).unwrap_or_default();
        // A condition of an older spec says nothing of this one.
        let current = status.observed_generation == pool.metadata.generation;
        let since_at =
            up_to_date.map(|it| operator::observe::time::timestamp(&it.last_transition_time));
        Some(Self {
            name: name.to_owned(),
            image: spec
                .map(|spec| spec.image.reference.clone())
                .unwrap_or_default(),
            target_digest: status.target_digest,
            deployed_digest: status.deployed_digest,
            nodes: counted(status.node_count),
            updated: counted(status.updated_count),
            degraded: counted(status.degraded_count),
            slots_used: sum.map(|sum| sum.holders.len()),
            slots_allowed: sum.zip(max).map(|(sum, max)| sum.slots(max)),
            paused: spec.is_some_and(|spec| spec.rollout.paused),
            up_to_date: current && up_to_date.is_some_and(|it| it.status == "True"),
            reason: up_to_date
                .filter(|_| current)
                .map_or_else(|| OPERATOR.to_owned(), |it| it.reason.clone()),
            message: if current {
                up_to_date.map(|it| it.message.clone()).unwrap_or_default()
            } else {
                "the operator has not looked at the newest spec yet".to_owned()
            },
            problem: degraded.filter(|it| it.status == "True").map(|it| Problem {
                reason: it.reason.clone(),
                message: it.message.clone(),
            }),
            since: since_at.map(rfc3339),
            since_at,
        })
    }

    /// Is every node as it should be, and the pool sound?
    pub(crate) fn is_good(&self) -> bool {
        self.up_to_date && self.problem.is_none()
    }
}

fn amount(amount: crd::Amount) -> fsm::view::Amount {
    match amount {
        crd::Amount::Count(count) => fsm::view::Amount::Count(count),
        crd::Amount::Percent(percent) => fsm::view::Amount::Percent(percent.into()),
    }
}

impl NodeRow {
    /// Of one node.
    pub(crate) fn of(model: &Model<'_>, name: &str) -> Self {
        let bootc = model.objects.bootc.get(name);
        let record = model.record(name);
        let since_at = record.as_ref().and_then(|record| model.since(name, record));
        let status: Option<&BootcNodeStatus> = bootc.and_then(|node| node.status.get());
        let image = |info: Option<&ImageInfo>| info.map(Image::of);
        let node = model
            .objects
            .nodes
            .as_ref()
            .and_then(|nodes| nodes.get(name));
        let owner = bootc.and_then(|it| owner(&it.metadata));
        let pool = owner.map(|owner| owner.pool.to_string());
        let said = |kind| bootc.and_then(|node| condition(node, kind));
        let idle = said(names::condition::IDLE);
        Self {
            name: name.to_owned(),
            pool: pool.or_else(|| model.pools_of(name).first().cloned()),
            state: model.state(name),
            since: since_at.map(rfc3339),
            since_at,
            wanted: bootc
                .and_then(|node| node.spec.get())
                .and_then(|spec| spec.desired_image.clone()),
            booted: image(status.and_then(|it| it.booted.as_ref())),
            staged: image(status.and_then(|it| it.staged.as_ref())),
            rollback: image(status.and_then(|it| it.rollback.as_ref())),
            in_slot: record.as_ref().is_some_and(|record| record.slot.is_some()),
            ready: node
                .and_then(|node| node.status.ready())
                .map(NodeCondition::holds),
            cordoned: node.map(|node| node.spec.unschedulable),
            updated: model.is_updated(name),
            waiting: model.wait(name).map(|wait| Waiting {
                reason: wait.reason,
                message: wait.message,
                since: wait.since.map(rfc3339),
            }),
            progress: idle
                .filter(|it| it.reason == names::node_reason::STAGING)
                .map(|it| it.message.clone())
                .filter(|message| !message.is_empty()),
            degraded: said(names::condition::DEGRADED)
                .filter(|it| it.status == "True")
                .map(|it| it.message.clone()),
        }
    }

    /// What is said of its waiting in a line: the host's own words on its progress first.
    pub(crate) fn note(&self) -> String {
        match (&self.progress, &self.waiting) {
            (Some(progress), Some(wait)) if wait.reason == "Staging" => progress.clone(),
            (_, Some(wait)) => wait.message.clone(),
            (_, None) => String::new(),
        }
    }

    /// The colour of its state.
    pub(crate) fn colour(&self) -> Colour {
        if self.degraded.is_some() {
            return Colour::Bad;
        }
        let state = State::ALL
            .into_iter()
            .find(|it| it.to_string() == self.state);
        match state {
            Some(_) if self.updated => Colour::Good,
            Some(state) => colour(state),
            None => Colour::Dim,
        }
    }
}

/// A phase has one colour wherever it is shown.
pub(crate) fn colour(state: State) -> Colour {
    match state {
        State::Idle | State::Leaving => Colour::Dim,
        State::Staging => Colour::Busy,
        State::Staged => Colour::Calm,
        State::Cordoned => Colour::Mark,
        State::Draining => Colour::Warn,
        State::Rebooting => Colour::Bad,
        State::Verifying => Colour::Good,
    }
}
