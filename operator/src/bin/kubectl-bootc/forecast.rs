//! What another image would do: the operator's own rules, fed with the changed pool.

use std::collections::BTreeSet;

use anyhow::Context as _;
use crd::ImageRef;
use fsm::{
    Command, Image, Input,
    command::{Effect, NodeWrite},
};
use k8s_openapi::api::{core::v1::Pod, policy::v1::PodDisruptionBudget};
use kube::{Api, ResourceExt as _, api::ListParams, core::Selector};
use operator::observe::{time::now, wire::Part};

use crate::{
    cluster::{Cluster, Objects},
    model::{Model, pool_name},
    rows::PoolRow,
};

/// Stands for the digest that only the registry knows.
const UNKNOWN: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// What would happen, a line each.
pub(crate) async fn of(
    cluster: &Cluster,
    pool: &str,
    reference: &str,
    image: &ImageRef,
) -> anyhow::Result<Vec<String>> {
    let before = cluster.objects().await?;
    let mut lines = Vec::new();
    if let Some(unread) = &before.unread {
        anyhow::bail!("{unread}; without Nodes nobody can say what would move");
    }
    let after = changed(&before, pool, reference)?;
    let digest = image.digest().unwrap_or(UNKNOWN);
    let resolved = Input::Resolved {
        pool: pool_name(pool),
        reference: reference.to_owned(),
        result: Ok(digest.to_owned()),
    };
    let more: &[Input] = if image.digest().is_none() {
        &[resolved]
    } else {
        &[]
    };
    let model = Model::with(&after, now(), more);
    let target = Image::new(&image.at(digest)).context("no image")?;
    if image.digest().is_none() {
        lines.push(format!(
            "{reference} is a tag: the operator resolves it; nodes that run its digest already do not move."
        ));
    }
    let all = model.nodes_of(pool);
    let move_now = movers(&model, &all, &target);
    let runs = |node: &&String| {
        let status = after.bootc.get(*node).and_then(|node| node.status.get());
        let booted = status.and_then(|status| status.booted.as_ref());
        booted.is_some_and(|booted| booted.matches(target.digest()))
    };
    let (stay, rest): (Vec<_>, Vec<_>) = all.iter().partition(runs);
    if !stay.is_empty() {
        lines.push(format!(
            "{} of {} nodes run it already: {}",
            stay.len(),
            all.len(),
            list(&stay)
        ));
    }
    if rest.is_empty() {
        lines.push("No node would move.".to_owned());
        return Ok(lines);
    }
    lines.push(format!(
        "{} of {} nodes would stage it and reboot, in this order: {}",
        rest.len(),
        all.len(),
        list(&rest)
    ));
    lines.extend(pace(&model, pool, &move_now, &rest));
    for node in &rest {
        if let Some(line) = hindrance(&model, node, &move_now) {
            lines.push(line);
        }
    }
    lines.extend(budgets(cluster, &rest).await);
    Ok(lines)
}

/// The objects with another image in the pool's spec.
fn changed(before: &Objects, pool: &str, reference: &str) -> anyhow::Result<Objects> {
    let mut after = before.clone();
    let object = after
        .pools
        .get_mut(pool)
        .with_context(|| format!("there is no pool {pool}: kubectl get bnp"))?;
    if let Part::Is(spec) = &mut object.spec {
        reference.clone_into(&mut spec.image.reference);
    }
    object.metadata.generation = object.metadata.generation.map(|it| it + 1);
    Ok(after)
}

/// Those of the nodes that would be told of the image at once. Nodes of other pools may be told of the
/// same one.
fn movers(model: &Model<'_>, nodes: &[String], target: &Image) -> BTreeSet<String> {
    let told = |write: &NodeWrite| write.spec.image.as_ref() == Some(target);
    let moves = |command: &Command| match command {
        Command::Decide(decision) => decision
            .effects
            .iter()
            .any(|effect| match effect {
                Effect::Commit(write) | Effect::Create { write, .. } => told(write),
                _ => false,
            })
            .then(|| decision.node.to_string()),
        _ => None,
    };
    let all = model.commands.iter().filter_map(moves);
    all.filter(|node| nodes.contains(node)).collect()
}

/// How fast it would go.
fn pace(model: &Model<'_>, pool: &str, now: &BTreeSet<String>, rest: &[&String]) -> Vec<String> {
    let mut lines = Vec::new();
    let Some(row) = PoolRow::of(model, pool) else {
        return lines;
    };
    let staging = now.len();
    if staging < rest.len() {
        lines.push(format!(
            "{staging} of them stage at once, the others as there is room."
        ));
    }
    match row.slots_allowed {
        _ if row.paused => lines.push(
            "The pool is paused: they stage, and none reboots until it is resumed.".to_owned(),
        ),
        Some(0) => lines.push(
            "maxUnavailable is 0: they stage, and none reboots until it is raised.".to_owned(),
        ),
        Some(slots) => lines.push(format!(
            "At most {slots} at a time are cordoned, drained and rebooted."
        )),
        None => {}
    }
    if model.sum(pool).is_some_and(fsm::pool::Sum::halted) {
        lines.push(
            "The pool is halted: no further node reboots until its unhealthy ones recover."
                .to_owned(),
        );
    }
    lines
}

/// Why a node would not even begin.
fn hindrance(model: &Model<'_>, node: &str, now: &BTreeSet<String>) -> Option<String> {
    if now.contains(node) {
        return None;
    }
    let wait = model.wait(node)?;
    Some(format!("{node} does not begin at once: {}", wait.message))
}

/// The budgets that would hold up a drain as they stand.
async fn budgets(cluster: &Cluster, nodes: &[&String]) -> Vec<String> {
    match tight_budgets(cluster, nodes).await {
        Ok(lines) => lines,
        Err(error) => vec![format!(
            "(PodDisruptionBudgets are not looked at: {error:#})"
        )],
    }
}

async fn tight_budgets(cluster: &Cluster, nodes: &[&String]) -> anyhow::Result<Vec<String>> {
    let api = Api::<PodDisruptionBudget>::all(cluster.client.clone());
    let all = ListParams::default();
    let budgets = cluster
        .ask("list PodDisruptionBudgets", api.list(&all))
        .await?;
    let mut lines = Vec::new();
    for budget in budgets {
        let allowed = budget
            .status
            .as_ref()
            .map_or(0, |it| it.disruptions_allowed);
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.clone());
        let (Some(selector), Some(namespace), 0) = (selector, budget.namespace(), allowed) else {
            continue;
        };
        let selector = Selector::try_from(selector)?;
        if selector.selects_all() {
            continue;
        }
        let pods = Api::<Pod>::namespaced(cluster.client.clone(), &namespace);
        let params = ListParams::default().labels_from(&selector);
        let pods = cluster.ask("list Pods", pods.list(&params)).await?;
        let on = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let mut there: Vec<String> = pods.iter().filter_map(on).collect();
        there.retain(|node| nodes.contains(&node));
        there.sort();
        there.dedup();
        if !there.is_empty() {
            lines.push(format!(
                "PodDisruptionBudget {namespace}/{} allows 0 disruptions now and would hold up the drain of {}",
                budget.name_any(),
                there.join(", ")
            ));
        }
    }
    Ok(lines)
}

fn list(nodes: &[&String]) -> String {
    let named: Vec<_> = nodes.iter().take(20).map(|name| name.as_str()).collect();
    match nodes.len().saturating_sub(20) {
        0 => named.join(", "),
        more => format!("{}, and {more} more", named.join(", ")),
    }
}
