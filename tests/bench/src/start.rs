//! From the operator's start to its first decision, against a plain LIST of the same objects.

use std::time::Duration;

use anyhow::Result;
use bed::progress;
use crd::{BootcNode, BootcNodePool};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, api::ListParams};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    cluster::{Cluster, image},
    numbers::median,
    table::Table,
};

/// How long the cluster is left alone between two starts.
const REST: Duration = Duration::from_secs(2);

/// Measures at each size, so often.
pub(crate) async fn measure(sizes: &[usize], repeat: usize) -> Result<Table> {
    let mut table = Table::new([
        "nodes",
        "LIST s",
        "first decision s",
        "ratio",
        "CPU until then s",
    ]);
    for size in sizes {
        progress::say(format_args!("{size} nodes"));
        let cluster = Cluster::start().await?;
        let (operator, hosts) = cluster.settled(*size, &image(0), json!({})).await?;
        operator.stop().await?;
        hosts.be_quiet();
        let (mut lists, mut starts, mut cpus) = (Vec::new(), Vec::new(), Vec::new());
        for n in 1..=repeat {
            let target = image(n);
            cluster.spec(json!({ "image": { "ref": target } })).await?;
            sleep(REST).await;
            lists.push(list(&cluster.admin).await?.as_secs_f64());
            sleep(REST).await;
            let since = Instant::now();
            let operator = cluster.start_operator()?;
            let decided = hosts.until_wanted(&target).await?;
            cpus.push(operator.cpu()?.total().as_secs_f64());
            starts.push(decided.saturating_duration_since(since).as_secs_f64());
            operator.stop().await?;
        }
        let [list, start, cpu] = [lists, starts, cpus].map(median);
        table.row([
            size.to_string(),
            format!("{list:.2}"),
            format!("{start:.2}"),
            format!("{:.2}", start / list),
            format!("{cpu:.2}"),
        ]);
    }
    Ok(table)
}

/// What a client without any care does: everything whole, one kind after the other.
async fn list(client: &Client) -> Result<Duration> {
    let (since, all) = (Instant::now(), ListParams::default());
    Api::<BootcNodePool>::all(client.clone()).list(&all).await?;
    Api::<BootcNode>::all(client.clone()).list(&all).await?;
    Api::<Node>::all(client.clone()).list(&all).await?;
    Ok(since.elapsed())
}
