//! A cluster whose operator sends traces to a collector of ours and keeps its journals on the hosts.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bed::collector::Collector;
use bed::run_dir::RunDir;
use crd::BootcNodePool;
use crd::names::NAMESPACE_OPERATOR;
use e2e::images::Image;
use e2e::wait::until;
use e2e::{Config, Env, Programs};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::host_rig::{Rig, SOON};

/// The pool of all nodes.
pub(crate) const POOL: &str = "hosts";
/// Where journals are on each host: a file for each pod, and its older ones beside it. Only what lies
/// on the host outlasts pods, which a drain evicts.
pub(crate) const JOURNALS: &str = "/var/lib/bootc-journals";
/// As the Role names it.
const LEASE: &str = "bootc-operator.bootc.dev";
/// The name of the pool's pull secret.
pub(crate) const SECRET: &str = "seen-login";
/// What is in it.
const USER: &str = "fleet";
const PASSWORD: &str = "nobody-may-see-this";

/// The cluster, and all that looks at it.
pub(crate) struct Scene {
    pub(crate) rig: Rig,
    pub(crate) collector: Collector,
    pub(crate) programs: Programs,
    pub(crate) dir: RunDir,
}

impl Scene {
    /// Starts all of it.
    pub(crate) async fn set(nodes: usize) -> Result<Self> {
        let dir = RunDir::fresh("e2e-seen")?;
        let collector = Collector::start(dir.path()).await?;
        let env = Env::new(Config {
            nodes,
            install: false,
            ..Config::default()
        })
        .await?;
        let programs = Programs::build().await?.on(&env.kubeconfig);
        let rig = Rig::of(env);
        for node in &rig.env.nodes {
            // The operator runs as nobody.
            rig.on(node, &format!("install -d -m 1777 {JOURNALS}"))
                .await?;
        }
        let endpoint = door(&rig.env, &collector.grpc()).await?;
        let patches = patches(&endpoint);
        rig.env.install_with(&rig.env.images, &patches).await?;
        Ok(Self {
            rig,
            collector,
            programs,
            dir,
        })
    }

    /// Changes the pool's image, and gives it a pull secret.
    pub(crate) async fn want_with_secret(&self, image: &Image) -> Result<()> {
        let client = &self.rig.env.client;
        let secret: Secret = serde_json::from_value(json!({
            "metadata": { "name": SECRET },
            "type": "kubernetes.io/dockerconfigjson",
            "data": { ".dockerconfigjson": STANDARD.encode(login().to_string()) },
        }))?;
        Api::<Secret>::namespaced(client.clone(), NAMESPACE_OPERATOR)
            .create(&PostParams::default(), &secret)
            .await?;
        let spec = json!({
            "image": { "ref": image.reference() },
            "pullSecretRef": { "name": SECRET, "namespace": NAMESPACE_OPERATOR },
        });
        Api::<BootcNodePool>::all(client.clone())
            .patch(
                POOL,
                &PatchParams::default(),
                &Patch::Merge(json!({ "spec": spec })),
            )
            .await?;
        Ok(())
    }

    /// Waits until `kubectl bootc` ends so and says all of this.
    pub(crate) async fn says(&self, line: &str, code: i32, texts: &[&str]) -> Result<()> {
        let what = format!("`{line}` ends with {code} and says {texts:?}");
        until(&what, SOON, async || {
            let said = self.programs.bootc(line).await?;
            let lacks = texts.iter().any(|text| !said.stdout.contains(text));
            Ok(if said.code == code && !lacks {
                Ok(())
            } else {
                Err(format!("{said:?}"))
            })
        })
        .await
    }

    /// What `kubectl bootc` answers as JSON.
    pub(crate) async fn json(&self, line: &str) -> Result<Value> {
        let said = self.programs.bootc(line).await?;
        serde_json::from_str(&said.stdout).with_context(|| format!("{line}: {said:?}"))
    }

    /// Who acts.
    async fn holder(&self) -> Result<String> {
        let leases = Api::<Lease>::namespaced(self.rig.env.client.clone(), NAMESPACE_OPERATOR);
        let spec = leases.get(LEASE).await?.spec;
        spec.and_then(|spec| spec.holder_identity)
            .filter(|holder| !holder.is_empty())
            .context("nobody holds the Lease")
    }

    /// Kills the operator that acts, without a word; who it was.
    pub(crate) async fn kill_leader(&self) -> Result<String> {
        let holder = self.holder().await?;
        let (name, _) = holder.rsplit_once('_').context("a holder is no pod")?;
        let pods = Api::<Pod>::namespaced(self.rig.env.client.clone(), NAMESPACE_OPERATOR);
        let pod = pods.get(name).await?;
        let node = pod.spec.and_then(|spec| spec.node_name);
        let node = node.context("the operator is on no node")?;
        let script = format!(
            "for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = bootc-operator ] \
             && tr '\\0' '\\n' <$p/environ | grep -qx POD_NAME={name} && kill -KILL ${{p#/proc/}} && echo killed; done; true"
        );
        let said = self.rig.on(&node, &script).await?;
        ensure!(said == "killed", "{name} on {node}: {said}");
        Ok(holder)
    }

    /// Waits until somebody else acts.
    pub(crate) async fn another_leads(&self, before: &str) -> Result<()> {
        until("another operator has taken over", SOON, async || {
            let holder = self.holder().await?;
            Ok(if holder == before {
                Err(format!("{holder} still has the Lease"))
            } else {
                Ok(())
            })
        })
        .await
    }

    /// Copies a host's journals to this machine; the paths there.
    pub(crate) async fn journals_of(&self, node: &str) -> Result<Vec<std::path::PathBuf>> {
        let names = self.rig.on(node, &format!("ls {JOURNALS}")).await?;
        let mut copies = Vec::new();
        for name in names.lines() {
            let text = self.rig.on(node, &format!("cat {JOURNALS}/{name}")).await?;
            let copy = self.dir.path().join(format!("{node}-{name}"));
            write(&copy, &text)?;
            copies.push(copy);
        }
        Ok(copies)
    }
}

/// That neither the password nor a token is in there.
pub(crate) fn tells_nothing_secret(what: &str, text: &str) -> Result<()> {
    let login = login().to_string();
    let both = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let secrets = [
        PASSWORD,
        &both,
        &STANDARD.encode(PASSWORD),
        &STANDARD.encode(login),
        "eyJhbGciOi",
        "Bearer ",
    ];
    for secret in secrets {
        ensure!(!text.contains(secret), "{what} has {secret} in it");
    }
    Ok(())
}

/// What was read of a file lacks the end of its last line.
fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, format!("{text}\n"))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Where pods reach what listens on this machine's loopback address.
async fn door(env: &Env, endpoint: &str) -> Result<String> {
    let (_, port) = endpoint.rsplit_once(':').context("no port")?;
    let address = env.bink.bed(["door", port]).await?;
    Ok(format!("http://{address}"))
}

fn login() -> Value {
    let auth = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    json!({ "auths": { "elsewhere.example": { "auth": auth } } })
}

/// What an admin writes into an overlay for traces and journals. Files on the host are not for pods
/// of a namespace that is restricted.
fn patches(endpoint: &str) -> Vec<Value> {
    let pod = "/spec/template/spec";
    let container = format!("{pod}/containers/0");
    let variable = |name: &str, value: &str| json!({ "op": "add", "path": format!("{container}/env/-"), "value": { "name": name, "value": value } });
    let deployment = json!([
        variable("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        variable("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        { "op": "add", "path": format!("{container}/args/-"), "value": format!("--journal={JOURNALS}/$(POD_NAME)") },
        { "op": "add", "path": format!("{container}/volumeMounts"), "value": [{ "name": "journals", "mountPath": JOURNALS }] },
        { "op": "add", "path": format!("{pod}/volumes"), "value": [{ "name": "journals", "hostPath": { "path": JOURNALS, "type": "Directory" } }] },
    ]);
    let namespace = json!([
        { "op": "replace", "path": "/metadata/labels/pod-security.kubernetes.io~1enforce", "value": "privileged" },
    ]);
    let patch = |kind: &str, patch: Value| json!({ "target": { "kind": kind, "name": NAMESPACE_OPERATOR }, "patch": patch.to_string() });
    vec![
        patch("Deployment", deployment),
        patch("Namespace", namespace),
    ]
}
