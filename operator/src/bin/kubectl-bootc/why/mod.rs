//! `kubectl bootc why`: the cause in a line, the evidence, and what to do.

mod advice;
mod evidence;

use std::io::{self, Write};

use anyhow::bail;
use operator::observe::time::now;
use serde::Serialize;

use crate::{
    Verdict,
    ages::age,
    cli::{Plain, Why},
    cluster::Cluster,
    model::{Model, by_reason},
    output::{Colour, Style, json, yaml},
    rows::{NodeRow, PoolRow},
};

/// Nodes named in a line.
const NAMED: usize = 5;

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Node(String),
    Pool(String),
}

impl Target {
    /// Finds it by its name; `node/NAME` and `pool/NAME` say which.
    pub(crate) fn find(model: &Model<'_>, text: &str) -> anyhow::Result<Self> {
        let (kind, name) = text.split_once('/').unwrap_or(("", text));
        let objects = model.objects;
        let is_pool = objects.pools.contains_key(name);
        let known = objects
            .nodes
            .as_ref()
            .is_some_and(|nodes| nodes.contains_key(name));
        let is_node = objects.bootc.contains_key(name) || known;
        let name = name.to_owned();
        let (pool, node) = match kind {
            "" if is_node && is_pool => {
                bail!("{name} is a node and a pool: say node/{name} or pool/{name}")
            }
            "" => (is_pool, is_node),
            "pool" | "bnp" | "bootcnodepool" => (is_pool, false),
            "node" | "bn" | "bootcnode" => (false, is_node),
            _ => (false, false),
        };
        match (pool, node) {
            (true, _) => Ok(Self::Pool(name)),
            (_, true) => Ok(Self::Node(name)),
            _ => bail!("there is no node or pool {text}: kubectl bootc status shows all"),
        }
    }
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer {
    /// `node/NAME` or `pool/NAME`
    pub(crate) object: String,
    /// Nothing is in the way.
    pub(crate) good: bool,
    /// The cause's name, as in the condition, Events and metrics.
    pub(crate) reason: Option<String>,
    /// The cause in a line.
    pub(crate) summary: String,
    pub(crate) since: Option<String>,
    /// What is seen of it.
    pub(crate) evidence: Vec<String>,
    /// What a person can do.
    pub(crate) advice: Vec<String>,
}

/// Runs the command.
pub(crate) async fn run(cluster: &Cluster, args: &Why) -> anyhow::Result<Verdict> {
    let objects = cluster.objects().await?;
    let model = Model::new(&objects, now());
    let mut answer = match Target::find(&model, &args.target)? {
        Target::Node(node) => of_node(cluster, &model, &node).await,
        Target::Pool(pool) => of_pool(cluster, &model, &pool).await,
    };
    if let Some(unread) = &objects.unread {
        answer
            .evidence
            .push(format!("{unread}; answered without what Nodes say"));
    }
    let mut out = io::stdout().lock();
    match args.output {
        Plain::Json => json(&mut out, &answer)?,
        Plain::Yaml => yaml(&mut out, &answer)?,
        Plain::Text => print(&mut out, &answer, Style::of_stdout())?,
    }
    Ok(if answer.good {
        Verdict::Good
    } else {
        Verdict::Waits
    })
}

fn print(out: &mut impl Write, answer: &Answer, style: Style) -> io::Result<()> {
    let colour = if answer.good {
        Colour::Good
    } else {
        Colour::Warn
    };
    let head = match &answer.reason {
        Some(reason) => format!("{reason}: {}", answer.summary),
        None => answer.summary.clone(),
    };
    writeln!(out, "{} {}", answer.object, colour.paint(&head, style))?;
    for (title, lines) in [
        ("Evidence", &answer.evidence),
        ("What to do", &answer.advice),
    ] {
        if !lines.is_empty() {
            writeln!(out, "\n{title}:")?;
        }
        for line in lines {
            writeln!(out, "  {line}")?;
        }
    }
    Ok(())
}

async fn of_node(cluster: &Cluster, model: &Model<'_>, node: &str) -> Answer {
    let row = NodeRow::of(model, node);
    let object = format!("node/{node}");
    let Some(wait) = model.wait(node) else {
        return Answer {
            object,
            good: true,
            summary: settled(&row),
            ..Answer::default()
        };
    };
    let since = row
        .since_at
        .map(|at| format!("{} for {}", row.state, age(at, model.now)));
    let mut evidence: Vec<String> = since.into_iter().collect();
    evidence.extend(evidence::of(cluster, model, node, &wait).await);
    Answer {
        object,
        good: false,
        summary: wait.message.clone(),
        since: wait.since.map(operator::observe::time::rfc3339),
        evidence,
        advice: advice::of(&wait.reason, node, row.pool.as_deref().unwrap_or("POOL")),
        reason: Some(wait.reason),
    }
}

fn settled(row: &NodeRow) -> String {
    match (&row.pool, &row.booted) {
        (None, _) => "is of no pool; nothing is asked of it".to_owned(),
        (Some(pool), Some(booted)) => {
            format!(
                "runs what pool {pool} wants ({}) and waits for nothing",
                booted.text()
            )
        }
        (Some(pool), None) => format!("is of pool {pool} and waits for nothing"),
    }
}

async fn of_pool(cluster: &Cluster, model: &Model<'_>, name: &str) -> Answer {
    let object = format!("pool/{name}");
    let Some(row) = PoolRow::of(model, name) else {
        return Answer {
            object,
            ..Answer::default()
        };
    };
    let nodes = model.nodes_of(name);
    let mut evidence = Vec::new();
    let mut advice = Vec::new();
    let (reason, summary) = match &row.problem {
        Some(problem) => {
            advice.extend(advice::of(&problem.reason, "NODE", name));
            (Some(problem.reason.clone()), problem.message.clone())
        }
        None if row.up_to_date => (None, "every node runs the wanted image".to_owned()),
        None => (Some(row.reason.clone()), row.message.clone()),
    };
    if row.problem.is_some() && !row.up_to_date {
        evidence.push(format!("{}: {}", row.reason, row.message));
    }
    if let (Some(used), Some(allowed)) = (row.slots_used, row.slots_allowed) {
        evidence.push(format!("{used} of {allowed} reboot slots are in use"));
    }
    for (reason, waiting) in by_reason(model, &nodes) {
        evidence.push(group(model, &reason, &waiting));
        if row.problem.is_none() && advice.is_empty() {
            let node = waiting.first().map_or("NODE", String::as_str);
            advice.extend(advice::of(&reason, node, name));
        }
    }
    if !row.is_good() {
        evidence.extend(evidence::operator(cluster).await);
    }
    Answer {
        object,
        good: row.is_good(),
        reason,
        summary,
        since: row.since,
        evidence,
        advice,
    }
}

/// `3 nodes wait for RebootSlot: w2, w3, w4 (waiting for a reboot slot of pool p)`
fn group(model: &Model<'_>, reason: &str, nodes: &[String]) -> String {
    let named: Vec<_> = nodes.iter().take(NAMED).map(String::as_str).collect();
    let more = match nodes.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let text = nodes.first().and_then(|node| model.wait(node));
    let text = text.map(|wait| wait.message).unwrap_or_default();
    let count = match nodes.len() {
        1 => "1 node waits".to_owned(),
        count => format!("{count} nodes wait"),
    };
    format!("{count} for {reason}: {}{more} ({text})", named.join(", "))
}
