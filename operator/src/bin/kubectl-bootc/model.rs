//! The rollout as the operator's own rules see it in the objects of the cluster.

use std::collections::BTreeMap;

use crd::Step;
use fsm::{
    Command, Input, NodeName, PoolName, Record, Rollout, State, Timestamp, pool::Sum,
    view::SecretRef,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::watcher::Event;
use operator::observe::{
    Index, Watch, owner,
    wire::{BootcNode, Pool, condition_of},
};

use crate::cluster::Objects;

/// The reason where the operator has not done what follows from the objects.
pub(crate) const OPERATOR: &str = "Operator";

/// The objects, folded.
pub(crate) struct Model<'a> {
    pub(crate) objects: &'a Objects,
    pub(crate) now: Timestamp,
    /// What the operator would ask for now; nothing of it is done.
    pub(crate) commands: Vec<Command>,
    /// `None` where Nodes may not be read: without them every node would be gone.
    rollout: Option<Rollout>,
}

/// Why a node waits, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) since: Option<Timestamp>,
}

impl<'a> Model<'a> {
    /// Folds the objects as they are at `now`.
    pub(crate) fn new(objects: &'a Objects, now: Timestamp) -> Self {
        Self::with(objects, now, &[])
    }

    /// The same with more that the rollout is told.
    pub(crate) fn with(objects: &'a Objects, now: Timestamp, more: &[Input]) -> Self {
        let mut commands = Vec::new();
        let rollout = objects.nodes.as_ref().map(|nodes| {
            let mut rollout = Rollout::new(fsm::Config::default());
            let mut index = Index::default();
            let pools = objects.pools.values().cloned();
            let bootc = objects.bootc.values().cloned();
            let news = listed(pools, Watch::Pool)
                .chain(listed(bootc, Watch::BootcNode))
                .chain(listed(nodes.values().cloned(), Watch::Node));
            for watch in news {
                for input in index.watched(watch) {
                    let secret = secret(&input);
                    commands.extend(rollout.handle(now, input));
                    if let Some(secret) = secret {
                        commands.extend(rollout.handle(now, secret));
                    }
                }
            }
            for input in more {
                commands.extend(rollout.handle(now, input.clone()));
            }
            rollout
        });
        Self {
            objects,
            now,
            commands,
            rollout,
        }
    }

    /// A pool as the sum of its nodes.
    pub(crate) fn sum(&self, pool: &str) -> Option<&Sum> {
        self.rollout.as_ref()?.sum(&pool.into())
    }

    /// The names of a pool's nodes, in order.
    pub(crate) fn nodes_of(&self, pool: &str) -> Vec<String> {
        if let Some(sum) = self.sum(pool) {
            return sum.names().map(ToString::to_string).collect();
        }
        let of =
            |node: &BootcNode| owner(&node.metadata).is_some_and(|it| it.pool.as_str() == pool);
        let all = self.objects.bootc.iter().filter(|(_, node)| of(node));
        all.map(|(name, _)| name.clone()).collect()
    }

    /// The pools that a node belongs to, or that quarrel about it.
    pub(crate) fn pools_of(&self, node: &str) -> Vec<String> {
        let bootc = self.objects.bootc.get(node);
        if let Some(owner) = bootc.and_then(|it| owner(&it.metadata)) {
            return vec![owner.pool.to_string()];
        }
        let claims = |pool: &&String| self.nodes_of(pool).iter().any(|name| name == node);
        self.objects.pools.keys().filter(claims).cloned().collect()
    }

    /// The record of a node, with the hops that need no write.
    pub(crate) fn record(&self, node: &str) -> Option<Record> {
        let name = NodeName::from(node);
        let Some(rollout) = &self.rollout else {
            return self.kept(node);
        };
        let is = rollout.record(&name)?;
        // A drain that this process would have to begin again is under way at the operator's.
        let coming = rollout
            .upcoming(&name)
            .filter(|coming| coming.group() == is.group());
        Some(coming.unwrap_or(is).clone())
    }

    /// The record in the annotation.
    pub(crate) fn kept(&self, node: &str) -> Option<Record> {
        let object = self.objects.bootc.get(node)?;
        let annotations = object.metadata.annotations.as_ref()?;
        serde_json::from_str(annotations.get(crd::names::ANNOTATION_ROLLOUT)?).ok()
    }

    /// Since when a node is in its state, as far as that is kept.
    pub(crate) fn since(&self, node: &str, record: &Record) -> Option<Timestamp> {
        let past = |at: &Timestamp| *at < self.now && *at > Timestamp(0);
        if past(&record.since) {
            return Some(record.since);
        }
        let steps = self
            .steps(node)
            .iter()
            .flat_map(|step| [step.start.as_ref(), step.end.as_ref()])
            .flatten()
            .map(|at| Timestamp(at.0.as_millisecond()));
        let kept = self.kept(node).map(|kept| kept.since);
        steps.chain(kept).filter(past).max()
    }

    /// What the agent of a node did for its last update, by its own clock.
    pub(crate) fn steps(&self, node: &str) -> &'a [Step] {
        let status = self.objects.bootc.get(node).and_then(|it| it.status.get());
        status.map_or(&[], |status| status.steps.as_slice())
    }

    /// What a node waits for. The cause is that of the rules; where the operator has shown the same
    /// one, it knows the evidence.
    pub(crate) fn wait(&self, node: &str) -> Option<Wait> {
        let shown = self.shown(node);
        let Some(rollout) = &self.rollout else {
            return shown;
        };
        let name = NodeName::from(node);
        let group = |record: Option<&Record>| record.map(Record::group);
        let (is, coming) = (rollout.record(&name), rollout.upcoming(&name));
        if is.is_some() && group(is) != group(coming) {
            return Some(Wait {
                reason: OPERATOR.to_owned(),
                message: "waiting for the operator to act on what it sees".to_owned(),
                since: None,
            });
        }
        let on = &rollout.waiting(&name)?.on;
        if let Some(shown) = shown.filter(|shown| shown.reason == on.label()) {
            return Some(shown);
        }
        Some(Wait {
            reason: on.label().to_owned(),
            message: on.to_string(),
            since: None,
        })
    }

    /// The condition Waiting, if it is True.
    fn shown(&self, node: &str) -> Option<Wait> {
        let condition = condition(
            self.objects.bootc.get(node)?,
            crd::names::condition::WAITING,
        )?;
        (condition.status == "True").then(|| Wait {
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            since: Some(operator::observe::time::timestamp(
                &condition.last_transition_time,
            )),
        })
    }

    /// The state of a node, as a word.
    pub(crate) fn state(&self, node: &str) -> String {
        self.record(node)
            .map_or_else(|| "Pending".to_owned(), |record| record.state.to_string())
    }

    /// Does the node run what it shall, hold nothing and wait for nothing?
    pub(crate) fn is_updated(&self, node: &str) -> bool {
        self.record(node)
            .is_some_and(|record| record.state == State::Idle && record.slot.is_none())
            && self.wait(node).is_none()
    }
}

fn listed<W>(
    objects: impl Iterator<Item = W>,
    watch: impl Fn(Event<W>) -> Watch,
) -> impl Iterator<Item = Watch> {
    let all = std::iter::once(Event::Init)
        .chain(objects.map(Event::InitApply))
        .chain([Event::InitDone]);
    all.map(watch)
}

/// Nobody here looks into Secrets: told so, the rules leave alone what they last knew of it.
fn secret(input: &Input) -> Option<Input> {
    let Input::Pool(pool, Some(view)) = input else {
        return None;
    };
    let secret: SecretRef = view.spec.secret.clone()?;
    Some(Input::Secret {
        pool: pool.clone(),
        secret,
        result: Err("not read".to_owned()),
    })
}

/// A condition of a `BootcNode`.
pub(crate) fn condition<'a>(node: &'a BootcNode, kind: &str) -> Option<&'a Condition> {
    condition_of(&node.status.get()?.conditions, kind)
}

/// A condition of a pool.
pub(crate) fn pool_condition<'a>(pool: &'a Pool, kind: &str) -> Option<&'a Condition> {
    condition_of(&pool.status.get()?.conditions, kind)
}

/// Nodes by what they wait for.
pub(crate) fn by_reason(model: &Model<'_>, nodes: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for node in nodes {
        if let Some(wait) = model.wait(node) {
            all.entry(wait.reason).or_default().push(node.clone());
        }
    }
    all
}

/// A pool's name for the rules.
pub(crate) fn pool_name(name: &str) -> PoolName {
    name.into()
}
