//! A chart in a terminal, and as SVG.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use fsm::{State, Timestamp};

use super::{Chart, title};
use crate::{
    ages::length,
    output::{Colour, Style},
    rows::colour,
    svg::{LINE, MARGIN, Picture, wide},
    table::{cut, wrap},
};

/// Columns of a bar where there is no terminal that says.
const COLUMNS: usize = 80;
/// Width of the bars in a picture.
const BARS: f64 = 720.0;
/// Height of a bar.
const BAR: f64 = 14.0;
/// Lines of text beside the bars are not longer.
const TEXT: usize = 100;

/// The phases in the order of a rollout, with the letter for those who see no colours.
const PHASES: [(State, char); 7] = [
    (State::Staging, 'g'),
    (State::Staged, 's'),
    (State::Cordoned, 'c'),
    (State::Draining, 'd'),
    (State::Rebooting, 'R'),
    (State::Verifying, 'v'),
    (State::Leaving, 'l'),
];

fn letter(state: State) -> char {
    let known = PHASES.iter().find(|(phase, _)| *phase == state);
    known.map_or('?', |(_, letter)| *letter)
}

fn used(chart: &Chart) -> BTreeSet<State> {
    let phases = chart.nodes.iter().flat_map(|bar| &bar.phases);
    phases.map(|phase| phase.state).collect()
}

/// What each node waited for, the longest phase first.
fn waits(chart: &Chart) -> Vec<String> {
    let mut all = Vec::new();
    for bar in &chart.nodes {
        for phase in &bar.phases {
            for wait in &phase.waited_for {
                let took = length(phase.to.since(phase.from));
                all.push(format!("{} {} {took}: {wait}", bar.node, phase.state));
            }
        }
    }
    all
}

/// Draws with blocks, or with letters where there are no colours.
pub(super) fn text(chart: &Chart, out: &mut impl Write, style: Style) -> io::Result<()> {
    let names = chart.nodes.iter().map(|bar| bar.node.chars().count());
    let name = names.max().unwrap_or(0).max(4);
    let columns = style
        .width
        .map_or(COLUMNS, |width| width.saturating_sub(name + 3).max(10));
    writeln!(out, "{}", title(chart))?;
    for bar in &chart.nodes {
        write!(out, "{:<name$}  ", bar.node)?;
        let mut last: Option<State> = None;
        let mut run = String::new();
        for column in 0..columns {
            let here = at_column(chart, bar, column, columns);
            if here != last {
                flush(out, last, &mut run, style)?;
                last = here;
            }
            run.push(match here {
                Some(_) if style.colour => '█',
                Some(state) => letter(state),
                None => ' ',
            });
        }
        flush(out, last, &mut run, style)?;
        writeln!(out)?;
    }
    let end = length(chart.to.since(chart.from));
    let gap = columns.saturating_sub(end.len() + 1);
    writeln!(out, "{:<name$}  0{:gap$}{end}", "", "")?;
    let legend = PHASES
        .iter()
        .filter(|(state, _)| used(chart).contains(state));
    let legend: Vec<_> = legend
        .map(|(state, letter)| {
            let mark = if style.colour { '█' } else { *letter };
            format!("{} {state}", colour(*state).paint(&mark.to_string(), style))
        })
        .collect();
    writeln!(out, "{:<name$}  {}", "", legend.join("   "))?;
    for wait in waits(chart) {
        writeln!(
            out,
            "{}",
            style.width.map_or(wait.clone(), |width| cut(&wait, width))
        )?;
    }
    Ok(())
}

fn flush(
    out: &mut impl Write,
    state: Option<State>,
    run: &mut String,
    style: Style,
) -> io::Result<()> {
    match state {
        Some(state) => write!(out, "{}", colour(state).paint(run, style))?,
        None => write!(out, "{run}")?,
    }
    run.clear();
    Ok(())
}

/// The phase that has the most of a column; the shortest one is seen where it is alone.
fn at_column(chart: &Chart, bar: &super::Bar, column: usize, columns: usize) -> Option<State> {
    let whole = chart.to.since(chart.from).max(1);
    let at = |column: usize| {
        let part =
            i64::try_from(column).unwrap_or(0) * whole / i64::try_from(columns.max(1)).unwrap_or(1);
        Timestamp(chart.from.0 + part)
    };
    let (from, to) = (at(column), at(column + 1));
    let shared = |phase: &&super::Phase| phase.to.min(to).since(phase.from.max(from));
    let most = bar.phases.iter().max_by_key(shared)?;
    (shared(&most) > 0).then_some(most.state)
}

/// Draws as SVG.
#[expect(clippy::cast_precision_loss, reason = "a rollout is shorter than that")]
pub(super) fn svg(chart: &Chart) -> String {
    let names = chart.nodes.iter().map(|bar| bar.node.chars().count());
    let left = MARGIN + wide(names.max().unwrap_or(0) + 2);
    let whole = chart.to.since(chart.from).max(1) as f64;
    let x = |at: Timestamp| left + at.since(chart.from) as f64 / whole * BARS;
    let mut picture = Picture::default();
    let mut y = MARGIN + LINE;
    picture.text(MARGIN, y, &title(chart), None);
    y += LINE;
    let top = y;
    for tenth in 0..=4_i64 {
        let millis = chart.to.since(chart.from) * tenth / 4;
        let at = x(Timestamp(chart.from.0 + millis));
        let bottom = top + LINE * (chart.nodes.len() as f64 + 0.3);
        picture.upright(at, top - 4.0, bottom);
        picture.text(at + 2.0, bottom + 12.0, &length(millis), Some(Colour::Dim));
    }
    for bar in &chart.nodes {
        picture.text(MARGIN, y + BAR - 2.0, &bar.node, None);
        for phase in &bar.phases {
            let took = length(phase.to.since(phase.from));
            let waits = phase.waited_for.join("; ");
            let about = format!("{} {} {took} {waits}", bar.node, phase.state);
            let width = x(phase.to) - x(phase.from);
            picture.bar(
                x(phase.from),
                y,
                width,
                BAR,
                colour(phase.state),
                about.trim_end(),
            );
        }
        y += LINE;
    }
    y += LINE * 1.8;
    let mut at = left;
    for (state, _) in PHASES
        .iter()
        .filter(|(state, _)| used(chart).contains(state))
    {
        let name = state.to_string();
        picture.bar(at, y - 10.0, 12.0, 12.0, colour(*state), &name);
        picture.text(at + 18.0, y, &name, None);
        at += 18.0 + wide(name.chars().count() + 2);
    }
    y += LINE * 0.5;
    let mut widest = at.max(left + BARS);
    widest = widest.max(MARGIN + wide(title(chart).chars().count()));
    for wait in waits(chart) {
        for (n, line) in wrap(&wait, TEXT).iter().enumerate() {
            y += LINE;
            let x = MARGIN + if n == 0 { 0.0 } else { wide(2) };
            widest = widest.max(x + wide(line.chars().count()));
            picture.text(x, y, line, Some(Colour::Dim));
        }
    }
    picture.finish(&title(chart), widest + MARGIN + 24.0, y + MARGIN)
}
