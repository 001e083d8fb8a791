//! A host's network: a namespace of its own, wired to its cluster's bridge.
//!
//! The namespace has no name: it lives as long as the supervisor, across the
//! boots of the host, and its cable goes with it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};

use crate::config::Network;
use crate::ip::Ip;

/// Moves the calling thread into a new network namespace and wires it.
pub(crate) fn make(network: Option<&Network>, base: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)
        .context("cannot make a network namespace; this needs root")?;
    let ip = Ip::of(base)?;
    ip.run(None, "link set lo up")?;
    if let Some(network) = network {
        wire(&ip, network)?;
        fs::write("/proc/sys/net/ipv4/ip_forward", "1")
            .context("cannot let pods' traffic through")?;
    }
    Ok(())
}

/// Connects our namespace with its cluster's.
fn wire(ip: &Ip, network: &Network) -> Result<()> {
    let Network {
        bridge,
        address,
        prefix,
        gateway,
        pods,
        namespace,
    } = network;
    let cable = cable_name(*address);
    let cluster = Some(namespace.as_path());
    // A host that ended a moment ago may still have its end of the cable.
    if ip.run(cluster, &format!("link show {cable}")).is_ok() {
        ip.run(cluster, &format!("link delete {cable}"))?;
    }
    let far = namespace.display();
    ip.run(
        None,
        &format!("link add eth0 type veth peer name {cable} netns {far}"),
    )?;
    ip.run(None, &format!("address add {address}/{prefix} dev eth0"))?;
    ip.run(None, "link set eth0 up")?;
    ip.run(cluster, &format!("link set {cable} master {bridge} up"))?;
    ip.run(None, &format!("route add default via {gateway}"))?;
    ip.run(cluster, &format!("route replace {pods} via {address}"))
}

/// Pulls a host's cable out, or plugs it in again: neither the host nor its
/// boots have a part in it.
pub(crate) fn plug(network: &Network, base: &Path, is_in: bool) -> Result<()> {
    let state = if is_in { "up" } else { "down" };
    let cable = cable_name(network.address);
    Ip::of(base)?.run(
        Some(&network.namespace),
        &format!("link set {cable} {state}"),
    )
}

/// The name of the cable's end at the bridge: unique in a cluster, short
/// enough for the kernel (15 bytes), and the bed's mark.
fn cable_name(address: Ipv4Addr) -> String {
    format!("bed-{:08x}", u32::from(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cables_name_fits_the_kernel() {
        let name = cable_name(Ipv4Addr::new(10, 88, 0, 11));
        assert_eq!(name, "bed-0a58000b");
        assert!(name.len() <= 15);
    }
}
