//! Installs `deploy/default` as an admin would: an overlay that says which
//! images, and `kubectl apply`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::images::{Image, Images};
use crate::wait::until;

/// How long `kubectl` may take.
const KUBECTL: Duration = Duration::from_secs(120);

/// The manifests with these images and patches. `dir` is for the overlay.
pub(crate) async fn render(images: &Images, patches: &[Value], dir: &Path) -> Result<String> {
    let overlay = overlay(images, patches, dir).to_string();
    fs::write(dir.join("kustomization.yaml"), overlay).context("cannot write the overlay")?;
    kubectl(None, &["kustomize", &dir.to_string_lossy()], &[]).await
}

/// Waits until every replica of the operator runs this image and one of them
/// is available.
pub(crate) async fn is_available(client: &Client, image: &Image) -> Result<()> {
    let deployments = Api::<Deployment>::namespaced(client.clone(), crd::names::NAMESPACE_OPERATOR);
    until(
        &format!("the operator is available as {}", image.digest),
        Duration::from_secs(120),
        async || {
            let deployment = deployments.get("bootc-operator").await?;
            let status = deployment.status.unwrap_or_default();
            let is_seen = status.observed_generation == deployment.metadata.generation;
            let updated = status.updated_replicas.unwrap_or(0);
            let old = status.replicas.unwrap_or(0) - updated;
            let available = status.available_replicas.unwrap_or(0);
            Ok(if is_seen && old == 0 && available > 0 {
                Ok(())
            } else {
                Err(format!("{updated} new, {old} old, {available} available"))
            })
        },
    )
    .await
}

/// What differs from `deploy/default`: the images, that their registry speaks
/// plain HTTP, and what a test wants.
fn overlay(images: &Images, patches: &[Value], dir: &Path) -> Value {
    let plain = json!({
        "target": { "kind": "Deployment", "name": "bootc-operator" },
        "patch": json!([
            { "op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--allow-insecure-registry" },
            { "op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--tag-resolution-interval=10s" },
        ]).to_string(),
    });
    let patches: Vec<&Value> = [&plain].into_iter().chain(patches).collect();
    json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [relative(dir, &bed::paths::project().join("deploy/default"))],
        "images": [image("bootc-operator", &images.operator), image("bootc-nodeagent", &images.agent)],
        "patches": patches,
    })
}

/// One entry of kustomize's `images`. The name to replace is the one that
/// `deploy/default` has put in place already.
fn image(name: &str, image: &Image) -> Value {
    json!({ "name": format!("ghcr.io/bootc-operator-rs/{name}"), "newName": image.name, "digest": image.digest })
}

/// kustomize takes no absolute paths.
fn relative(from: &Path, to: &Path) -> String {
    let up = from.components().count().saturating_sub(1);
    format!(
        "{}{}",
        "../".repeat(up),
        to.strip_prefix("/").unwrap_or(to).display()
    )
}

/// Runs `kubectl` on the `PATH`, or else the bed's own, with this on its
/// standard input; its output, or its last words in the error.
pub(crate) async fn kubectl(
    kubeconfig: Option<&Path>,
    args: &[&str],
    input: &[u8],
) -> Result<String> {
    run(command(kubeconfig)?.args(args), input).await
}

/// `kubectl` with that kubeconfig.
pub(crate) fn command(kubeconfig: Option<&Path>) -> Result<Command> {
    let mut command = Command::new(program()?);
    if let Some(kubeconfig) = kubeconfig {
        command.arg("--kubeconfig").arg(kubeconfig);
    }
    Ok(command)
}

fn program() -> Result<PathBuf> {
    match crate::bink::on_path("kubectl") {
        Some(path) => Ok(path),
        None => Ok(bed::parts::ensure(&[bed::parts::Part::Kubernetes])?.join("kubectl")),
    }
}

/// Runs a command with this on its standard input; its output, or its last
/// words in the error.
async fn run(command: &mut Command, input: &[u8]) -> Result<String> {
    let what = format!("{:?}", command.as_std());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {what}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(input)
            .await
            .with_context(|| format!("{what} does not read its input"))?;
    }
    let output = tokio::time::timeout(KUBECTL, child.wait_with_output())
        .await
        .with_context(|| format!("{what} did not end in time"))??;
    if !output.status.success() {
        bail!(
            "{what} failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::relative;
    use std::path::Path;

    #[test]
    fn a_path_leads_from_folder_to_folder() {
        assert_eq!(
            relative(Path::new("/tmp/x"), Path::new("/src/deploy")),
            "../../src/deploy"
        );
    }
}
