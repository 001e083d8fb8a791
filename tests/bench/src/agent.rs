//! What an agent costs that has nothing to do, on a host of the bed with its systemd, kubelet and
//! containerd, beside a program of the same build that does nothing.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use bed::control_plane::audit;
use clap::Args;
use crd::names::{NAMESPACE_AGENT, SERVICE_ACCOUNT_AGENT};
use e2e::{Config, Env, view::View, wait::until};
use tokio::{process::Command, time::sleep};

use crate::table::Table;

/// The host.
const NODE: &str = "node1";
/// What the agent is to stay below, resident.
const GOAL_MIB: f64 = 6.0;
/// How long the host may take until its agent is idle.
const IDLE: Duration = Duration::from_secs(180);
/// How long it is left alone before it is measured.
const CALM: Duration = Duration::from_secs(20);

/// How the agent is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct Agent {
    /// How long it is watched: with six minutes one of its polls is in it
    #[arg(long, default_value = "6m")]
    time: humantime::Duration,
}

impl Agent {
    /// Makes a cluster of one host, and measures there.
    pub(crate) async fn measure(&self) -> Result<Table> {
        let nothing = nothing().await?;
        let env = Env::new(Config::default()).await?;
        let image = env.booted(NODE).await?;
        let pool = env.pool("hosts", &image).await?;
        until("the agent is idle", IDLE, async || {
            let view = View::of(&env.client, &kube::ResourceExt::name_any(&pool)).await?;
            Ok(if view.all_on(&image.digest) {
                Ok(())
            } else {
                Err(view.up_to_date)
            })
        })
        .await?;
        start(&env, &nothing).await?;
        sleep(CALM).await;

        let names = ["bootc-nodeagent", "nothing"];
        let before = Seen::of(&env, names).await?;
        sleep(self.time.into()).await;
        let after = Seen::of(&env, names).await?;
        self.table(&before, &after)
    }

    fn table(&self, before: &Seen, after: &Seen) -> Result<Table> {
        let minutes = self.time.as_secs_f64() / 60.0;
        let mut table = Table::new(["an agent at rest", "agent", "nothing", "ratio", "goal"]);
        let [agent, nothing] = [0, 1].map(|it| after.processes.get(it).cloned());
        let (agent, nothing) = (agent.context("no agent")?, nothing.context("no baseline")?);
        let mib = |kib: f64| kib / 1024.0;
        let mut row = |what: &str, of: [f64; 2], digits: usize, goal: String| {
            let ratio = if of[1] > 0.0 {
                format!("{:.1}", of[0] / of[1])
            } else {
                "-".to_owned()
            };
            let [ours, theirs] = of.map(|it| format!("{it:.digits$}"));
            table.row([what.to_owned(), ours, theirs, ratio, goal]);
        };
        let none = String::new;
        let rss = [agent.resident, nothing.resident].map(mib);
        row("resident, MiB", rss, 2, format!("<= {GOAL_MIB}"));
        let anonymous = [agent.anonymous, nothing.anonymous].map(mib);
        row("of it its own (RssAnon), MiB", anonymous, 2, none());
        let of = |what: fn(&Process) -> f64| -> [f64; 2] {
            let mut all = before.processes.iter().zip(&after.processes);
            let mut next = || all.next().map_or(0.0, |(b, a)| what(a) - what(b));
            [next(), next()]
        };
        let each_minute = |of: [f64; 2]| of.map(|it| it / minutes);
        row(
            "wake-ups a minute",
            each_minute(of(|it| it.wakes)),
            1,
            none(),
        );
        row(
            "CPU, ms a minute",
            each_minute(of(|it| it.ticks * 10.0)),
            1,
            none(),
        );
        let children = of(|it| it.of_children).map(|faults| f64::from(u8::from(faults > 0.0)));
        row("started other programs (1: yes)", children, 0, none());
        #[allow(clippy::cast_precision_loss, reason = "a handful")]
        let requests = [(after.requests - before.requests) as f64, 0.0];
        row(
            "requests, renewed watches apart",
            requests,
            0,
            "0".to_owned(),
        );
        Ok(table)
    }
}

/// Builds the program that does nothing, as the agent is built.
async fn nothing() -> Result<PathBuf> {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let mut command = Command::from(bed::cargo::command());
    command.args([
        "build",
        "--profile",
        "small",
        "--locked",
        "--target",
        &target,
    ]);
    let status = command.args(["--package", "nothing"]).status().await?;
    ensure!(
        status.success(),
        "cannot build the program that does nothing"
    );
    Ok(bed::paths::target().join(target).join("small/nothing"))
}

/// Starts it on the host, as a unit of its systemd.
async fn start(env: &Env, nothing: &PathBuf) -> Result<()> {
    let host = PathBuf::from(env.bink.bed(["dir", NODE]).await?);
    let tmp = host.join("disk/ostree/deploy/default/var/tmp");
    std::fs::copy(nothing, tmp.join("nothing")).context("cannot copy a program to the host")?;
    let started = env.bink.ssh(NODE, "systemd-run --quiet /var/tmp/nothing");
    let started = started.await?;
    ensure!(started.code == 0, "{}", started.stderr);
    Ok(())
}

/// Everything at one moment.
struct Seen {
    processes: Vec<Process>,
    requests: usize,
}

/// What the kernel says of a process.
#[derive(Clone, Debug, Default)]
struct Process {
    /// KiB.
    resident: f64,
    /// KiB.
    anonymous: f64,
    /// Times that one of its threads began to run again after it had waited.
    wakes: f64,
    /// CPU time, in hundredths of a second.
    ticks: f64,
    /// Page faults of children that have ended.
    of_children: f64,
}

impl Seen {
    async fn of(env: &Env, names: [&str; 2]) -> Result<Self> {
        let mut processes = Vec::new();
        for name in names {
            processes.push(Process::of(env, name).await?);
        }
        let log = env.bink.bed(["audit-log"]).await?;
        let agent = format!("system:serviceaccount:{NAMESPACE_AGENT}:{SERVICE_ACCOUNT_AGENT}");
        let asked = audit::read(log.as_ref())?;
        let requests = asked
            .iter()
            .filter(|event| event.user.username == agent && event.verb != "watch");
        Ok(Self {
            requests: requests.count(),
            processes,
        })
    }
}

impl Process {
    async fn of(env: &Env, name: &str) -> Result<Self> {
        let script = format!(
            "for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = {name} ] || continue; \
             sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\) kB$/\\1/p' $p/status; \
             sed -n 's/^RssAnon:[^0-9]*\\([0-9]*\\) kB$/\\1/p' $p/status; \
             cat $p/task/*/status | sed -n 's/^voluntary_ctxt_switches:[^0-9]*//p' | \
             {{ s=0; while read n; do s=$((s+n)); done; echo $s; }}; \
             read -r stat < $p/stat; set -- ${{stat##*) }}; echo $((${{12}} + ${{13}})); echo $9; done"
        );
        let said = env.bink.ssh(NODE, &script).await?;
        let numbers: Result<Vec<f64>, _> = said.stdout.lines().map(str::parse).collect();
        let numbers = numbers.with_context(|| format!("{name}: {}", said.stdout))?;
        let [resident, anonymous, wakes, ticks, of_children] = numbers[..] else {
            anyhow::bail!("{name} runs not once on {NODE}: {}", said.stdout);
        };
        Ok(Self {
            resident,
            anonymous,
            wakes,
            ticks,
            of_children,
        })
    }
}
