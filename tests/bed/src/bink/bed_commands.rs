//! The commands that only the bed has.

use crate::cluster::control::Request;
use crate::cluster::state::State;
use crate::cluster::{network, supervisor};
use crate::registry;
use anyhow::Result;
use serde_json::json;

use super::commands::{ask, host};
use super::options::{Bed, Cable, Power};

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
        Bed::Cable(Cable::Pull { node }) => cable(cluster, node.as_deref(), false),
        Bed::Cable(Cable::Plug { node }) => cable(cluster, node.as_deref(), true),
        Bed::BootDelay { node, delay } => host(cluster, &node)?.set_boot_delay(delay.into()),
        Bed::RegistryAuth => {
            println!("Registry: {}", network::protected_registry());
            println!("User:     {}", registry::USER);
            println!("Password: {}", registry::PASSWORD);
            Ok(())
        }
        Bed::Door { port } => {
            ask(cluster, &Request::Door { port })?;
            println!("{}:{port}", network::REGISTRY);
            Ok(())
        }
        Bed::AuditLog => {
            State::running(cluster)?;
            println!("{}", supervisor::audit_log(cluster)?.display());
            Ok(())
        }
        Bed::ControlPlane { action, component } => {
            ask(cluster, &Request::ControlPlane { component, action })
        }
        Bed::RunCluster { spec } => supervisor::run(&spec),
        Bed::RunRegistry => registry::run(),
    }
}

fn cable(cluster: &str, node: Option<&str>, is_in: bool) -> Result<()> {
    match node {
        Some(node) => host(cluster, node)?.plug_cable(is_in),
        None => ask(cluster, &Request::Registry { is_in }),
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
