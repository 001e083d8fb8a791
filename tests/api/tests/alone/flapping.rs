//! Nodes that are Ready one moment and not the next: a switch that is failing, say. The rollout takes
//! those that are there, and what comes and goes costs no writes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use api_tests::{Account, Fleet, Suite, fleet::B};
use bed::control_plane::AuditEvent;
use futures::future::try_join_all;
use libtest_mimic::Trial;
use serde_json::json;
use tokio::time::sleep;

use crate::cost::lines;

const NODES: usize = 50;
const SLOTS: usize = 5;
/// How often all nodes have gone and come.
const FLAPS: usize = 12;
/// How long they are there, or gone.
const PAUSE: Duration = Duration::from_millis(400);
/// How often each node changes meanwhile; a write may meet each change, and is decided again then.
const CHANGES: usize = 2 * FLAPS.div_ceil(3);
/// Writes to a node's objects per update that the API server takes, at most.
const WRITES: usize = 6;

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![suite.trial(
        "flapping::fifty_nodes_that_come_and_go_are_updated_once",
        fifty,
    )]
}

async fn fifty(suite: Arc<Suite>) -> Result<()> {
    suite.operator.start(&suite).await?;
    let rollout = json!({ "maxUnavailable": SLOTS });
    let fleet = Fleet::settled(&suite, "flapping", NODES, rollout).await?;
    let before = suite.asked_by(Account::OPERATOR)?.len();
    fleet.want(B).await?;
    for flap in 0..FLAPS {
        for is_ready in [false, true] {
            // Every third node each time, another third the next: most of a slot's holders are hit.
            let all = (1..=NODES).filter(|n| n % 3 == flap % 3);
            try_join_all(all.map(|n| fleet.node_ready(n, is_ready))).await?;
            sleep(PAUSE).await;
        }
    }
    fleet.until_updated(B).await?;
    fleet.rebooted(&[1; NODES])?;
    fleet.used_slots(..=SLOTS)?;
    sleep(Duration::from_secs(1)).await;
    let asked = suite.asked_by(Account::OPERATOR)?.split_off(before);
    within_budget(&asked)?;
    fleet.view().await?.pool_is("Degraded=False/OK")?;
    fleet.finish().await?;
    suite.operator.stop().await
}

fn within_budget(asked: &[AuditEvent]) -> Result<()> {
    let mut nodes: BTreeMap<&str, Vec<&AuditEvent>> = BTreeMap::new();
    for event in asked {
        if let Some(name) = written(event) {
            nodes.entry(name).or_default().push(event);
        }
    }
    ensure!(nodes.len() == NODES, "writes to {} nodes", nodes.len());
    for (node, writes) in &nodes {
        let lost = writes.iter().filter(|event| is_conflict(event)).count();
        ensure!(
            lost <= CHANGES && writes.len() - lost <= WRITES,
            "{node}: {:#?}",
            lines(writes.iter().copied())
        );
    }
    Ok(())
}

/// Of a decision, a cordon or its end, the object's name; not of what a node waits for.
fn written(event: &AuditEvent) -> Option<&str> {
    let target = event.object_ref.as_ref()?;
    let is_node = ["nodes", "bootcnodes"].contains(&target.resource.as_str());
    let is_written = is_node && target.subresource.is_empty() && event.verb == "patch";
    is_written.then_some(target.name.as_str())
}

/// Decided on a Node that has changed since: nothing was written.
fn is_conflict(event: &AuditEvent) -> bool {
    event.code() == Some(409)
}
