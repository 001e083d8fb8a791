//! The addresses of a cluster. They are the same in each: no cluster sees another.

use std::net::{Ipv4Addr, SocketAddrV4};

/// The bridge that hosts are connected to.
pub const BRIDGE: &str = "bed0";
/// The bridge's own address: the hosts' gateway and name server.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
/// The length of the hosts' network prefix.
pub const PREFIX: u8 = 24;
/// Where hosts and pods reach the registry.
pub const REGISTRY: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 2);
/// The registry's port inside of a cluster.
pub const REGISTRY_PORT: u16 = 5000;
/// The port of the same registry where it wants a user's name and password.
pub const PROTECTED_PORT: u16 = 5001;
/// The registry's name inside of a cluster.
pub const REGISTRY_NAME: &str = "registry.cluster.local";
/// The API server, by the service address itself: so no kube-proxy is needed.
pub const API: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The API server's port inside of a cluster.
pub const API_PORT: u16 = 443;
/// How many hosts a cluster can have at a time.
pub const HOSTS: u8 = 200;

/// The registry by the name that image references have: `host:port`.
#[must_use]
pub fn registry() -> String {
    format!("{REGISTRY_NAME}:{REGISTRY_PORT}")
}

/// The same for its protected port.
#[must_use]
pub fn protected_registry() -> String {
    format!("{REGISTRY_NAME}:{PROTECTED_PORT}")
}

/// The API server's address inside of a cluster.
#[must_use]
pub fn api() -> SocketAddrV4 {
    SocketAddrV4::new(API, API_PORT)
}

/// The address of the host with that index, from 1 to [`HOSTS`].
#[must_use]
pub fn host(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 88, 0, 10_u8.saturating_add(index))
}

/// The subnet of that host's pods.
#[must_use]
pub fn pods(index: u8) -> String {
    format!("10.244.{index}.0/24")
}

/// What `ip` is to do in a new network namespace to make it a cluster's.
#[must_use]
pub fn setup() -> [String; 6] {
    [
        "link set lo up".to_owned(),
        format!("link add {BRIDGE} type bridge forward_delay 0"),
        format!("address add {GATEWAY}/{PREFIX} dev {BRIDGE}"),
        format!("address add {REGISTRY}/{PREFIX} dev {BRIDGE}"),
        format!("address add {API}/32 dev {BRIDGE}"),
        format!("link set {BRIDGE} up"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_has_an_address_that_nobody_else_has() {
        let all: std::collections::BTreeSet<Ipv4Addr> = (1..=HOSTS).map(host).collect();
        assert_eq!(all.len(), usize::from(HOSTS));
        assert!(!all.contains(&GATEWAY) && !all.contains(&REGISTRY));
    }
}
