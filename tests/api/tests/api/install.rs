//! The manifests: rendered as committed, accepted as they are, of one mind with the code.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use api_tests::{Account, Suite, suite::install_yaml};
use bed::paths;
use crd::names;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::{Pod, PodSpec, ServiceAccount},
    rbac::v1::Role,
};
use kube::{Api, ResourceExt as _, api::PostParams};
use libtest_mimic::Trial;
use serde_json::json;

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial("install::yaml_is_the_rendered_one", rendered),
        suite.trial("install::applies_strictly_and_without_warning", applies),
        suite.trial("install::samples_are_accepted", samples),
        suite.trial("install::has_the_names_of_the_code", names_of_the_code),
        suite.trial("install::operator_pod_is_restricted", operator_pod),
        suite.trial("install::agent_pod_reaches_its_host", agent_pod),
        suite.trial(
            "install::operator_namespace_takes_no_privileged_pod",
            no_privileged,
        ),
    ]
}

async fn rendered(suite: Arc<Suite>) -> Result<()> {
    let default = paths::project().join("deploy/default");
    let rendered = suite
        .kubectl(&["kustomize", &default.to_string_lossy()])
        .await?;
    ensure!(
        rendered == tokio::fs::read_to_string(install_yaml()).await?,
        "deploy/install.yaml is stale; render it again: kubectl kustomize deploy/default > deploy/install.yaml"
    );
    Ok(())
}

/// The suite has applied it for real, with kubectl's strict validation and no warning allowed.
async fn applies(suite: Arc<Suite>) -> Result<()> {
    let file = install_yaml();
    let file = file.to_string_lossy();
    suite
        .kubectl(&[
            "apply",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            &file,
        ])
        .await?;
    // What the API server holds is what the file says: nothing pruned, nothing filled in. The
    // suite itself leaves the replicas out.
    let diff = suite.kubectl_diff(&file).await?;
    let changed: Vec<_> = diff
        .lines()
        .filter(|line| is_change(line))
        .map(str::trim)
        .collect();
    ensure!(
        changed
            == [
                "-  generation: 1",
                "+  generation: 2",
                "-  replicas: 0",
                "+  replicas: 2"
            ],
        "{diff}"
    );
    Ok(())
}

/// A line of a unified diff that is neither context nor a file's name.
fn is_change(line: &str) -> bool {
    line.starts_with(['+', '-']) && !line.starts_with("+++") && !line.starts_with("---")
}

async fn samples(suite: Arc<Suite>) -> Result<()> {
    let samples = paths::project().join("deploy/samples");
    let dry = [
        "create",
        "--dry-run=server",
        "--validate=strict",
        "-k",
        &samples.to_string_lossy(),
    ];
    let done = suite.kubectl(&dry).await?;
    ensure!(done.lines().count() == 3, "{done}");
    Ok(())
}

async fn names_of_the_code(suite: Arc<Suite>) -> Result<()> {
    for account in [Account::OPERATOR, Account::AGENT] {
        let accounts = Api::<ServiceAccount>::namespaced(suite.admin.clone(), account.namespace);
        accounts.get(account.name).await?;
    }
    let roles = Api::<Role>::namespaced(suite.admin.clone(), names::NAMESPACE_OPERATOR);
    let role = roles.get("bootc-operator").await?;
    let leases = role
        .rules
        .iter()
        .flatten()
        .filter_map(|rule| rule.resource_names.as_ref());
    ensure!(leases.flatten().eq([names::LEASE]), "{role:?}");
    let agent = daemon_set(&suite).await?;
    let selector = agent.node_selector.unwrap_or_default();
    ensure!(
        selector
            .into_iter()
            .eq([(names::LABEL_MANAGED.to_owned(), String::new())])
    );
    let policies = suite
        .kubectl(&["get", "validatingadmissionpolicies", "-o", "yaml"])
        .await?;
    for name in [
        names::GROUP_BREAK_GLASS,
        names::ANNOTATION_CORDONED_BY,
        names::PREFIX,
        &Account::OPERATOR.user(),
        &Account::AGENT.user(),
    ] {
        ensure!(policies.contains(name), "no policy knows {name}");
    }
    Ok(())
}

async fn daemon_set(suite: &Suite) -> Result<PodSpec> {
    let sets = Api::<DaemonSet>::namespaced(suite.admin.clone(), names::NAMESPACE_AGENT);
    let set = sets.get("bootc-nodeagent").await?;
    set.spec
        .and_then(|spec| spec.template.spec)
        .context("no pod in the DaemonSet")
}

async fn deployment(suite: &Suite) -> Result<PodSpec> {
    let deployments = Api::<Deployment>::namespaced(suite.admin.clone(), names::NAMESPACE_OPERATOR);
    let deployment = deployments.get("bootc-operator").await?;
    deployment
        .spec
        .and_then(|spec| spec.template.spec)
        .context("no pod in the Deployment")
}

/// Would the namespace take such a pod?
async fn admit(suite: &Suite, namespace: &str, spec: PodSpec) -> kube::Result<Pod> {
    let pod = Pod {
        metadata: kube::api::ObjectMeta {
            name: Some("trial".into()),
            ..Default::default()
        },
        spec: Some(spec),
        ..Pod::default()
    };
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    Api::namespaced(suite.admin.clone(), namespace)
        .create(&dry, &pod)
        .await
}

async fn operator_pod(suite: Arc<Suite>) -> Result<()> {
    let spec = deployment(&suite).await?;
    let container = spec.containers.first().context("no container")?;
    let secured = container.security_context.clone().unwrap_or_default();
    ensure!(secured.read_only_root_filesystem == Some(true));
    ensure!(spec.volumes.is_none(), "the operator needs no volume");
    let tolerated = |key: &str| {
        let keys = spec
            .tolerations
            .iter()
            .flatten()
            .filter_map(|t| t.key.as_deref());
        keys.into_iter().any(|have| have == key)
    };
    ensure!(tolerated("node.kubernetes.io/unschedulable") && tolerated(names::LABEL_CONTROL_PLANE));
    admit(&suite, names::NAMESPACE_OPERATOR, spec).await?;
    Ok(())
}

async fn agent_pod(suite: Arc<Suite>) -> Result<()> {
    let spec = daemon_set(&suite).await?;
    ensure!(
        spec.host_pid == Some(true),
        "PID 1 of the host must be visible"
    );
    ensure!(spec.volumes.is_none(), "nothing of the host is mounted");
    ensure!(spec.priority_class_name.as_deref() == Some("system-node-critical"));
    let all = spec
        .tolerations
        .iter()
        .flatten()
        .any(|t| t.key.is_none() && t.operator.as_deref() == Some("Exists"));
    ensure!(all, "a taint could keep the agent away");
    let pod = admit(&suite, names::NAMESPACE_AGENT, spec).await?;
    ensure!(pod.name_any() == "trial");
    Ok(())
}

async fn no_privileged(suite: Arc<Suite>) -> Result<()> {
    let agent = daemon_set(&suite).await?;
    let spec: PodSpec = serde_json::from_value(json!({
        "containers": agent.containers, "hostPID": true,
    }))?;
    match admit(&suite, names::NAMESPACE_OPERATOR, spec).await {
        Err(kube::Error::Api(status)) if status.is_forbidden() => {
            ensure!(
                status.message.contains("violates PodSecurity \"restricted"),
                "{}",
                status.message
            );
            Ok(())
        }
        other => bail!("a privileged pod was let in: {other:?}"),
    }
}
