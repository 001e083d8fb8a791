//! `/metrics` as a scraper of the cluster reads it.

use std::{
    collections::BTreeMap,
    net::TcpStream,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use api_tests::{
    Account, Fleet, Suite,
    fleet::{B, Boot},
    wait,
};
use bed::{collector::free_port, run_dir::RunDir};
use libtest_mimic::Trial;
use serde_json::json;

use crate::process::Operator;

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![suite.trial("metrics::those_who_may_read_see_a_rollout", read)]
}

/// Lets the operator's own account read, which stands for Prometheus here.
pub(crate) async fn let_read(suite: &Suite) -> Result<String> {
    let role = json!([
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": { "name": "scraper" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": "bootc-metrics-reader" },
            "subjects": [{ "kind": "ServiceAccount", "name": "scraper", "namespace": "default" }],
        },
        {
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": { "name": "scraper", "namespace": "default" },
        },
    ]);
    for object in role.as_array().into_iter().flatten() {
        suite
            .kubectl_with(&["apply", "-f", "-"], &object.to_string())
            .await?;
    }
    token_of(suite, "scraper", "default").await
}

async fn token_of(suite: &Suite, account: &str, namespace: &str) -> Result<String> {
    let token = suite
        .kubectl(&["create", "token", account, "--namespace", namespace])
        .await?;
    Ok(token.trim().to_owned())
}

/// One answer of the operator: status and text.
pub(crate) async fn get(port: u16, token: Option<String>) -> Result<(u16, String)> {
    let url = format!("https://127.0.0.1:{port}/metrics");
    tokio::task::spawn_blocking(move || {
        let tls = ureq::tls::TlsConfig::builder()
            .disable_verification(true)
            .build();
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(10)))
            .build()
            .into();
        let mut request = agent.get(&url);
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let mut answer = request.call()?;
        let text = answer.body_mut().read_to_string()?;
        Ok((answer.status().as_u16(), text))
    })
    .await?
}

/// The value of every series.
fn series(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    });
    pairs.collect()
}

async fn read(suite: Arc<Suite>) -> Result<()> {
    let dir = RunDir::fresh("seen-metrics")?;
    let port = free_port()?;
    let flag = format!("--metrics-bind-address=127.0.0.1:{port}");
    let operator = Operator::start(&suite, dir.path(), &[&flag], &[]).await?;
    let token = let_read(&suite).await?;
    wait::until("the operator listens", || async {
        TcpStream::connect(("127.0.0.1", port))
    })
    .await?;
    ensure!(get(port, None).await?.0 == 401);
    ensure!(get(port, Some("who?".into())).await?.0 == 401);
    let other = token_of(&suite, Account::AGENT.name, Account::AGENT.namespace).await?;
    ensure!(get(port, Some(other)).await?.0 == 403);

    let rollout = json!({ "maxUnavailable": 2 });
    let fleet = Fleet::settled(&suite, "counted", 3, rollout).await?;
    fleet.plan(1, |plan| plan.boot = Boot::Hold);
    fleet.want(B).await?;
    let now = || async {
        let (status, text) = get(port, Some(token.clone())).await?;
        ensure!(status == 200, "{status}: {text}");
        ensure!(text.len() < 200 * 1024, "{} bytes", text.len());
        anyhow::Ok(series(&text))
    };
    let held = wait::until("the others are updated", || async {
        let all = now().await?;
        let is = |name: &str, value: f64| -> Result<()> {
            let seen = all.get(name).copied();
            ensure!(seen == Some(value), "{name} is {seen:?}, not {value}");
            Ok(())
        };
        is(r#"bootc_pool_nodes{pool="counted",state="rebooting"}"#, 1.0)?;
        is(r#"bootc_pool_nodes{pool="counted",state="updated"}"#, 2.0)?;
        is(r#"bootc_pool_slots_used{pool="counted"}"#, 1.0)?;
        is(r#"bootc_pool_slots_allowed{pool="counted"}"#, 2.0)?;
        is(
            r#"bootc_pool_waiting_nodes{pool="counted",reason="Rebooting"}"#,
            1.0,
        )?;
        is(
            r#"bootc_pool_problem{pool="counted",reason="RolloutHalted"}"#,
            0.0,
        )?;
        is("bootc_lease_held", 1.0)?;
        is(r#"bootc_phase_duration_seconds_count{phase="reboot"}"#, 2.0)?;
        anyhow::Ok(all)
    })
    .await?;
    let writes = r#"bootc_writes_total{kind="BootcNode",result="ok"}"#;
    ensure!(
        held.get(writes).is_some_and(|count| *count >= 6.0),
        "{held:#?}"
    );
    let oldest = r#"bootc_pool_oldest_node_timestamp_seconds{pool="counted",state="rebooting"}"#;
    let oldest = held.get(oldest).context("no oldest node")?;
    let age = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() - oldest;
    ensure!((0.0..600.0).contains(&age), "rebooting for {age} s");
    ensure!(
        !held.keys().any(|name| name.contains("counted-1")),
        "a node's name is a label"
    );
    fleet.plan(1, |plan| plan.boot = Boot::Go);
    fleet.until_updated(B).await?;
    fleet.finish().await?;
    wait::until("the pool's series are gone", || async {
        let all = now().await?;
        let left: Vec<_> = all.keys().filter(|name| name.contains("counted")).collect();
        ensure!(left.is_empty(), "{left:?}");
        anyhow::Ok(())
    })
    .await?;
    operator.stop().await
}
