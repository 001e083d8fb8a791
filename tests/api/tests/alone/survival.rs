//! What the operator survives: being killed at any moment, and another one beside it.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use api_tests::{
    Account, Fleet, Suite,
    fleet::{A, B, C, digest},
    gate::gated,
    operator::{Operator, Options},
    wait,
};
use k8s_openapi::jiff::Timestamp;
use libtest_mimic::Trial;
use serde_json::json;
use tokio::time::sleep;

/// A clean handover takes no longer.
const HANDOVER: Duration = Duration::from_secs(2);
/// Nor does a takeover after a kill.
const TAKEOVER: Duration = Duration::from_secs(20);

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial("survival::killed_again_and_again_it_loses_nothing", killed),
        suite.trial("survival::a_stale_operators_writes_are_refused", stale),
        suite.trial("survival::a_standby_takes_over_in_time", takeover),
    ]
}

/// Each life is a little longer than the one before, so that it ends somewhere else. There is no
/// Lease to be waited for: whatever the last one left half done, the next one finds at once.
async fn killed(suite: Arc<Suite>) -> Result<()> {
    let client = suite.client_of(Account::OPERATOR, None).await?;
    suite
        .operator
        .start_with(client.clone(), Options::UNELECTED)
        .await?;
    let rollout = json!({ "maxUnavailable": 2 });
    let fleet = Fleet::settled(&suite, "killed-often", 6, rollout).await?;
    let mut kills = 0;
    for image in [B, C] {
        fleet.want(image).await?;
        for life in 1..=25 {
            sleep(Duration::from_millis(40 * life)).await;
            suite.operator.check().await?;
            suite.operator.kill().await?;
            suite
                .operator
                .start_with(client.clone(), Options::UNELECTED)
                .await?;
            kills += 1;
            let view = fleet.view().await?;
            if view.runs(&digest(image)) {
                break;
            }
        }
        fleet.until_updated(image).await?;
    }
    ensure!(kills >= 10, "killed {kills} times only");
    fleet.rebooted(&[2; 6])?;
    fleet.used_slots(..=2)?;
    fleet.view().await?.pool_is("Degraded=False/OK")?;
    fleet.finish().await?;
    suite.operator.stop().await
}

/// One decides, its writes are held up, the other one does the whole rollout, and then the writes
/// arrive. (Neither asks the Lease, or there would not be two.)
async fn stale(suite: Arc<Suite>) -> Result<()> {
    let (client, gate) = gated(&suite.client_of(Account::OPERATOR, None).await?);
    suite
        .operator
        .start_with(client, Options::UNELECTED)
        .await?;
    let fleet = Fleet::settled(&suite, "stale", 3, json!({})).await?;
    gate.close();
    fleet.want(B).await?;
    wait::until("the first one wants to write", || async {
        let held = gate.held();
        let nodes = held
            .iter()
            .filter(|(line, _)| line.contains("/bootcnodes/stale-"));
        (nodes.count() == 3)
            .then_some(())
            .with_context(|| format!("{held:?}"))
    })
    .await?;
    let second = Operator::default();
    let client = suite.client_of(Account::OPERATOR, None).await?;
    second.start_with(client, Options::UNELECTED).await?;
    let view = fleet.until_updated(B).await?;
    let versions = |view: &api_tests::fleet::View| {
        let all = view.bootc.values().map(kube::ResourceExt::resource_version);
        all.collect::<Vec<_>>()
    };
    let before = versions(&view);
    second.stop().await?;
    gate.open();
    let held = wait::until("the held writes are answered", || async {
        let held = gate.held();
        let all = held.iter().all(|(_, answer)| answer.is_some());
        all.then_some(held.clone())
            .with_context(|| format!("{held:?}"))
    })
    .await?;
    for (line, answer) in held.iter().filter(|(line, _)| !line.contains("/events")) {
        ensure!(*answer == Some(409), "{line} got {answer:?}");
    }
    ensure!(
        versions(&fleet.view().await?) == before,
        "a stale write took place"
    );
    fleet.rebooted(&[1; 3])?;
    // It has seen by now how things are, and goes on from there.
    fleet.want(A).await?;
    fleet.until_updated(A).await?;
    fleet.finish().await?;
    suite.operator.stop().await
}

/// From the end of the one to the first write of the other, by the API server's clock; both wait for
/// the same Lease.
async fn takeover(suite: Arc<Suite>) -> Result<()> {
    suite.operator.start(&suite).await?;
    let fleet = Fleet::settled(&suite, "takeover", 1, json!({})).await?;
    let second = Operator::default();
    second.start(&suite).await?;
    sleep(Duration::from_secs(3)).await;

    suite.operator.stop().await?;
    taken_over(&suite, &fleet, B, HANDOVER).await?;

    suite.operator.start(&suite).await?;
    sleep(Duration::from_secs(3)).await;
    second.kill().await?;
    taken_over(&suite, &fleet, C, TAKEOVER).await?;
    fleet.rebooted(&[2])?;
    fleet.finish().await?;
    suite.operator.stop().await
}

/// One has just ended; the other one writes to the node within this time.
async fn taken_over(suite: &Suite, fleet: &Fleet, image: char, limit: Duration) -> Result<()> {
    let end = Timestamp::now();
    fleet.want(image).await?;
    fleet.until_updated(image).await?;
    sleep(Duration::from_secs(1)).await;
    let asked = suite.asked_by(Account::OPERATOR)?;
    let first = asked.iter().find(|event| {
        let target = event.object_ref.as_ref().map(|it| it.resource.as_str());
        event.request_received > end && event.verb == "patch" && target == Some("bootcnodes")
    });
    let took = first.context("nothing was written")?.request_received - end;
    let took = Duration::try_from(took)?;
    ensure!(took < limit, "it took {took:?}");
    Ok(())
}
