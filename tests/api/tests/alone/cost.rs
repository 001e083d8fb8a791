//! What the operator asks of the API server, by the server's own audit log.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use api_tests::{
    Account, Fleet, Suite,
    fleet::{A, B, Boot, C},
};
use bed::control_plane::AuditEvent;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::time::sleep;

/// Writes to a node's objects per update, at most.
const WRITES: usize = 6;
/// Requests for each pod that nothing blocks, at most.
const PER_POD: usize = 2;

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial(
            "cost::an_update_of_twenty_nodes_keeps_to_its_budget",
            update,
        ),
        suite.trial("cost::a_steady_cluster_is_left_alone_for_a_minute", steady),
    ]
}

/// A request for an object, in short; watches are counted apart, since they are noted at their end.
fn line(event: &AuditEvent) -> String {
    let code = event.code().unwrap_or_default();
    format!("{} {} {code}", event.verb, event.request_uri)
}

pub(crate) fn lines<'a>(events: impl IntoIterator<Item = &'a AuditEvent>) -> Vec<String> {
    events.into_iter().map(line).collect()
}

fn is_write(event: &AuditEvent) -> bool {
    matches!(
        event.verb.as_str(),
        "create" | "update" | "patch" | "delete" | "deletecollection"
    )
}

/// `resource` or `resource/subresource`, and the name.
fn target(event: &AuditEvent) -> (String, String) {
    let Some(object) = &event.object_ref else {
        return (String::new(), String::new());
    };
    let resource = [object.resource.as_str(), object.subresource.as_str()];
    let resource = resource.into_iter().filter(|part| !part.is_empty());
    (resource.collect::<Vec<_>>().join("/"), object.name.clone())
}

/// The operator's requests since there were `before` of them.
async fn since(suite: &Suite, before: usize) -> Result<Vec<AuditEvent>> {
    // The last one may still be on its way into the log.
    sleep(Duration::from_secs(1)).await;
    Ok(suite
        .asked_by(Account::OPERATOR)?
        .into_iter()
        .skip(before)
        .collect())
}

async fn update(suite: Arc<Suite>) -> Result<()> {
    suite.operator.start(&suite).await?;
    let rollout = json!({ "maxUnavailable": 5 });
    let fleet = Fleet::settled(&suite, "twenty", 20, rollout).await?;
    for image in [B, C] {
        let before = suite.asked_by(Account::OPERATOR)?.len();
        fleet.want(image).await?;
        fleet.until_updated(image).await?;
        within_budget(&since(&suite, before).await?)?;
    }
    fleet.rebooted(&[2; 20])?;
    fleet.used_slots(..=5)?;
    fleet.finish().await?;
    suite.operator.stop().await
}

fn within_budget(events: &[AuditEvent]) -> Result<()> {
    ensure!(!events.is_empty(), "nothing is in the audit log");
    let mut nodes: BTreeMap<String, Vec<&AuditEvent>> = BTreeMap::new();
    let (mut lists, mut watches, mut status) = (Vec::new(), Vec::new(), Vec::new());
    let mut evictions: BTreeMap<String, usize> = BTreeMap::new();
    for event in events {
        match (event.verb.as_str(), target(event)) {
            ("list", (resource, _)) if resource == "pods" => lists.push(pods_of(event)?),
            ("watch", (resource, _)) if resource == "pods" => watches.push(pods_of(event)?),
            ("list", _) => anyhow::bail!("a list after the start: {}", line(event)),
            (_, (resource, pod)) if resource == "pods/eviction" => {
                *evictions.entry(pod).or_default() += 1;
            }
            (_, (resource, _)) if resource == "bootcnodepools/status" => status.push(event),
            _ if !is_write(event) => {}
            // Waiting.
            (_, (resource, _)) if resource == "bootcnodes/status" => {}
            (_, (resource, name)) if resource == "nodes" || resource == "bootcnodes" => {
                nodes.entry(name).or_default().push(event);
            }
            (_, (resource, _)) if resource == "leases" || resource == "events" => {}
            _ => anyhow::bail!("an unexpected write: {}", line(event)),
        }
    }
    ensure!(nodes.len() == 20, "writes to {} nodes", nodes.len());
    for (node, writes) in &nodes {
        ensure!(
            writes.len() <= WRITES,
            "{node}: {:#?}",
            lines(writes.iter().copied())
        );
        let of_node = |all: &[String]| all.iter().filter(|of| *of == node).count();
        // A watch is noted at its end, which may be later than this.
        let (lists, watches) = (of_node(&lists), of_node(&watches));
        ensure!(
            lists == 2 && watches <= 1,
            "{lists} lists and {watches} watches of the pods of {node}"
        );
    }
    let refused = events
        .iter()
        .filter(|event| is_write(event) && event.code().is_none_or(|code| code >= 400));
    let refused = lines(refused);
    ensure!(refused.is_empty(), "refused: {refused:#?}");
    let too_often = evictions.iter().find(|(_, count)| **count > PER_POD);
    ensure!(too_often.is_none(), "evictions: {too_often:?}");
    seldom(&status)
}

/// The node whose pods are listed or watched.
fn pods_of(event: &AuditEvent) -> Result<String> {
    let node = event.request_uri.split("spec.nodeName%3D").nth(1);
    let node = node.context("a list of all pods")?.split('&').next();
    Ok(node.unwrap_or_default().to_owned())
}

/// At most one a second, apart from those that change a condition's status or reason.
fn seldom(writes: &[&AuditEvent]) -> Result<()> {
    ensure!(writes.len() > 2, "{} writes of the status", writes.len());
    let mut urgent = 0;
    for pair in writes.windows(2) {
        let [before, now] = pair else { continue };
        if conditions(before)? != conditions(now)? {
            urgent += 1;
            continue;
        }
        let gap = now.request_received.duration_since(before.request_received);
        // Both ends are cut to milliseconds.
        ensure!(
            gap.as_millis() >= 999,
            "two writes of the status within {gap:?}: {} and {}",
            before.request_object,
            now.request_object
        );
    }
    // That the rollout began, and that it is over.
    ensure!(urgent <= 2, "{urgent} changes of a condition");
    Ok(())
}

/// Type, status and reason of the conditions that are written.
fn conditions(event: &AuditEvent) -> Result<Vec<String>> {
    let all = event.request_object["status"]["conditions"].as_array();
    let all = all.with_context(|| format!("no conditions in {}", event.request_object))?;
    let key = |it: &Value| format!("{}={}/{}", it["type"], it["status"], it["reason"]);
    Ok(all.iter().map(key).collect())
}

/// The Lease apart, and watches that are opened anew.
async fn steady(suite: Arc<Suite>) -> Result<()> {
    suite.operator.start(&suite).await?;
    let fleet = Fleet::settled(&suite, "calm", 3, json!({})).await?;
    fleet.want(B).await?;
    fleet.until_updated(B).await?;
    // One that waits, and one that is not well: these are steady too.
    let waits = Fleet::settled(&suite, "waits", 2, json!({})).await?;
    waits.plan(1, |plan| plan.boot = Boot::FallBack);
    waits.want_staged(B).await?;
    waits
        .until("a fall-back is told", |view| {
            view.pool_is("Degraded=True/NodeDegraded")?;
            let waiting = view.node_condition("waits-2", "Waiting")?;
            ensure!(waiting.status == "True", "{view}");
            let waiting = view.node_condition("waits-1", "Waiting")?;
            ensure!(waiting.status == "True", "{view}");
            Ok(())
        })
        .await?;
    sleep(Duration::from_secs(2)).await;
    let before = suite.asked_by(Account::OPERATOR)?.len();
    sleep(Duration::from_secs(60)).await;
    let asked = since(&suite, before).await?;
    let (renewals, rest): (Vec<_>, Vec<_>) =
        asked.iter().partition(|event| target(event).0 == "leases");
    ensure!(!renewals.is_empty(), "the Lease is not renewed");
    let rest: Vec<_> = rest
        .into_iter()
        .filter(|event| event.verb != "watch")
        .collect();
    ensure!(rest.is_empty(), "{:#?}", lines(rest));
    waits.plan_all(|plan| plan.boot = Boot::Go);
    waits.want(A).await?;
    waits.until_updated(A).await?;
    waits.finish().await?;
    fleet.finish().await?;
    suite.operator.stop().await
}
