//! What operator and agents cost: resident memory, as the kernel of the hosts
//! counts it.

use std::fmt;

use anyhow::{Context as _, Result, ensure};
use e2e::Env;

/// Budgets for three nodes, in MiB.
const AGENT_BUDGET: f32 = 6.0;
const OPERATOR_BUDGET: f32 = 30.0;

/// Resident memory, in MiB.
#[derive(Debug)]
pub(crate) struct Figures {
    agents: Vec<f32>,
    operators: Vec<f32>,
}

/// Reads `VmRSS` of every operator and agent on every host.
pub(crate) async fn measure(env: &Env) -> Result<Figures> {
    let mut figures = Figures {
        agents: Vec::new(),
        operators: Vec::new(),
    };
    for node in &env.nodes {
        figures
            .agents
            .extend(resident(env, node, "bootc-nodeagent").await?);
        figures
            .operators
            .extend(resident(env, node, "bootc-operator").await?);
    }
    ensure!(
        figures.agents.len() == env.nodes.len() && !figures.operators.is_empty(),
        "{} agents and {} operators were found on {} hosts",
        figures.agents.len(),
        figures.operators.len(),
        env.nodes.len()
    );
    Ok(figures)
}

/// `VmRSS` of the processes of this name on a host, whichever pod they are in.
async fn resident(env: &Env, node: &str, name: &str) -> Result<Vec<f32>> {
    let script = format!(
        "for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = {name} ] && sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\) kB$/\\1/p' $p/status; done; true"
    );
    let output = env.bink.ssh(node, &script).await?;
    let kib = output.stdout.lines().map(|line| line.trim().parse::<f32>());
    let kib: Vec<f32> = kib
        .collect::<Result<_, _>>()
        .with_context(|| format!("VmRSS on {node}: {}", output.stdout))?;
    Ok(kib.into_iter().map(|kib| kib / 1024.0).collect())
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Resident memory (VmRSS):")?;
        line(f, "agent", &self.agents, AGENT_BUDGET)?;
        line(f, "operator", &self.operators, OPERATOR_BUDGET)
    }
}

fn line(f: &mut fmt::Formatter<'_>, what: &str, values: &[f32], budget: f32) -> fmt::Result {
    let all: Vec<String> = values.iter().map(|mib| format!("{mib:.1}")).collect();
    let over = values.iter().any(|mib| *mib > budget);
    let verdict = if over { "OVER the budget" } else { "budget" };
    writeln!(
        f,
        "  {what:<9} {} MiB ({verdict} {budget:.0})",
        all.join(", ")
    )
}
