//! The harness itself: a cluster with both CRDs comes up, and goes away however
//! its test ends.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use anyhow::{Result, ensure};
use crd::{BootcNode, BootcNodePool};
use e2e::{Bink, Config, Env};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("harness::a_cluster_takes_a_pool", a_cluster_takes_a_pool),
        trial(
            "harness::a_cluster_is_gone_after_a_failed_test",
            a_cluster_is_gone_after_a_failed_test,
        ),
    ]
}

async fn a_cluster_takes_a_pool() -> Result<()> {
    let env = Env::new(Config::default()).await?;
    let pools = Api::<BootcNodePool>::all(env.client.clone());
    // No node has this label: the operator finds an empty pool.
    let pool = serde_json::from_value(json!({
        "metadata": { "name": "smoke" },
        "spec": {
            "nodeSelector": { "matchLabels": { "e2e/nobody": "here" } },
            "image": { "ref": format!("registry.cluster.local:5000/e2e/os@sha256:{}", "0".repeat(64)) },
        },
    }))?;
    pools.create(&PostParams::default(), &pool).await?;
    let stored = pools.get("smoke").await?;
    ensure!(
        stored.spec == pool.spec,
        "the pool came back as {:?}",
        stored.spec
    );
    e2e::wait::until(
        "the operator says that an empty pool is up to date",
        std::time::Duration::from_secs(60),
        async || {
            let status = pools.get_status("smoke").await?.status.unwrap_or_default();
            let condition =
                e2e::view::condition(&status.conditions, crd::names::condition::UP_TO_DATE);
            Ok(match condition {
                Some(condition) if condition.status == "True" => Ok(()),
                other => Err(format!("{other:?}")),
            })
        },
    )
    .await?;
    let nodes = Api::<BootcNode>::all(env.client.clone())
        .list(&ListParams::default())
        .await?;
    ensure!(
        nodes.items.is_empty(),
        "an empty pool made {} BootcNodes",
        nodes.items.len()
    );
    pools.delete("smoke", &DeleteParams::default()).await?;
    Ok(())
}

async fn a_cluster_is_gone_after_a_failed_test() -> Result<()> {
    let env = Env::new(Config {
        install: false,
        ..Config::default()
    })
    .await?;
    // The cluster's own folder goes with it; this one stays.
    let dir = tempfile::tempdir()?;
    let bink = Bink::find(env.bink.cluster(), dir.path())?;
    ensure!(
        bink.clusters().await?.contains(bink.cluster()),
        "the cluster is not listed while it runs"
    );
    let failed = catch_unwind(AssertUnwindSafe(move || {
        let _torn_down = env;
        resume_unwind(Box::new("a test that fails"));
    }));
    ensure!(failed.is_err());
    let listed = bink.clusters().await?;
    ensure!(
        !listed.lines().any(|name| name == bink.cluster()),
        "the cluster is still listed: {listed}"
    );
    Ok(())
}
