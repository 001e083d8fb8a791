//! The dashboard and the alerts that `deploy/monitoring` ships, asked of a real Prometheus that scraped a
//! rollout: every query has an answer.

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use api_tests::{
    Fleet, Suite,
    fleet::{B, Boot, C},
};
use bed::{
    collector::free_port,
    paths,
    process::{Daemon, Program},
    prometheus::Prometheus,
    run_dir::RunDir,
    wait::Patience,
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{metrics, process::Operator};

/// A Prometheus looks at its rules and targets once a second here.
const ANSWERS: Patience = Patience {
    at_most: Duration::from_secs(60),
    every: Duration::from_millis(500),
};

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial("prometheus::the_alerts_fire_when_they_should", async |_| {
            rules_hold().await
        }),
        suite.trial("prometheus::every_query_has_an_answer", answers),
    ]
}

fn monitoring() -> PathBuf {
    paths::project().join("deploy/monitoring")
}

async fn prometheus() -> Result<Prometheus> {
    tokio::task::spawn_blocking(Prometheus::ensure).await?
}

/// The groups of rules as Prometheus reads them, written to `dir`.
fn rules(dir: &Path) -> Result<Value> {
    let file = monitoring().join("rules.yaml");
    let rule: Value = serde_saphyr::from_str(&fs::read_to_string(&file)?)?;
    let spec = rule["spec"].clone();
    ensure!(spec["groups"].is_array(), "no groups in {}", file.display());
    fs::write(dir.join("rules.yaml"), spec.to_string())?;
    Ok(spec)
}

async fn rules_hold() -> Result<()> {
    let dir = RunDir::fresh("seen-rules")?;
    rules(dir.path())?;
    fs::copy(
        monitoring().join("tests/rules.yaml"),
        dir.path().join("tests.yaml"),
    )?;
    let argv = prometheus().await?.argv("promtool");
    for arguments in [
        ["check", "rules", "rules.yaml"],
        ["test", "rules", "tests.yaml"],
    ] {
        let (program, before) = argv.split_first().context("no promtool")?;
        let said = Command::new(program)
            .args(before)
            .args(arguments)
            .current_dir(dir.path())
            .output()?;
        let text = String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr);
        ensure!(said.status.success(), "promtool {arguments:?}: {text}");
    }
    Ok(())
}

async fn answers(suite: Arc<Suite>) -> Result<()> {
    let dir = RunDir::fresh("seen-prometheus")?;
    let (scraped, port) = (free_port()?, free_port()?);
    let flag = format!("--metrics-bind-address=127.0.0.1:{scraped}");
    let operator = Operator::start(&suite, dir.path(), &[&flag], &[]).await?;
    let token = metrics::let_read(&suite).await?;
    let spec = rules(dir.path())?;
    let server = start(dir.path(), scraped, port, &token).await?;

    // A rate needs a look at the beginning.
    answered(port, "bootc_lease_held").await?;
    // Something of everything: a rollout, and a node that stays on its way.
    let fleet = Fleet::settled(&suite, "asked", 2, json!({ "maxUnavailable": 2 })).await?;
    fleet.want(B).await?;
    fleet.until_updated(B).await?;
    fleet.plan(1, |plan| plan.boot = Boot::Hold);
    fleet.want(C).await?;
    fleet
        .until("a node reboots", |view| {
            ensure!(view.states().contains(&"Rebooting".to_owned()), "{view}");
            Ok(())
        })
        .await?;
    let mut queries = dashboard()?;
    ensure!(queries.len() > 15, "{} queries", queries.len());
    for rule in spec["groups"][0]["rules"].as_array().into_iter().flatten() {
        let query = rule["expr"].as_str().context("an alert without query")?;
        queries.extend(selectors(query)?);
    }
    for query in &queries {
        answered(port, query).await?;
    }
    no_rule_fails(port).await?;
    fleet.plan(1, |plan| plan.boot = Boot::Go);
    fleet.until_updated(C).await?;
    fleet.finish().await?;
    drop(server);
    operator.stop().await
}

async fn start(dir: &Path, scraped: u16, port: u16, token: &str) -> Result<Daemon> {
    fs::write(dir.join("token"), token)?;
    let config = json!({
        "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
        "rule_files": [dir.join("rules.yaml")],
        "scrape_configs": [{
            "job_name": "bootc-operator", "scheme": "https",
            "tls_config": { "insecure_skip_verify": true },
            "authorization": { "credentials_file": dir.join("token") },
            "static_configs": [{ "targets": [format!("127.0.0.1:{scraped}")] }],
        }],
    });
    fs::write(dir.join("prometheus.yaml"), config.to_string())?;
    let mut argv = prometheus().await?.argv("prometheus");
    let flag = |name: &str, value: &str| OsString::from(format!("--{name}={value}"));
    let at = |name: &str| dir.join(name).display().to_string();
    argv.extend([
        flag("config.file", &at("prometheus.yaml")),
        flag("storage.tsdb.path", &at("tsdb")),
        flag("web.listen-address", &format!("127.0.0.1:{port}")),
    ]);
    let program = Program {
        name: "prometheus".to_owned(),
        argv,
        env: Vec::new(),
        dir: dir.to_owned(),
    };
    program.start()
}

/// Every query of the dashboard, with its variables as Grafana fills them in.
fn dashboard() -> Result<Vec<String>> {
    let text = fs::read_to_string(monitoring().join("dashboard.json"))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    targets
        .map(|target| {
            let query = target["expr"].as_str().context("a target without query")?;
            let query = query
                .replace("$__rate_interval", "5m")
                .replace("$pool", ".*");
            ensure!(!query.contains('$'), "an unknown variable in {query}");
            Ok(query)
        })
        .collect()
}

/// The vector selectors in a query: an alert that does not fire has no answer, but what it looks at has.
fn selectors(query: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (at, _) in query.match_indices("bootc_") {
        let rest = &query[at..];
        let name = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let mut end = name.unwrap_or(rest.len());
        if rest[end..].starts_with('{') {
            end += rest[end..].find('}').context("an open brace")? + 1;
        }
        found.push(rest[..end].to_owned());
    }
    ensure!(!found.is_empty(), "nothing of ours in {query}");
    Ok(found)
}

async fn ask(url: String) -> Result<Value> {
    let text =
        tokio::task::spawn_blocking(move || ureq::get(&url).call()?.body_mut().read_to_string());
    Ok(serde_json::from_str(&text.await??)?)
}

async fn answered(port: u16, query: &str) -> Result<()> {
    let encoded = query.bytes().fold(String::new(), |mut all, byte| {
        let _ = write!(all, "%{byte:02X}");
        all
    });
    let look = || {
        let url = format!("http://127.0.0.1:{port}/api/v1/query?query={encoded}");
        async move {
            let answer = ask(url).await?;
            let results = answer["data"]["result"].as_array().context("no result")?;
            if results.is_empty() {
                bail!("nothing: {answer}");
            }
            let number = results.iter().any(|result| result["value"][1] != "NaN");
            ensure!(number, "no number: {answer}");
            Ok(())
        }
    };
    ANSWERS
        .until(&format!("`{query}` has an answer"), look)
        .await
}

async fn no_rule_fails(port: u16) -> Result<()> {
    let answer = ask(format!("http://127.0.0.1:{port}/api/v1/rules")).await?;
    let rules = answer["data"]["groups"][0]["rules"]
        .as_array()
        .context("no rules")?;
    ensure!(rules.len() >= 10, "{} rules", rules.len());
    for rule in rules {
        ensure!(rule["health"] != "err", "{rule}");
    }
    Ok(())
}
