//! `kubectl bootc status`: pools, then nodes.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    time::Duration,
};

use anyhow::{anyhow, bail};
use futures::StreamExt as _;
use operator::observe::time::now;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::{
    Verdict,
    ages::age,
    cli::{Output, Status},
    cluster::{Cluster, Objects},
    model::Model,
    output::{Colour, Style, json, yaml},
    rows::{NodeRow, PoolRow},
    svg,
    table::{Cell, Table},
};

/// News are drawn at most so often.
const DRAWN: Duration = Duration::from_millis(250);
/// Ages go on while nothing happens.
const AGED: Duration = Duration::from_secs(1);

/// Pools and their nodes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Shown {
    pub(crate) pools: Vec<PoolRow>,
    pub(crate) nodes: Vec<NodeRow>,
}

impl Shown {
    /// Of these pools, or of all.
    pub(crate) fn of(model: &Model<'_>, wanted: &[String]) -> Self {
        let all = model.objects.pools.keys();
        let names: Vec<&String> = all
            .filter(|name| wanted.is_empty() || wanted.contains(name))
            .collect();
        let mut nodes: BTreeMap<(Option<String>, String), NodeRow> = BTreeMap::new();
        for pool in &names {
            for node in model.nodes_of(pool) {
                let row = NodeRow::of(model, &node);
                nodes.insert((row.pool.clone(), node), row);
            }
        }
        Self {
            pools: names
                .iter()
                .filter_map(|name| PoolRow::of(model, name))
                .collect(),
            nodes: nodes.into_values().collect(),
        }
    }

    pub(crate) fn verdict(&self) -> Verdict {
        if self.pools.iter().all(PoolRow::is_good) {
            Verdict::Good
        } else {
            Verdict::Waits
        }
    }
}

/// Runs the command.
pub(crate) async fn run(cluster: &Cluster, args: &Status) -> anyhow::Result<Verdict> {
    let objects = cluster.objects().await?;
    for pool in &args.pools {
        if !objects.pools.contains_key(pool) {
            bail!("there is no pool {pool}: kubectl get bnp");
        }
    }
    if let Some(unread) = &objects.unread {
        eprintln!("warning: {unread}; shown without what Nodes say");
    }
    if args.watch {
        return follow(cluster, args, objects).await;
    }
    let model = Model::new(&objects, now());
    let shown = Shown::of(&model, &args.pools);
    print(&mut io::stdout().lock(), &shown, args, Style::of_stdout())?;
    Ok(shown.verdict())
}

fn print(out: &mut impl Write, shown: &Shown, args: &Status, style: Style) -> anyhow::Result<()> {
    match args.output {
        Output::Json => json(out, shown),
        Output::Yaml => yaml(out, shown),
        Output::Svg => {
            let tables = tables(shown, false);
            let lines: Vec<_> = tables.iter().collect();
            Ok(write!(
                out,
                "{}",
                svg::of_tables("kubectl bootc status", &lines)
            )?)
        }
        Output::Table | Output::Wide => {
            let wide = args.output == Output::Wide;
            let style = Style {
                width: style.width.filter(|_| !wide),
                ..style
            };
            Ok(draw(out, shown, wide, style, !args.no_headers)?)
        }
    }
}

fn draw(
    out: &mut impl Write,
    shown: &Shown,
    wide: bool,
    style: Style,
    headers: bool,
) -> io::Result<()> {
    if shown.pools.is_empty() {
        return writeln!(out, "No pools found.");
    }
    let [pools, nodes] = tables(shown, wide);
    pools.print(out, style, headers)?;
    for pool in &shown.pools {
        if let Some(problem) = &pool.problem {
            let text = format!("{}: {}: {}", pool.name, problem.reason, problem.message);
            writeln!(out, "{}", Colour::Bad.paint(&text, style))?;
        }
    }
    if !nodes.rows.is_empty() {
        writeln!(out)?;
        nodes.print(out, style, headers)?;
    }
    Ok(())
}

/// The table of pools and that of nodes.
pub(crate) fn tables(shown: &Shown, wide: bool) -> [Table; 2] {
    let mut pools = Table::new(&[
        "POOL", "IMAGE", "UPDATED", "SLOTS", "STATUS", "SINCE", "MESSAGE",
    ]);
    pools.rows = shown
        .pools
        .iter()
        .map(|pool| pool_cells(pool, wide))
        .collect();
    let headers: &[&str] = if wide {
        &[
            "NODE", "POOL", "STATE", "SINCE", "READY", "SLOT", "BOOTED", "STAGED", "ROLLBACK",
            "WANTED", "WAITS", "FOR",
        ]
    } else {
        &[
            "NODE", "POOL", "STATE", "SINCE", "BOOTED", "STAGED", "WAITS", "FOR",
        ]
    };
    let mut nodes = Table::new(headers);
    nodes.rows = shown
        .nodes
        .iter()
        .map(|node| node_cells(node, wide))
        .collect();
    [pools, nodes]
}

fn pool_cells(pool: &PoolRow, wide: bool) -> Vec<Cell> {
    let digest = pool.target_digest.as_deref().map(|digest| {
        if wide {
            digest
        } else {
            fsm::image::short(digest)
        }
    });
    // A pinned reference is long, and its digest is all that tells it from another one.
    let image = match (pool.image.split_once('@'), digest) {
        (Some((repository, _)), Some(digest)) => format!("{repository}@{digest}"),
        (None, Some(digest)) => format!("{}@{digest}", pool.image),
        (_, None) => pool.image.clone(),
    };
    let slots = pool.slots_used.zip(pool.slots_allowed);
    let colour = match pool {
        PoolRow {
            problem: Some(_), ..
        } => Colour::Bad,
        PoolRow {
            up_to_date: true, ..
        } => Colour::Good,
        _ => Colour::Busy,
    };
    let reason = pool.problem.as_ref().map_or(&pool.reason, |it| &it.reason);
    vec![
        Cell::from(pool.name.as_str()),
        Cell::from(image),
        Cell::from(format!("{}/{}", pool.updated, pool.nodes)),
        Cell::from(slots.map(|(used, allowed)| format!("{used}/{allowed}"))),
        Cell::new(reason.as_str(), colour),
        Cell::from(pool.since_at.map(|since| age(since, now()))),
        Cell::from(pool.message.as_str()),
    ]
}

fn node_cells(node: &NodeRow, wide: bool) -> Vec<Cell> {
    let image = |image: &Option<crate::rows::Image>| {
        Cell::from(image.as_ref().map(|image| {
            let text = image.text();
            if wide && image.version.is_some() {
                format!("{text} ({})", fsm::image::short(&image.digest))
            } else {
                text
            }
        }))
    };
    let yes = |is: bool| if is { "True" } else { "False" };
    let ready = node.ready.map(|ready| {
        let cordoned = node.cordoned == Some(true);
        format!("{}{}", yes(ready), if cordoned { ",Cordoned" } else { "" })
    });
    let waits = node.waiting.as_ref().map_or_else(
        || Cell::new("-", Colour::Dim),
        |wait| Cell::from(wait.reason.as_str()),
    );
    let mut cells = vec![
        Cell::from(node.name.as_str()),
        Cell::from(node.pool.clone()),
        Cell::new(node.state.as_str(), node.colour()),
        Cell::from(node.since_at.map(|since| age(since, now()))),
    ];
    if wide {
        cells.push(Cell::from(ready));
        cells.push(Cell::from(yes(node.in_slot)));
    }
    cells.push(image(&node.booted));
    cells.push(image(&node.staged));
    if wide {
        cells.push(image(&node.rollback));
        cells.push(Cell::from(node.wanted.clone()));
    }
    cells.push(waits);
    cells.push(Cell::from(node.note()));
    cells
}

/// Shows what happens until it is interrupted, or all is up to date.
async fn follow(cluster: &Cluster, args: &Status, objects: Objects) -> anyhow::Result<Verdict> {
    if !matches!(args.output, Output::Table | Output::Wide) {
        bail!("--watch prints tables; for programs there is kubectl get bn,bnp --watch -o json");
    }
    let mut objects = objects;
    let mut screen = Screen::new(args);
    let mut news = cluster.watch();
    let mut clock = interval(AGED);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut due: Option<Instant> = Some(Instant::now());
    loop {
        tokio::select! {
            watch = news.next() => {
                objects.watched(watch.ok_or_else(|| anyhow!("the watches have ended"))?);
                due.get_or_insert_with(|| Instant::now() + DRAWN);
            }
            _ = clock.tick(), if screen.is_terminal() => {
                due.get_or_insert_with(Instant::now);
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                due = None;
                let model = Model::new(&objects, now());
                let shown = Shown::of(&model, &args.pools);
                screen.show(&shown)?;
                let over = !shown.pools.is_empty() && shown.verdict() == Verdict::Good;
                if args.until_updated && over {
                    return Ok(Verdict::Good);
                }
            }
        }
    }
}

/// Where a rollout is followed.
struct Screen {
    style: Style,
    wide: bool,
    headers: bool,
    begin: Instant,
    last: BTreeMap<String, String>,
}

impl Screen {
    fn new(args: &Status) -> Self {
        Self {
            style: Style::of_stdout(),
            wide: args.output == Output::Wide,
            headers: !args.no_headers,
            begin: Instant::now(),
            last: BTreeMap::new(),
        }
    }

    fn is_terminal(&self) -> bool {
        self.style.width.is_some()
    }

    fn show(&mut self, shown: &Shown) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.is_terminal() {
            let mut text = Vec::new();
            draw(&mut text, shown, self.wide, self.style, self.headers)?;
            out.write_all(self.redrawn(&text).as_bytes())?;
        } else {
            for (name, line) in lines(shown) {
                if self.last.get(&name) != Some(&line) {
                    let seconds = self.begin.elapsed().as_secs_f64();
                    writeln!(out, "[{seconds:>6.1} s] {line}")?;
                    self.last.insert(name, line);
                }
            }
        }
        out.flush()
    }

    /// From the terminal's top, over what was there; no more lines than it has.
    fn redrawn(&self, text: &[u8]) -> String {
        let text = String::from_utf8_lossy(text);
        let fits = self.style.height.unwrap_or(usize::MAX).saturating_sub(1);
        let lines: Vec<_> = text.lines().take(fits).collect();
        let lines = lines.join("\x1b[K\r\n");
        format!("\x1b[H{lines}\x1b[K\r\n\x1b[J")
    }
}

/// One line a pool and a node, without what changes by itself.
fn lines(shown: &Shown) -> Vec<(String, String)> {
    let pools = shown.pools.iter().map(|pool| {
        let PoolRow {
            name,
            updated,
            nodes,
            reason,
            message,
            ..
        } = pool;
        let problem = pool.problem.as_ref();
        let problem = problem.map(|it| format!("; {}: {}", it.reason, it.message));
        let problem = problem.unwrap_or_default();
        let line = format!("pool {name}: {updated}/{nodes} {reason} {message}{problem}");
        (format!("pool/{name}"), line.trim_end().to_owned())
    });
    let nodes = shown.nodes.iter().map(|node| {
        let text = |image: &Option<crate::rows::Image>| {
            image
                .as_ref()
                .map_or_else(|| "-".to_owned(), crate::rows::Image::text)
        };
        let line = format!(
            "node {:<12} {:<10} runs {}  {}",
            node.name,
            node.state,
            text(&node.booted),
            node.note()
        );
        (format!("node/{}", node.name), line.trim_end().to_owned())
    });
    pools.chain(nodes).collect()
}
