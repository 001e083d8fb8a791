//! A pool's status: counts, the two conditions, and when they are written.

use std::collections::BTreeSet;

use super::{
    Rollout,
    entry::{Pool, Secret},
    nodes::earliest,
};
use crate::{
    command::PoolWrite,
    names::{NodeName, PoolName},
    pool::{Bucket, Sum},
    time::{Seconds, Timestamp},
    view::{Condition, ImageRef, PoolStatus, PoolView},
};

/// Nodes named in one message.
const NAMED: usize = 10;
/// A pool's status is written at most so often, unless a condition changes.
const PERIOD: Seconds = Seconds(1);

impl Rollout {
    /// The status to be written now. One that may be written later sets the timer.
    pub(super) fn status_due(
        &self,
        name: &PoolName,
        wake: &mut Option<Timestamp>,
    ) -> Option<PoolWrite> {
        let pool = self
            .pools
            .get(name)
            .filter(|pool| pool.secret() != Secret::Unseen)?;
        let status = status(pool, pool.view.as_ref()?, self.now);
        if pool.shown.as_ref() == Some(&status) {
            return None;
        }
        let next = pool
            .written
            .map(|written| written + PERIOD)
            .filter(|next| *next > self.now);
        if let Some(next) = next.filter(|_| !is_urgent(pool.shown.as_ref(), &status)) {
            earliest(wake, Some(next));
            return None;
        }
        Some(PoolWrite::Status(Box::new(status)))
    }
}

/// Has a condition another status or reason? Messages and counts can wait.
fn is_urgent(shown: Option<&PoolStatus>, status: &PoolStatus) -> bool {
    let key = |condition: Option<&Condition>| condition.map(|it| (it.status, it.reason.clone()));
    shown.is_none_or(|shown| {
        key(shown.up_to_date.as_ref()) != key(status.up_to_date.as_ref())
            || key(shown.is_degraded.as_ref()) != key(status.is_degraded.as_ref())
    })
}

/// What the status of a pool shall be.
fn status(pool: &Pool, view: &PoolView, now: Timestamp) -> PoolStatus {
    let sum = &pool.sum;
    let shown = pool.shown.clone().unwrap_or_default();
    let target = pool.target().map(|image| image.digest().to_owned());
    let nodes = sum.nodes();
    let updated = if target.is_some() {
        sum.count(Bucket::Updated)
    } else {
        0
    };
    let all = target.is_some() && updated == nodes;
    let deployed = if all {
        target.clone()
    } else {
        shown.deployed_digest
    };
    let up_to_date = up_to_date(pool, view, target.is_some(), all);
    let (degraded, message) = degraded(pool, view);
    let since = |old: Option<Condition>, status: Option<bool>| {
        old.filter(|old| old.status == status)
            .map_or(now.whole_seconds(), |old| old.since)
    };
    PoolStatus {
        observed_generation: Some(view.generation),
        update_available: target.is_some() && target != deployed,
        target_digest: target,
        deployed_digest: deployed,
        next_tag_resolution: next_resolution(pool),
        nodes,
        updated,
        updating: sum.updating(),
        degraded: sum.count(Bucket::Degraded),
        up_to_date: Some(Condition {
            since: since(shown.up_to_date, up_to_date.0),
            status: up_to_date.0,
            reason: up_to_date.1.to_owned(),
            message: up_to_date.2,
        }),
        is_degraded: Some(Condition {
            since: since(shown.is_degraded, Some(degraded != "OK")),
            status: Some(degraded != "OK"),
            reason: degraded.to_owned(),
            message,
        }),
    }
}

/// Only of a tag that is known: a retry after a failure is no promise to the reader.
fn next_resolution(pool: &Pool) -> Option<Timestamp> {
    let known = pool.resolution.as_ref()?;
    match &known.error {
        None if known.digest.is_some() => Some(known.next.whole_seconds()),
        _ => None,
    }
}

fn up_to_date(
    pool: &Pool,
    view: &PoolView,
    known: bool,
    all: bool,
) -> (Option<bool>, &'static str, String) {
    let spec = &view.spec;
    let sum = &pool.sum;
    if !known {
        let message = match (&spec.image, &spec.invalid) {
            (ImageRef::Tag { reference, .. }, None) => {
                format!("the digest of {reference} is not known yet")
            }
            _ => "the spec names no image that could be followed".to_owned(),
        };
        return (None, "TargetUnknown", message);
    }
    if all {
        return (Some(true), "AllUpdated", String::new());
    }
    let message = breakdown(sum);
    if spec.paused {
        return (Some(false), "Paused", message);
    }
    if sum.slots(spec.max_unavailable) == 0 {
        let message = format!("{message}; maxUnavailable is 0, so no node is rebooted");
        return (Some(false), "Paused", message);
    }
    (Some(false), "RolloutInProgress", message)
}

/// `5/10 updated; 2 staging, 2 staged, 1 draining; w1 waiting for pod shop/a: …`
fn breakdown(sum: &Sum) -> String {
    let rest: Vec<String> = Bucket::ALL
        .into_iter()
        .filter(|(bucket, _)| bucket.is_to_do())
        .map(|(bucket, name)| (sum.count(bucket), name))
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    let updated = sum.count(Bucket::Updated);
    let counted = format!("{updated}/{} updated; {}", sum.nodes(), rest.join(", "));
    match drains(sum) {
        None => counted,
        Some(waits) => format!("{counted}; {waits}"),
    }
}

/// Drains that wait, each as its node's condition Waiting names it.
fn drains(sum: &Sum) -> Option<String> {
    let named = sum
        .drain_waits
        .iter()
        .map(|(node, waits)| format!("{node} {waits}"));
    (!sum.drain_waits.is_empty()).then(|| limited(named, sum.drain_waits.len(), "; "))
}

/// Each reason of Degraded=True with its text if it applies, the most urgent first.
pub(super) fn problems(pool: &Pool, view: &PoolView) -> [(&'static str, Option<String>); 6] {
    [
        ("InvalidSpec", invalid(view)),
        ("TagResolutionError", unresolved(pool)),
        ("SecretError", bad_secret(pool)),
        ("RolloutHalted", halted(&pool.sum)),
        ("NodeConflict", conflicts(&pool.sum)),
        ("NodeDegraded", node_problems(&pool.sum)),
    ]
}

/// The most urgent reason, and a message that names every problem.
fn degraded(pool: &Pool, view: &PoolView) -> (&'static str, String) {
    let problems: Vec<(&str, String)> = problems(pool, view)
        .into_iter()
        .filter_map(|(reason, text)| Some((reason, text?)))
        .collect();
    let Some((reason, _)) = problems.first() else {
        return ("OK", String::new());
    };
    let texts: Vec<String> = problems.iter().map(|(_, text)| text.clone()).collect();
    (reason, texts.join(" | "))
}

fn invalid(view: &PoolView) -> Option<String> {
    let reference = match &view.spec.image {
        ImageRef::Invalid(why) => Some(format!("spec.image.ref: {why}")),
        _ => None,
    };
    let all: Vec<String> = reference
        .into_iter()
        .chain(view.spec.invalid.clone())
        .collect();
    (!all.is_empty()).then(|| all.join("; "))
}

fn unresolved(pool: &Pool) -> Option<String> {
    let known = pool.resolution.as_ref()?;
    let error = known.error.as_ref()?;
    Some(format!("{}: {error}", known.reference))
}

fn bad_secret(pool: &Pool) -> Option<String> {
    match pool.secret() {
        Secret::Seen(secret, Err(why)) => Some(format!(
            "pull secret {}/{}: {why}",
            secret.namespace, secret.name
        )),
        _ => None,
    }
}

fn halted(sum: &Sum) -> Option<String> {
    sum.halted().then(|| {
        let named = sum
            .unhealthy
            .iter()
            .map(|(node, why)| format!("{node}: {why}"));
        format!(
            "{} of {} nodes in reboot slots are unhealthy ({})",
            sum.unhealthy.len(),
            sum.holders.len(),
            limited(named, sum.unhealthy.len(), ", ")
        )
    })
}

fn conflicts(sum: &Sum) -> Option<String> {
    let pools = |pools: &BTreeSet<PoolName>| {
        pools
            .iter()
            .map(PoolName::as_str)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let named = sum
        .contested
        .iter()
        .map(|(node, rivals)| format!("{node}: also selected by {}", pools(rivals)));
    (!sum.contested.is_empty()).then(|| limited(named, sum.contested.len(), "; "))
}

fn node_problems(sum: &Sum) -> Option<String> {
    let named = sum
        .problems
        .iter()
        .map(|(node, text): (&NodeName, _)| format!("{node}: {text}"));
    (!sum.problems.is_empty()).then(|| limited(named, sum.problems.len(), "; "))
}

fn limited(all: impl Iterator<Item = String>, count: usize, between: &str) -> String {
    let named = all.take(NAMED).collect::<Vec<_>>().join(between);
    match count.saturating_sub(NAMED) {
        0 => named,
        more => format!("{named}{between}and {more} more"),
    }
}
