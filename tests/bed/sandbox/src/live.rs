//! The rollout on the screen: one line a node and a bar for the pool. Where
//! standard output is no terminal: one line for each change.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use e2e::view::{NodeLine, View};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How wide the bar of the pool is.
const BAR: &str = "{msg:<12} [{bar:24.green}] {pos}/{len} updated  {prefix}";

/// Shows view after view.
pub(crate) struct Live {
    screen: MultiProgress,
    pool: ProgressBar,
    nodes: BTreeMap<String, ProgressBar>,
    shown: BTreeMap<String, String>,
    started: Instant,
    terminal: bool,
}

impl Live {
    /// An empty screen.
    pub(crate) fn new(pool: &str) -> Self {
        let screen = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        let terminal = !screen.is_hidden();
        let bar = screen.add(ProgressBar::new(0));
        if let Ok(style) = ProgressStyle::with_template(BAR) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(pool.to_owned());
        Self {
            screen,
            pool: bar,
            nodes: BTreeMap::new(),
            shown: BTreeMap::new(),
            started: Instant::now(),
            terminal,
        }
    }

    /// Shows what is so now.
    pub(crate) fn show(&mut self, view: &View) {
        self.pool.set_length(view.total);
        self.pool.set_position(view.updated);
        self.pool.set_prefix(
            view.degraded
                .clone()
                .unwrap_or_else(|| view.up_to_date.clone()),
        );
        for node in &view.nodes {
            self.show_node(node);
        }
        if !self.terminal {
            self.print_changed("pool", summary(view));
        }
    }

    /// Leaves the last picture on the screen.
    pub(crate) fn finish(&self) {
        for node in self.nodes.values() {
            node.abandon();
        }
        self.pool.abandon();
    }

    fn show_node(&mut self, node: &NodeLine) {
        let text = text(node);
        if !self.terminal {
            self.print_changed(&node.name, text);
            return;
        }
        let screen = &self.screen;
        let bar = self.nodes.entry(node.name.clone()).or_insert_with(|| {
            let bar = screen.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{prefix:<8} {wide_msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(node.name.clone());
            bar
        });
        bar.set_message(text);
    }

    fn print_changed(&mut self, who: &str, text: String) {
        if self.shown.get(who) != Some(&text) {
            println!("{} {who:<8} {text}", clock(self.started.elapsed()));
            self.shown.insert(who.to_owned(), text);
        }
    }
}

fn clock(elapsed: Duration) -> String {
    format!("[{:>5.1} s]", elapsed.as_secs_f32())
}

fn text(node: &NodeLine) -> String {
    let ready = if node.ready { "Ready" } else { "NotReady" };
    let cordoned = if node.cordoned {
        ",SchedulingDisabled"
    } else {
        ""
    };
    let line = format!(
        "{:<10} runs {:<6} {ready}{cordoned}",
        node.state, node.version
    );
    if node.note.is_empty() {
        line
    } else {
        format!("{line}  {}", node.note)
    }
}

fn summary(view: &View) -> String {
    let degraded = view
        .degraded
        .as_ref()
        .map(|text| format!("; {text}"))
        .unwrap_or_default();
    format!(
        "{}/{} updated: {}{degraded}",
        view.updated, view.total, view.up_to_date
    )
}
