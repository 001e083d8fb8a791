//! `kubectl bootc timeline`: a bar a node, a colour a phase.
//!
//! The times of the phases are the operator's hops. They are kept in each node's annotation with the
//! writes that happen anyway, so a hop that needs none is there once the next write is made; the
//! state of this moment comes from the rules. A journal of the operator knows every hop of every
//! rollout, and what each node waited for.

mod draw;
mod past;

use std::{
    fs::File,
    io::{self, BufReader, Write as _},
};

use anyhow::{Context as _, bail};
use fsm::{State, Timestamp};
use operator::observe::time::{now, rfc3339};
use serde::Serialize;

use crate::{
    Verdict,
    cli::{Drawn, Timeline},
    cluster::Cluster,
    history,
    model::Model,
    output::{Style, json},
};

/// The bars of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Chart {
    pub(crate) pool: String,
    pub(crate) image: Option<String>,
    #[serde(serialize_with = "moment")]
    pub(crate) from: Timestamp,
    #[serde(serialize_with = "moment")]
    pub(crate) to: Timestamp,
    pub(crate) nodes: Vec<Bar>,
}

/// One node's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Bar {
    pub(crate) node: String,
    pub(crate) phases: Vec<Phase>,
}

/// One stretch of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Phase {
    pub(crate) state: State,
    #[serde(serialize_with = "moment")]
    pub(crate) from: Timestamp,
    #[serde(serialize_with = "moment")]
    pub(crate) to: Timestamp,
    /// What was waited for meanwhile.
    pub(crate) waited_for: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn moment<S: serde::Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&operator::observe::time::rfc3339_exact(*at))
}

impl Bar {
    /// From the moments at which states were reached; the last one lasts until `end`. Idle is the
    /// end of an update and no phase of it.
    pub(crate) fn new(node: &str, marks: &[(State, Timestamp)], end: Timestamp) -> Self {
        let ends = marks.iter().skip(1).map(|(_, at)| *at).chain([end]);
        let phases = marks.iter().zip(ends).map(|((state, from), to)| Phase {
            state: *state,
            from: *from,
            to: to.max(*from),
            waited_for: Vec::new(),
        });
        let phases = phases.filter(|phase| phase.state != State::Idle).collect();
        Self {
            node: node.to_owned(),
            phases,
        }
    }

    /// Notes what was waited for, at the phase in which that was.
    pub(crate) fn note(&mut self, at: Timestamp, text: &str) {
        let within = |phase: &&mut Phase| phase.from <= at && at <= phase.to;
        if let Some(phase) = self.phases.iter_mut().rfind(within)
            && !phase.waited_for.iter().any(|known| known == text)
        {
            phase.waited_for.push(text.to_owned());
        }
    }
}

impl Chart {
    /// Of these bars; those without a phase have nothing to show.
    pub(crate) fn new(
        pool: &str,
        image: Option<String>,
        mut nodes: Vec<Bar>,
    ) -> anyhow::Result<Self> {
        nodes.retain(|bar| !bar.phases.is_empty());
        let phases = || nodes.iter().flat_map(|bar| &bar.phases);
        let from = phases().map(|phase| phase.from).min();
        let to = phases().map(|phase| phase.to).max();
        let (Some(from), Some(to)) = (from, to) else {
            bail!("no node of pool {pool} was updated yet, so there is nothing to draw");
        };
        Ok(Self {
            pool: pool.to_owned(),
            image,
            from,
            to,
            nodes,
        })
    }

    fn print(&self, drawn: Drawn) -> anyhow::Result<Verdict> {
        let mut out = io::stdout().lock();
        match drawn {
            Drawn::Json => json(&mut out, self)?,
            Drawn::Svg => write!(out, "{}", draw::svg(self))?,
            Drawn::Text => draw::text(self, &mut out, Style::of_stdout())?,
        }
        Ok(Verdict::Good)
    }
}

/// Draws what the cluster knows.
pub(crate) async fn run(cluster: &Cluster, args: &Timeline) -> anyhow::Result<Verdict> {
    let objects = cluster.objects().await?;
    let model = Model::new(&objects, now());
    let names: Vec<&String> = objects.pools.keys().collect();
    let pool = one_of(args.pool.as_ref(), &names)?;
    // Without the right to read Events the bars are still there.
    let events = history::events(cluster).await.unwrap_or_default();
    let mut bars: Vec<Bar> = model
        .nodes_of(pool)
        .iter()
        .map(|node| live(&model, node, &past::drains(&events, node)))
        .collect();
    for event in &events {
        past::note_event(&mut bars, event);
    }
    for bar in &mut bars {
        let wait = model.wait(&bar.node);
        if let (Some(wait), Some(phase)) = (wait, bar.phases.last_mut())
            && !phase.waited_for.contains(&wait.message)
        {
            phase.waited_for.push(wait.message);
        }
    }
    let image = objects.pools.get(pool).and_then(|pool| pool.spec.get());
    let image = image.map(|spec| spec.image.reference.clone());
    Chart::new(pool, image, bars)?.print(args.output)
}

/// Draws what a journal of the operator knows.
pub(crate) fn of_journal(args: &Timeline) -> anyhow::Result<Verdict> {
    let file = args.journal.as_deref().context("no journal")?;
    let journal = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let pools = past::of_journal(BufReader::new(journal))?;
    let names: Vec<&String> = pools.keys().collect();
    let pool = one_of(args.pool.as_ref(), &names)?;
    let (image, bars) = pools.get(pool).cloned().unwrap_or_default();
    Chart::new(pool, image, bars)?.print(args.output)
}

fn one_of<'a>(wanted: Option<&'a String>, names: &[&'a String]) -> anyhow::Result<&'a String> {
    match (wanted, names) {
        (Some(wanted), _) if names.contains(&wanted) => Ok(wanted),
        (Some(wanted), _) => bail!("there is no pool {wanted} here"),
        (None, [one]) => Ok(one),
        (None, []) => bail!("there is no pool here"),
        (None, names) => {
            let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
            bail!("which pool? There are {}", names.join(", "))
        }
    }
}

/// The way of a node's last update, to this moment; `drains` are moments at which one of its drains
/// was said to begin.
fn live(model: &Model<'_>, node: &str, drains: &[Timestamp]) -> Bar {
    let Some(kept) = model.kept(node) else {
        return Bar::new(node, &[], model.now);
    };
    let mut marks: Vec<_> = kept.path.iter().map(|mark| (mark.state, mark.at)).collect();
    if marks.is_empty() && kept.state != State::Idle {
        marks.push((kept.state, kept.since));
    }
    // What needed no write since: as far as the host's own times tell.
    if let Some(record) = model.record(node)
        && marks
            .last()
            .is_some_and(|(state, _)| *state != record.state)
    {
        let at = model.since(node, &record).unwrap_or(model.now);
        let last = marks.last().map_or(at, |(_, at)| *at);
        marks.push((record.state, at.max(last)));
    }
    let steps = model.steps(node).iter();
    let ended = |name: &str| {
        let of_name = steps.clone().filter(|step| step.name == name);
        let ends = of_name.filter_map(|step| step.end.as_ref());
        ends.map(|at| Timestamp(at.0.as_millisecond())).collect()
    };
    let known = [
        (State::Staging, State::Staged, ended("Staging")),
        (State::Cordoned, State::Draining, drains.to_vec()),
        (State::Rebooting, State::Verifying, ended("Returning")),
    ];
    correct(&mut marks, &known);
    Bar::new(node, &marks, model.now)
}

/// A hop that needs no write is seen anew by an operator that takes over, and kept with that time.
/// Who else knows when it was is believed: the first of the moments between the two marks.
fn correct(marks: &mut [(State, Timestamp)], known: &[(State, State, Vec<Timestamp>)]) {
    for n in 1..marks.len() {
        let [.., (before, from), (state, at)] = &mut marks[..=n] else {
            continue;
        };
        let of_hop = known.iter().filter(|it| (it.0, it.1) == (*before, *state));
        let moments = of_hop.flat_map(|(_, _, moments)| moments);
        let within = moments.filter(|moment| (*from..=*at).contains(*moment));
        *at = within.min().copied().unwrap_or(*at);
    }
}

/// How a chart is headed.
pub(crate) fn title(chart: &Chart) -> String {
    let image = chart.image.as_deref().unwrap_or("its image");
    let image = match image.split_once('@') {
        Some((name, digest)) => format!("{name}@{}", fsm::image::short(digest)),
        None => image.to_owned(),
    };
    let length = crate::ages::length(chart.to.since(chart.from));
    format!(
        "pool {} to {image}: {} in {length}",
        chart.pool,
        rfc3339(chart.from)
    )
}

#[cfg(test)]
mod tests;
