//! Nodes that are Ready one moment and not the next: a switch that is failing, say. The rollout takes
//! those that are there, and what comes and goes costs no writes.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use api_tests::{Account, Fleet, Suite, fleet::B};
use bed::control_plane::AuditEvent;
use futures::future::try_join_all;
use libtest_mimic::Trial;
use serde_json::json;
use tokio::time::sleep;

const NODES: usize = 50;
const SLOTS: usize = 5;
/// How often all nodes have gone and come.
const FLAPS: usize = 12;
/// How long they are there, or gone.
const PAUSE: Duration = Duration::from_millis(400);
/// Writes to a node's objects per update, at most.
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
    let writes = asked.iter().filter(|event| is_write_to_node(event)).count();
    ensure!(
        (1..=WRITES * NODES).contains(&writes),
        "{writes} writes to {NODES} nodes"
    );
    fleet.view().await?.pool_is("Degraded=False/OK")?;
    fleet.finish().await?;
    suite.operator.stop().await
}

/// A decision, a cordon or its end; not what a node waits for.
fn is_write_to_node(event: &AuditEvent) -> bool {
    let target = event.object_ref.clone().unwrap_or_default();
    let is_node = ["nodes", "bootcnodes"].contains(&target.resource.as_str());
    is_node && target.subresource.is_empty() && event.verb == "patch"
}
