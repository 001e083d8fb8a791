//! What one input of `Rollout::handle` costs with so many nodes in the pool: instructions, counted by
//! callgrind (they repeat to a fraction of a percent), and memory of each node.
//!
//! The program runs itself under `valgrind --tool=callgrind` and reads the total; a run without the
//! measured inputs is subtracted from one with them.

use std::{
    fs,
    process::{Command, Stdio},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail, ensure};
use fsm::{
    Config, Image, Input, NodeName, Rollout, Timestamp,
    command::Command as Asked,
    input::Outcome,
    view::{
        Activity, Amount, BootcNodeView, ImageRef, Kept, NodeView, Owner, PoolSpec, PoolView,
        Report,
    },
};

use crate::table::Table;

/// Inputs of each kind that are measured.
const INPUTS: usize = 200;
const START: Timestamp = Timestamp(1_800_000_000_000);

/// Instructions and memory of `Rollout::handle`, by number of nodes
#[derive(Debug, clap::Args)]
pub(crate) struct Decisions {
    /// Nodes
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000")]
    nodes: Vec<usize>,
    /// What the program does under valgrind: NODES and KIND of input
    #[arg(long, hide = true, num_args = 2)]
    inner: Option<Vec<String>>,
}

/// A kind of input.
const KINDS: [&str; 4] = ["none", "node", "report", "tick"];

impl Decisions {
    /// Measures and gives the table; none where this is the measured program.
    pub(crate) fn measure(&self) -> Result<Option<Table>> {
        if let Some([nodes, kind]) = self.inner.as_deref() {
            play(nodes.parse()?, kind)?;
            return Ok(None);
        }
        let mut table = Table::new([
            "nodes",
            "Node changed",
            "agent reports",
            "tick",
            "KiB a node",
        ]);
        for nodes in &self.nodes {
            eprintln!("{nodes} nodes …");
            let base = instructions(*nodes, "none")?;
            let mut cells = vec![nodes.to_string()];
            for kind in KINDS.iter().skip(1) {
                let each = instructions(*nodes, kind)?.saturating_sub(base) / INPUTS as u64;
                cells.push(each.to_string());
            }
            cells.push(format!("{:.1}", memory(*nodes)?));
            let cells: [String; 5] = cells.try_into().ok().context("five cells")?;
            table.row(cells);
        }
        Ok(Some(table))
    }
}

/// Instructions of a run of this program.
fn instructions(nodes: usize, kind: &str) -> Result<u64> {
    let out = std::env::temp_dir().join(format!("callgrind-{}", std::process::id()));
    let status = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(["decisions", "--inner", &nodes.to_string(), kind])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("valgrind cannot be run; install it (apt-get install valgrind)")?;
    ensure!(
        status.success(),
        "valgrind failed with {nodes} nodes, {kind}"
    );
    let text = fs::read_to_string(&out)?;
    let _ = fs::remove_file(&out);
    let total = text.lines().find_map(|line| {
        line.strip_prefix("summary: ")
            .or(line.strip_prefix("totals: "))
    });
    Ok(total.context("callgrind tells no total")?.trim().parse()?)
}

/// Resident KiB of each node, against a rollout of one.
#[expect(clippy::cast_precision_loss, reason = "for people")]
fn memory(nodes: usize) -> Result<f64> {
    let peak = |nodes: usize| -> Result<u64> {
        let output = Command::new(std::env::current_exe()?)
            .args(["decisions", "--inner", &nodes.to_string(), "memory"])
            .output()?;
        ensure!(output.status.success(), "the measured program failed");
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    };
    let kib = peak(nodes)?.saturating_sub(peak(1)?);
    Ok(kib as f64 / nodes as f64)
}

/// The measured program: a pool in the middle of a rollout, and then inputs of one kind.
fn play(nodes: usize, kind: &str) -> Result<()> {
    let mut rollout = Rollout::new(Config::default());
    let image = image(2)?;
    let mut now = START;
    feed(
        &mut rollout,
        now,
        Input::Pool("p".into(), Some(pool(&image))),
    );
    for n in 0..nodes {
        let name = name(n);
        feed(
            &mut rollout,
            now,
            Input::Node(name.clone(), Some(node(n, true))),
        );
        let view = bootc_node(n, &image, Activity::Staging)?;
        feed(&mut rollout, now, Input::BootcNode(name, Some(view)));
    }
    feed(&mut rollout, now, Input::Synced);
    for n in 0..INPUTS {
        // No timer rings meanwhile: what is due at a time is work of that time, not of an input.
        now.0 += 1;
        let at = (n * 7919) % nodes;
        match kind {
            "none" | "memory" => {}
            "node" => {
                let ready = (n / nodes).is_multiple_of(2);
                feed(
                    &mut rollout,
                    now,
                    Input::Node(name(at), Some(node(at, !ready))),
                );
            }
            "report" => {
                let view = bootc_node(at, &image, Activity::Staged)?;
                feed(&mut rollout, now, Input::BootcNode(name(at), Some(view)));
            }
            "tick" => feed(&mut rollout, now, Input::Tick),
            other => bail!("{other} is no kind of input"),
        }
    }
    if kind == "memory" {
        let status = fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        println!("{}", kib.context("no VmRSS")?);
    }
    Ok(())
}

/// Feeds an input and answers its writes, as if all took place.
fn feed(rollout: &mut Rollout, now: Timestamp, input: Input) {
    let mut inputs = vec![input];
    while let Some(input) = inputs.pop() {
        for command in rollout.handle(now, input) {
            inputs.extend(answer(command));
        }
    }
}

fn answer(command: Asked) -> Option<Input> {
    match command {
        Asked::Decide(decision) => Some(Input::Done {
            node: decision.node,
            decision: decision.id,
            done: decision.effects.len(),
            outcome: Outcome::Ok,
        }),
        Asked::Pool { pool, write, .. } => Some(Input::PoolDone {
            pool,
            write,
            outcome: Outcome::Ok,
        }),
        Asked::Waiting { node, .. } => Some(Input::WaitingDone {
            node,
            outcome: Outcome::Ok,
        }),
        _ => None,
    }
}

fn name(n: usize) -> NodeName {
    format!("w{n:05}").into()
}

fn image(n: u8) -> Result<Image> {
    Image::of("registry.test/os", &format!("sha256:{n:064}")).context("an image")
}

fn pool(image: &Image) -> PoolView {
    PoolView {
        uid: "pool".into(),
        generation: 1,
        deleting: false,
        finalizer: true,
        spec: PoolSpec {
            max_unavailable: Amount::Count(10),
            ..PoolSpec::of(ImageRef::Pinned(image.clone()))
        },
        retry: None,
        status: None,
    }
}

fn node(n: usize, ready: bool) -> NodeView {
    NodeView {
        uid: format!("node-{n}"),
        labelled: true,
        ready: Some(ready),
        ready_since: Some(START),
        boot_id: Some(format!("boot-{n}")),
        claims: ["p".into()].into(),
        ..NodeView::default()
    }
}

fn bootc_node(n: usize, image: &Image, activity: Activity) -> Result<BootcNodeView> {
    let running = |image: &Image| fsm::Running {
        image: Some(image.as_str().to_owned()),
        digest: image.digest().to_owned(),
    };
    let record = fsm::Record {
        state: fsm::State::Staging,
        since: START,
        clock: START,
        written: START,
        image: Some(image.clone()),
        node_uid: format!("node-{n}"),
        ..fsm::Record::default()
    };
    let mut view = BootcNodeView {
        uid: format!("bootc-{n}"),
        generation: 1,
        owner: Some(Owner {
            pool: "p".into(),
            uid: "pool".into(),
        }),
        kept: Kept::Is(Arc::new(record)),
        report: Some(Arc::new(Report {
            observed_generation: Some(1),
            boot: Some(format!("boot-{n}")),
            booted: Some(running(&self::image(1)?)),
            staged: (activity == Activity::Staged).then(|| running(image)),
            activity,
            ..Report::default()
        })),
        ..BootcNodeView::default()
    };
    view.spec.image = Some(image.clone());
    Ok(view)
}
