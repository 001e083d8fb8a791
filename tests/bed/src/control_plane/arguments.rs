//! The components' command lines.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::{Addresses, Component, Config, audit};
use crate::process::Program;

/// The addresses of services. Its first one is the API server's.
pub(super) const SERVICES: &str = "10.96.0.0/16";

/// The programs of a control plane, in the order in which they start.
pub(super) fn programs(
    config: &Config,
    addresses: &Addresses,
    bin: &Path,
    dir: &Path,
) -> Result<BTreeMap<Component, Program>> {
    let program = |name: &str, flags: Vec<String>| Program {
        name: name.to_owned(),
        argv: std::iter::once(bin.join(name).into())
            .chain(flags.into_iter().map(OsString::from))
            .collect(),
        env: Vec::new(),
        dir: dir.to_path_buf(),
    };
    let mut programs = BTreeMap::from([
        (
            Component::Etcd,
            program("etcd", etcd(config, addresses, dir)),
        ),
        (
            Component::ApiServer,
            program("kube-apiserver", api_server(config, addresses, dir)?),
        ),
    ]);
    if config.controller_manager {
        programs.insert(
            Component::ControllerManager,
            program("kube-controller-manager", controller_manager(config, dir)),
        );
    }
    if config.scheduler {
        programs.insert(
            Component::Scheduler,
            program("kube-scheduler", scheduler(dir)),
        );
    }
    Ok(programs)
}

fn etcd(config: &Config, addresses: &Addresses, dir: &Path) -> Vec<String> {
    let (client, peer) = addresses.etcd;
    let flags = vec![
        format!("--data-dir={}", dir.join("etcd").display()),
        format!("--listen-client-urls=http://127.0.0.1:{client}"),
        format!("--advertise-client-urls=http://127.0.0.1:{client}"),
        format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
        format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
        format!("--initial-cluster=default=http://127.0.0.1:{peer}"),
        // Nothing outlives a power failure of this machine anyway.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    let further = config.etcd_flags.iter().cloned();
    flags.into_iter().chain(further).collect()
}

fn api_server(config: &Config, addresses: &Addresses, dir: &Path) -> Result<Vec<String>> {
    let pki = |file: &str| dir.join("pki").join(file).display().to_string();
    let mut flags = vec![
        format!("--etcd-servers=http://127.0.0.1:{}", addresses.etcd.0),
        format!("--bind-address={}", addresses.bind.ip()),
        format!("--secure-port={}", addresses.bind.port()),
        format!("--advertise-address={}", addresses.advertise),
        format!("--tls-cert-file={}", pki("api-server.crt")),
        format!("--tls-private-key-file={}", pki("api-server.key")),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")),
        format!("--kubelet-client-key={}", pki("kubelet-client.key")),
        format!("--service-account-key-file={}", pki("service-accounts.pub")),
        format!(
            "--service-account-signing-key-file={}",
            pki("service-accounts.key")
        ),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        format!("--service-cluster-ip-range={SERVICES}"),
        "--allow-privileged=true".to_owned(),
        // The hosts' names are known to nobody but the hosts.
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
    ];
    if addresses.advertise.is_loopback() {
        // The endpoint of `kubernetes` may not be a loopback address.
        flags.push("--endpoint-reconciler-type=none".to_owned());
    }
    if let Some(policy) = &config.audit_policy {
        let file = dir.join("audit-policy.yaml");
        fs::write(&file, policy)?;
        flags.push(format!("--audit-policy-file={}", file.display()));
        flags.push(format!(
            "--audit-log-path={}",
            dir.join(audit::LOG).display()
        ));
        // A request's events are in the file before its answer is sent.
        flags.push("--audit-log-mode=blocking".to_owned());
    }
    flags.extend(config.api_server_flags.iter().cloned());
    Ok(flags)
}

fn controller_manager(config: &Config, dir: &Path) -> Vec<String> {
    let pki = |file: &str| dir.join("pki").join(file).display().to_string();
    let flags = vec![
        format!("--kubeconfig={}", dir.join("kubeconfig").display()),
        format!(
            "--service-account-private-key-file={}",
            pki("service-accounts.key")
        ),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--cluster-signing-cert-file={}", pki("ca.crt")),
        format!("--cluster-signing-key-file={}", pki("ca.key")),
        "--use-service-account-credentials=true".to_owned(),
        "--controllers=*".to_owned(),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
        // A host boots in a second or two; the defaults would never see it go.
        "--node-monitor-period=1s".to_owned(),
        "--node-monitor-grace-period=8s".to_owned(),
    ];
    let further = config.controller_manager_flags.iter().cloned();
    // Of a flag given twice the later one counts, of a list all of them.
    flags.into_iter().chain(further).collect()
}

fn scheduler(dir: &Path) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", dir.join("kubeconfig").display()),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
    ]
}
