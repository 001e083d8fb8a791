//! Tags under an interval that no test outlives: whatever is resolved here is resolved at once.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use api_tests::{Account, Fleet, Suite, operator::Options, registry::Server};
use k8s_openapi::jiff::Timestamp;
use libtest_mimic::Trial;
use serde_json::json;

/// The interval. A tenth of it is what pools differ by at the most.
const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![suite.trial("tags::a_changed_reference_is_resolved_at_once", changed)]
}

async fn changed(suite: Arc<Suite>) -> Result<()> {
    let server = Server::start(false).await?;
    let first = server.push("VERSION=1", "stable").await?;
    let second = server.push("VERSION=2", "next").await?;
    let client = suite.client_of(Account::OPERATOR, None).await?;
    let options = Options {
        tag_interval: HOUR,
        ..Options::UNELECTED
    };
    suite.operator.start_with(client, options).await?;
    let fleet = Fleet::settled(&suite, "at-once", 1, json!({})).await?;
    for (tag, digest) in [("stable", &first), ("next", &second), ("stable", &first)] {
        fleet
            .spec(json!({ "image": { "ref": server.reference(tag) } }))
            .await?;
        let view = fleet.until_runs(digest).await?;
        let next = view.status().next_tag_resolution_time.context("no time")?;
        let left = next.0.duration_since(Timestamp::now()).unsigned_abs();
        ensure!(left + Duration::from_secs(300) > HOUR, "{left:?}");
        ensure!(left <= HOUR + HOUR / 10, "{left:?}");
    }
    fleet.finish().await?;
    suite.operator.stop().await
}
