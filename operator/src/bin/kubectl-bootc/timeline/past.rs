//! What is told of the past: by Events, and by a journal.

use std::{collections::BTreeMap, io::BufRead};

use fsm::{Command, State, Timestamp};
use k8s_openapi::{api::events::v1::Event, apimachinery::pkg::apis::meta::v1::MicroTime};
use operator::journal::fold;

use super::Bar;

/// An Event that tells what a node waits for.
pub(super) fn note_event(bars: &mut [Bar], event: &Event) {
    let node = event.regarding.as_ref().and_then(|it| it.name.as_deref());
    let Some(bar) = bars.iter_mut().find(|bar| Some(bar.node.as_str()) == node) else {
        return;
    };
    if let (Some("Wait"), Some(at), Some(note)) =
        (event.action.as_deref(), &event.event_time, &event.note)
    {
        bar.note(Timestamp(at.0.as_millisecond()), note);
    }
}

/// The moments at which Events say that a node's drain began.
pub(super) fn drains(events: &[Event], node: &str) -> Vec<Timestamp> {
    let of_node = events.iter().filter(|event| {
        let regarding = event.regarding.as_ref().and_then(|it| it.name.as_deref());
        regarding == Some(node) && event.reason.as_deref() == Some("Draining")
    });
    let times = of_node.flat_map(|event| {
        let last = event.series.as_ref().map(|it| &it.last_observed_time);
        [event.event_time.as_ref(), last]
    });
    let moment = |at: &MicroTime| Timestamp(at.0.as_millisecond());
    times.flatten().map(moment).collect()
}

/// What a journal tells of one node.
#[derive(Clone, Debug, Default)]
struct Told {
    pool: Option<String>,
    image: Option<String>,
    marks: Vec<(State, Timestamp)>,
    waits: Vec<(Timestamp, String)>,
}

/// The image that a pool went to last, and the bars of its nodes.
pub(super) type Pools = BTreeMap<String, (Option<String>, Vec<Bar>)>;

/// The last rollout of each pool.
pub(super) fn of_journal(journal: impl BufRead) -> anyhow::Result<Pools> {
    let mut nodes: BTreeMap<String, Told> = BTreeMap::new();
    let mut end = Timestamp(0);
    fold(journal, |entry| {
        end = entry.at;
        for command in entry.now {
            match command {
                Command::Hop {
                    node,
                    pool,
                    hop,
                    record,
                    ..
                } => {
                    let told = nodes.entry(node.to_string()).or_default();
                    let image = record.image.as_ref().map(ToString::to_string);
                    if told.image != image {
                        told.marks.clear();
                        told.waits.clear();
                        told.image = image;
                    }
                    told.pool = pool.as_ref().map(ToString::to_string).or(told.pool.take());
                    told.marks.push((hop.to, hop.at));
                }
                Command::Waiting { node, waiting } if waiting.waiting => {
                    let told = nodes.entry(node.to_string()).or_default();
                    told.waits.push((entry.at, waiting.message.clone()));
                }
                _ => {}
            }
        }
        Ok(())
    })?;
    let mut pools = Pools::new();
    for (node, told) in nodes {
        let Some(pool) = told.pool else { continue };
        let mut bar = Bar::new(&node, &told.marks, end);
        for (at, text) in &told.waits {
            bar.note(*at, text);
        }
        let (image, bars) = pools.entry(pool).or_default();
        *image = told.image.or(image.take());
        bars.push(bar);
    }
    Ok(pools)
}
