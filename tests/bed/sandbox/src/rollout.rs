//! The pool, its update, and the times that each node took.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};
use crd::BootcNodePool;
use e2e::images::Image;
use e2e::view::{NodeLine, View};
use e2e::{Env, Programs};
use tokio::time::{sleep, timeout};

use crate::pictures::Pictures;

/// The name of the pool.
const POOL: &str = "hosts";
/// How often is looked; what the times in the table are exact to.
const LOOK: Duration = Duration::from_millis(250);
/// When the first image is not reported, or a rollout has not ended, by then
/// something is wrong.
const DEADLINE: Duration = Duration::from_secs(600);
/// How long the pool's own word may take after that of its nodes.
const LAST_WORD: Duration = Duration::from_secs(30);

/// Makes the pool with the image that the hosts run already, and waits until
/// the agents have said so.
pub(crate) async fn create_pool(env: &Env, programs: &Programs) -> Result<BootcNodePool> {
    let image = env.booted(&env.nodes[0]).await?;
    let pool = env.pool(POOL, &image).await?;
    println!("Pool {POOL}: waiting for every host's first report");
    follow(env, programs, &image, async |_| Ok(())).await?;
    Ok(pool)
}

/// Changes the pool's digest and shows the rollout to its end.
pub(crate) async fn update(
    env: &Env,
    programs: &Programs,
    pool: &BootcNodePool,
    pictures: &mut Pictures,
) -> Result<Report> {
    let image = env.images.push_os("2").await?;
    println!(
        "Pushed a new OS image, {}\nPool {POOL}: spec.image.ref is that image now\n",
        image.reference()
    );
    let started = Instant::now();
    env.set_image(pool, &image).await?;
    let mut times: BTreeMap<String, Times> = BTreeMap::new();
    follow(env, programs, &image, async |view| {
        let now = Instant::now();
        for node in &view.nodes {
            times.entry(node.name.clone()).or_default().see(node, now);
        }
        pictures.of_status(programs, view).await
    })
    .await?;
    Ok(Report {
        took: started.elapsed(),
        times,
    })
}

/// Lets `kubectl bootc` show the pool until all its nodes run this image; `see` gets each look at it.
async fn follow(
    env: &Env,
    programs: &Programs,
    image: &Image,
    mut see: impl AsyncFnMut(&View) -> Result<()>,
) -> Result<()> {
    let line = format!("status {POOL} --watch --until-updated");
    let mut command = programs.plugin(&line);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let mut shown = command.spawn().context("cannot run kubectl bootc")?;
    let all_run = async {
        loop {
            let view = View::of(&env.client, POOL).await?;
            see(&view).await?;
            if view.all_on(&image.digest) && view.nodes.len() == env.nodes.len() {
                return anyhow::Ok(());
            }
            sleep(LOOK).await;
        }
    };
    if let Ok(result) = timeout(DEADLINE, all_run).await {
        result?;
    } else {
        let view = View::of(&env.client, POOL).await?;
        bail!(
            "not all nodes run {} after {} s: {}",
            image.reference(),
            DEADLINE.as_secs(),
            view.degraded.unwrap_or(view.up_to_date)
        );
    }
    let ended = timeout(LAST_WORD, shown.wait()).await;
    let ended = ended.context("the pool does not say that it is up to date")??;
    ensure!(ended.success(), "kubectl bootc {line} failed ({ended})");
    Ok(())
}

/// What was seen of one node.
#[derive(Debug, Default)]
struct Times {
    before: String,
    after: String,
    boots: Vec<String>,
    cordoned: Option<Instant>,
    approved: Option<Instant>,
    back: Option<Instant>,
}

impl Times {
    fn see(&mut self, node: &NodeLine, now: Instant) {
        if self.before.is_empty() {
            self.before.clone_from(&node.version);
        }
        self.after.clone_from(&node.version);
        if !self.boots.contains(&node.boot) {
            self.boots.push(node.boot.clone());
        }
        if node.cordoned && self.cordoned.is_none() {
            self.cordoned = Some(now);
        }
        if node.state == "Rebooting" && self.approved.is_none() {
            self.approved = Some(now);
        }
        if self.boots.len() > 1 && node.ready && self.back.is_none() {
            self.back = Some(now);
        }
    }
}

/// The end of the story.
#[derive(Debug)]
pub(crate) struct Report {
    took: Duration,
    times: BTreeMap<String, Times>,
}

impl Report {
    /// Did every node end on another image, by exactly one reboot?
    pub(crate) fn complete(&self) -> bool {
        !self.times.is_empty()
            && self
                .times
                .values()
                .all(|node| node.before != node.after && node.boots.len() == 2)
    }

    /// From the change of the pool until all nodes were back.
    pub(crate) fn took(&self) -> Duration {
        self.took
    }

    /// One row a node.
    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_HORIZONTAL_ONLY).set_header([
            "node",
            "before",
            "after",
            "drained (s)",
            "down (s)",
            "reboots",
        ]);
        for (name, node) in &self.times {
            table.add_row([
                name.clone(),
                node.before.clone(),
                node.after.clone(),
                seconds(node.cordoned, node.approved),
                seconds(node.approved, node.back),
                node.boots.len().saturating_sub(1).to_string(),
            ]);
        }
        table
    }
}

fn seconds(from: Option<Instant>, to: Option<Instant>) -> String {
    match (from, to) {
        (Some(from), Some(to)) => format!("{:.1}", to.duration_since(from).as_secs_f32()),
        _ => "?".to_owned(),
    }
}
