//! Pools that follow a tag at a real registry.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use api_tests::{
    Fleet, Suite,
    fleet::{A, View, reference},
    operator::TAG_INTERVAL,
    registry::Server,
};
use crd::BootcNode;
use libtest_mimic::Trial;
use serde_json::json;
use tokio::time::sleep;

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial("tags::a_moved_tag_is_rolled_out", moved),
        suite.trial("tags::an_error_stays_until_it_is_cured", trouble),
        suite.trial("tags::another_reference_never_gets_the_old_digest", changed),
        suite.trial("tags::a_tag_that_never_was_leaves_the_nodes_alone", unknown),
    ]
}

async fn follow(fleet: &Fleet, reference: &str) -> Result<()> {
    fleet.spec(json!({ "image": { "ref": reference } })).await
}

fn target(view: &View) -> Option<String> {
    view.status().target_digest
}

async fn moved(suite: Arc<Suite>) -> Result<()> {
    let server = Server::start(false).await?;
    let first = server.push("VERSION=1", "stable").await?;
    let fleet = Fleet::settled(&suite, "moved-tag", 2, json!({})).await?;
    follow(&fleet, &server.reference("stable")).await?;
    let view = fleet.until_runs(&first).await?;
    ensure!(!view.status().update_available);
    let next = view
        .status()
        .next_tag_resolution_time
        .context("no next time")?;
    ensure!(
        next.0 > k8s_openapi::jiff::Timestamp::now() - TAG_INTERVAL,
        "{next:?}"
    );

    fleet.pause(true).await?;
    let second = server.push("VERSION=2", "stable").await?;
    fleet
        .until("the moved tag is seen", |view| {
            ensure!(target(view).as_deref() == Some(&second), "{view}");
            ensure!(view.deployed().as_deref() == Some(&first), "{view}");
            ensure!(view.status().update_available, "{view}");
            view.pool_is("Degraded=False/OK").map(drop)
        })
        .await?;
    fleet.pause(false).await?;
    let view = fleet.until_runs(&second).await?;
    ensure!(!view.status().update_available);
    fleet.rebooted(&[2, 2])?;
    fleet.finish().await
}

/// Of another pool nothing is seen meanwhile: not one write.
async fn trouble(suite: Arc<Suite>) -> Result<()> {
    let mut server = Server::start(false).await?;
    let first = server.push("VERSION=1", "stable").await?;
    let fleet = Fleet::settled(&suite, "tag-trouble", 2, json!({})).await?;
    let other = Fleet::settled(&suite, "tag-bystander", 1, json!({})).await?;
    follow(&fleet, &server.reference("stable")).await?;
    fleet.until_runs(&first).await?;
    let version = |view: &View| {
        view.pool
            .as_ref()
            .and_then(kube::ResourceExt::resource_version)
    };
    let before = version(&other.view().await?);

    server.stop();
    let view = fleet
        .until("the trouble is told", |view| {
            let message = view.pool_is("Degraded=True/TagResolutionError")?.message;
            ensure!(message.contains(&server.reference("stable")), "{message}");
            Ok(())
        })
        .await?;
    let since = view.condition("Degraded")?.last_transition_time;
    ensure!(
        target(&view).as_deref() == Some(&first),
        "the old digest is lost: {view}"
    );
    // Longer than two tries: it neither flickers nor is it told anew.
    for _ in 0..60 {
        sleep(Duration::from_millis(250)).await;
        let view = fleet.view().await?;
        let now = view.pool_is("Degraded=True/TagResolutionError")?;
        ensure!(now.last_transition_time == since, "{now:?}");
        ensure!(target(&view).as_deref() == Some(&first), "{view}");
        view.pool_is("UpToDate=True/AllUpdated")?;
    }
    // What is known of the tag is good enough for a node that joins.
    fleet.take_out(2).await?;
    fleet
        .until("it left", |view| view.counts([1, 1, 0, 0]))
        .await?;
    fleet.take_in(2).await?;
    fleet
        .until("it is back", |view| view.counts([2, 2, 0, 0]))
        .await?;
    ensure!(
        version(&other.view().await?) == before,
        "another pool was written"
    );

    server.run().await?;
    fleet
        .until("it is cured by itself", |view| {
            view.pool_is("Degraded=False/OK").map(drop)
        })
        .await?;
    fleet.rebooted(&[1, 1])?;
    fleet.finish().await?;
    other.finish().await
}

fn told(nodes: &[BootcNode]) -> BTreeSet<String> {
    nodes
        .iter()
        .filter_map(|node| node.spec.desired_image.clone())
        .collect()
}

/// The new reference cannot be resolved at first: that is no reason to mix it with the old digest.
async fn changed(suite: Arc<Suite>) -> Result<()> {
    let (one, two) = (Server::start(false).await?, Server::start(false).await?);
    let first = one.push("VERSION=1", "stable").await?;
    let fleet = Fleet::settled(&suite, "changed-ref", 1, json!({})).await?;
    follow(&fleet, &one.reference("stable")).await?;
    fleet.until_runs(&first).await?;
    follow(&fleet, &two.reference("next")).await?;
    fleet
        .until("nothing is known of the new reference", |view| {
            view.pool_is("UpToDate=Unknown/TargetUnknown")?;
            view.pool_is("Degraded=True/TagResolutionError")?;
            ensure!(target(view).is_none(), "{view}");
            Ok(())
        })
        .await?;
    let second = two.push("VERSION=2", "next").await?;
    fleet.until_runs(&second).await?;
    let repository = |server: &Server| format!("{}/fleet/os", server.host);
    let wanted = BTreeSet::from([
        reference(A),
        format!("{}@{first}", repository(&one)),
        format!("{}@{second}", repository(&two)),
    ]);
    let told = told(&fleet.history(1));
    ensure!(told == wanted, "{told:?}");
    fleet.finish().await
}

async fn unknown(suite: Arc<Suite>) -> Result<()> {
    let server = Server::start(false).await?;
    let fleet = Fleet::new(&suite, "unknown-tag", 1).await?;
    fleet
        .create_pool("unknown-tag", json!({ "paused": true }))
        .await?;
    follow(&fleet, &server.reference("nowhere")).await?;
    let view = fleet
        .until("it says so", |view| {
            let message = view.pool_is("Degraded=True/TagResolutionError")?.message;
            ensure!(message.contains("nowhere"), "{message}");
            view.pool_is("UpToDate=Unknown/TargetUnknown")?;
            view.is_current()
        })
        .await?;
    ensure!(
        view.cordoned().is_empty() && view.in_slot().is_empty(),
        "{view}"
    );
    fleet.finish().await
}
