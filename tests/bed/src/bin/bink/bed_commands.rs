//! The commands that only the bed has.

use anyhow::Result;
use bed::cluster::control::Request;
use bed::cluster::supervisor;
use bed::registry;
use serde_json::json;

use crate::commands::{ask, host};
use crate::options::{Bed, Power};

pub(crate) fn run(cluster: &str, command: Bed) -> Result<()> {
    match command {
        Bed::Build => supervisor::build().map(drop),
        Bed::Dir { node } => {
            println!("{}", host(cluster, &node)?.directory().display());
            Ok(())
        }
        Bed::Boots { node } => boots(cluster, &node),
        Bed::Power(Power::Cut { node }) => host(cluster, &node)?.cut_power(),
        Bed::Power(Power::Off { node }) => host(cluster, &node)?.pull_plug(),
        Bed::Power(Power::On { node }) => ask(cluster, &Request::PowerOn { name: node }),
        Bed::BootDelay { node, delay } => host(cluster, &node)?.set_boot_delay(delay.into()),
        Bed::ControlPlane { action, component } => {
            ask(cluster, &Request::ControlPlane { component, action })
        }
        Bed::RunCluster { spec } => supervisor::run(&spec),
        Bed::RunRegistry => registry::run(),
    }
}

fn boots(cluster: &str, node: &str) -> Result<()> {
    for boot in host(cluster, node)?.boots()? {
        let time = |time| humantime::format_rfc3339_millis(time).to_string();
        let (end, ended) = boot.ended.map(|(end, at)| (end, time(at))).unzip();
        println!(
            "{}",
            json!({
                "boot": boot.id,
                "powered": time(boot.powered),
                "started": boot.started.map(time),
                "ended": ended,
                "end": end,
            })
        );
    }
    Ok(())
}
