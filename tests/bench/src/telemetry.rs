//! What tracing and metrics cost the operator: CPU time of the same rollout with both and without.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bed::{
    collector::{Collector, free_port},
    run_dir::RunDir,
};
use k8s_openapi::api::{
    authentication::v1::TokenRequest, core::v1::ServiceAccount, rbac::v1::ClusterRoleBinding,
};
use kube::{Api, Client, api::PostParams, config::AuthInfo};
use serde_json::json;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    cluster::{Cluster, operator::Extra},
    numbers::{median, millis, number},
    rollout::{Pass, Stage, say},
    table::Table,
};

/// As Prometheus is often told.
const SCRAPED: Duration = Duration::from_secs(15);
/// How often is looked whether the operator listens by now.
const STARTS: Duration = Duration::from_secs(1);
/// Who scrapes.
const ACCOUNT: &str = "scraper";

/// Measures both ways in turn, so often.
pub(crate) async fn measure(size: usize, repeat: usize) -> Result<Table> {
    let dir = RunDir::fresh("bench-telemetry")?;
    let collector = Collector::start(dir.path()).await?;
    let mut stage = Stage::new(size).await?;
    let token = token(&stage.cluster).await?;
    let (mut off, mut on, mut scrapes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..repeat {
        let (pass, _) = stage.operator(Extra::default()).await?;
        say(&pass, "without", size);
        off.push(pass);
        let port = free_port()?;
        let scraper = Scraper::start(port, &token)?;
        let (pass, _) = stage.operator(telemetry(&collector, port)).await?;
        say(&pass, "with both", size);
        on.push(pass);
        scrapes += scraper.count()?;
    }
    let spans = collector.spans()?.len();
    Ok(table(size, &off, &on, spans, scrapes))
}

/// Both, as `deploy/` has them: metrics over HTTPS for those who may read them.
fn telemetry(collector: &Collector, port: u16) -> Extra {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.grpc()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".to_owned()),
    ];
    Extra {
        flags: vec![format!("--metrics-bind-address=127.0.0.1:{port}")],
        variables: variables
            .map(|(name, value)| (name.to_owned(), value.into()))
            .into(),
    }
}

/// A token of somebody who may read the metrics.
async fn token(cluster: &Cluster) -> Result<String> {
    let made = PostParams::default();
    let accounts = Api::<ServiceAccount>::namespaced(cluster.admin.clone(), "default");
    let account = serde_json::from_value(json!({ "metadata": { "name": ACCOUNT } }))?;
    accounts.create(&made, &account).await?;
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": { "name": ACCOUNT },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "bootc-metrics-reader" },
        "subjects": [{ "kind": "ServiceAccount", "name": ACCOUNT, "namespace": "default" }],
    }))?;
    Api::all(cluster.admin.clone())
        .create(&made, &binding)
        .await?;
    let request: TokenRequest = serde_json::from_value(json!({ "spec": { "audiences": [] } }))?;
    let answer = accounts
        .create_token_request(ACCOUNT, &made, &request)
        .await?;
    Ok(answer.status.context("no token")?.token)
}

/// Reads the metrics again and again, over one connection, until it is dropped.
struct Scraper {
    count: Arc<AtomicUsize>,
    _task: JoinSet<Result<()>>,
}

impl Scraper {
    fn start(port: u16, token: &str) -> Result<Self> {
        let mut config = kube::Config::new(format!("https://127.0.0.1:{port}").parse()?);
        config.accept_invalid_certs = true;
        config.default_retry = false;
        config.auth_info = AuthInfo {
            token: Some(token.to_owned().into()),
            ..AuthInfo::default()
        };
        let client = Client::try_from(config)?;
        let count = Arc::new(AtomicUsize::new(0));
        let mut task = JoinSet::new();
        task.spawn(scrape(client, Arc::clone(&count)));
        Ok(Self { count, _task: task })
    }

    /// How often it got an answer: it must have, or nothing was measured.
    fn count(&self) -> Result<usize> {
        let count = self.count.load(Ordering::Relaxed);
        ensure!(count > 0, "the metrics were never read");
        Ok(count)
    }
}

async fn scrape(client: Client, count: Arc<AtomicUsize>) -> Result<()> {
    loop {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        // It does not listen before it has started, nor after its end.
        let pause = match client.request_text(request).await {
            Ok(_) => {
                count.fetch_add(1, Ordering::Relaxed);
                SCRAPED
            }
            Err(_) => STARTS,
        };
        sleep(pause).await;
    }
}

fn table(size: usize, off: &[Pass], on: &[Pass], spans: usize, scrapes: usize) -> Table {
    let mut table = Table::new([
        "nodes",
        "CPU ms/node: without",
        "with both",
        "ratio",
        "of pairs",
        "spans/node",
        "scrapes",
    ]);
    let node = |pass: &Pass| millis(pass.cpu) / number(size as u64);
    let pairs = off.iter().zip(on).map(|(off, on)| node(on) / node(off));
    let mut pairs: Vec<f64> = pairs.collect();
    pairs.sort_by(f64::total_cmp);
    let shown: Vec<_> = pairs.iter().map(|ratio| format!("{ratio:.3}")).collect();
    let (off, with) = (median(off.iter().map(node)), median(on.iter().map(node)));
    let updates = number((size * on.len()) as u64);
    table.row([
        size.to_string(),
        format!("{off:.2}"),
        format!("{with:.2}"),
        format!("{:.3}", with / off),
        shown.join(" "),
        format!("{:.1}", number(spans as u64) / updates),
        scrapes.to_string(),
    ]);
    table
}
