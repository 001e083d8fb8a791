//! A host's network: a namespace of its own, wired to its cluster's bridge.
//!
//! The namespace has no name: it lives as long as the supervisor, across the
//! boots of the host, and its cable goes with it.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, unshare};

use crate::config::Network;

/// Moves the calling thread into a new network namespace and wires it.
pub(crate) fn make(network: Option<&Network>, base: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)
        .context("cannot make a network namespace; this needs root")?;
    let ip = Ip::of(base)?;
    ip.run(None, "link set lo up")?;
    if let Some(network) = network {
        ip.wire(network)?;
        fs::write("/proc/sys/net/ipv4/ip_forward", "1")
            .context("cannot let pods' traffic through")?;
    }
    Ok(())
}

/// The base tree's `ip`, so that the machine needs none.
struct Ip {
    loader: PathBuf,
    libraries: PathBuf,
    program: PathBuf,
}

impl Ip {
    fn of(base: &Path) -> Result<Self> {
        Ok(Self {
            loader: find(&base.join("usr/lib64"), "ld-linux")
                .or_else(|_| find(&base.join("usr/lib"), "ld-linux"))?,
            libraries: find(&base.join("usr/lib"), "-linux-gnu")?,
            program: base.join("usr/bin/ip"),
        })
    }

    fn wire(&self, network: &Network) -> Result<()> {
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
        if self.run(cluster, &format!("link show {cable}")).is_ok() {
            self.run(cluster, &format!("link delete {cable}"))?;
        }
        let far = namespace.display();
        self.run(
            None,
            &format!("link add eth0 type veth peer name {cable} netns {far}"),
        )?;
        self.run(None, &format!("address add {address}/{prefix} dev eth0"))?;
        self.run(None, "link set eth0 up")?;
        self.run(cluster, &format!("link set {cable} master {bridge} up"))?;
        self.run(None, &format!("route add default via {gateway}"))?;
        self.run(cluster, &format!("route replace {pods} via {address}"))
    }

    /// Runs `ip` in our own namespace or in another.
    fn run(&self, namespace: Option<&Path>, arguments: &str) -> Result<()> {
        let mut command = match namespace {
            None => Command::new(&self.loader),
            Some(namespace) => {
                let mut command = Command::new("nsenter");
                command
                    .arg(format!("--net={}", namespace.display()))
                    .arg("--")
                    .arg(&self.loader);
                command
            }
        };
        let output = command
            .arg("--library-path")
            .arg(&self.libraries)
            .arg(&self.program)
            .args(arguments.split(' '))
            .output()
            .context("cannot run ip(8) of the base tree")?;
        if !output.status.success() {
            bail!(
                "ip {arguments}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }
}

/// The first entry of a directory whose name contains `part`.
fn find(directory: &Path, part: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(directory)
        .with_context(|| format!("no {}: the base tree is damaged", directory.display()))?
    {
        let entry = entry?;
        if entry
            .file_name()
            .as_bytes()
            .windows(part.len())
            .any(|window| window == part.as_bytes())
        {
            return Ok(entry.path());
        }
    }
    bail!(
        "nothing like {part} in {}: the base tree is damaged",
        directory.display()
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
