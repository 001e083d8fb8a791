//! What the operator is started with.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fsm::time::Seconds;

use crate::{
    args::{Args, BindAddress},
    journal,
    report::trace::Settings,
};

/// What the operator is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Act only while holding the Lease.
    pub leader_elect: bool,
    /// Where `/healthz` and `/readyz` are served.
    pub probes: BindAddress,
    /// Where `/metrics` is served.
    pub metrics: BindAddress,
    /// Whether it asks who is there, over HTTPS.
    pub metrics_secure: bool,
    /// How often a tag is resolved again.
    pub tag_resolution_interval: Duration,
    /// Let registries without TLS be asked without it.
    pub allow_insecure_registry: bool,
    /// Where every input and decision is written.
    pub journal: Option<journal::Place>,
    /// Where traces go, if they are wanted.
    pub traces: Option<Settings>,
    /// Names this process and no other: in the Lease and in Events.
    pub identity: String,
    /// The pod that this process runs in, in the client's namespace: drained last.
    pub pod: Option<String>,
}

impl Config {
    /// The configuration of this process. In a pod, the variable `POD_NAME` says which one it is.
    #[must_use]
    pub fn of_process(args: &Args) -> Self {
        let pod = std::env::var("POD_NAME")
            .ok()
            .filter(|name| !name.is_empty());
        let identity = identity(&pod.clone().unwrap_or_else(host_name));
        Self {
            leader_elect: args.leader_elect,
            probes: args.health_probe_bind_address.clone(),
            metrics: args.metrics_bind_address.clone(),
            metrics_secure: args.metrics_secure,
            tag_resolution_interval: args.tag_resolution_interval,
            allow_insecure_registry: args.allow_insecure_registry,
            journal: args.journal.clone().map(|file| journal::Place {
                file,
                limit: u64::from(args.journal_limit_mib) << 20,
            }),
            traces: Settings::of_process(&identity),
            identity,
            pod,
        }
    }

    pub(crate) fn rollout(&self) -> fsm::Config {
        let seconds = self.tag_resolution_interval.as_secs().max(1);
        fsm::Config {
            tag_interval: Seconds(u32::try_from(seconds).unwrap_or(u32::MAX)),
        }
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() {
        "bootc-operator".to_owned()
    } else {
        name.trim().to_owned()
    }
}

/// A name that no other process has, nor this one after a restart of its container: who comes back
/// under the old name would take a Lease for its own that it may have lost.
fn identity(host: &str) -> String {
    let start = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    format!("{host}_{:x}-{:x}", std::process::id(), start.as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[test]
    fn two_processes_never_share_an_identity() {
        let identities: std::collections::BTreeSet<_> = (0..10).map(|_| identity("host")).collect();
        assert_eq!(identities.len(), 10);
        assert!(
            identities
                .iter()
                .all(|identity| identity.starts_with("host_"))
        );
    }

    #[test]
    fn an_interval_has_at_least_a_second() {
        let args = Args::parse_from(["bootc-operator", "--tag-resolution-interval=10ms"]);
        let rollout = Config::of_process(&args).rollout();
        assert_eq!(rollout.tag_interval, Seconds(1));
    }
}
