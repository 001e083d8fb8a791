//! One control plane with everything installed, for all tests of a run.

use std::{
    future::Future,
    path::PathBuf,
    process::{ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bed::{
    control_plane::{AuditEvent, Config, ControlPlane, Identity},
    paths, progress,
};
use crd::{
    BootcNode,
    names::{
        GROUP_BREAK_GLASS, NAMESPACE_AGENT, NAMESPACE_OPERATOR, SERVICE_ACCOUNT_AGENT,
        SERVICE_ACCOUNT_OPERATOR,
    },
};
use k8s_openapi::api::{
    authentication::v1::TokenRequest, core::v1::ServiceAccount, rbac::v1::ClusterRoleBinding,
};
use kube::{
    Api, Client,
    api::PostParams,
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
};
use libtest_mimic::{Arguments, Trial};
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, process::Command, runtime::Handle, time::timeout};

use crate::{operator::Operator, wait};

/// Notes who asked for what, once the answer is there, and what was to be written; of Secrets not even
/// that.
const AUDIT: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: Metadata
  resources: [{ group: '', resources: [secrets] }]
- level: Request
  verbs: [create, update, patch]
- level: Metadata
";
/// How long a whole test may take.
const TEST: Duration = Duration::from_secs(300);
/// How long one call of kubectl may take.
const KUBECTL: Duration = Duration::from_secs(60);

/// A service account.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    /// Its namespace.
    pub namespace: &'static str,
    /// Its name.
    pub name: &'static str,
}

impl Account {
    /// The operator's.
    pub const OPERATOR: Self = Self {
        namespace: NAMESPACE_OPERATOR,
        name: SERVICE_ACCOUNT_OPERATOR,
    };
    /// The agent's.
    pub const AGENT: Self = Self {
        namespace: NAMESPACE_AGENT,
        name: SERVICE_ACCOUNT_AGENT,
    };

    /// The user that its tokens stand for.
    #[must_use]
    pub fn user(self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

/// The main of a test target: starts what its tests need, runs them, `at_once` side by side (which 1
/// insists on), and stops an operator that still runs.
pub fn run(
    target: &str,
    at_once: usize,
    start: impl Future<Output = Result<Arc<Suite>>>,
    trials: impl AsyncFnOnce(&Arc<Suite>) -> Result<Vec<Trial>>,
) -> ExitCode {
    let ended =
        crate::operator::log_to_file(target).and_then(|_| run_trials(at_once, start, trials));
    ended.unwrap_or_else(|error| {
        eprintln!("the tests `{target}` cannot run: {error:#}");
        ExitCode::FAILURE
    })
}

fn run_trials(
    at_once: usize,
    start: impl Future<Output = Result<Arc<Suite>>>,
    trials: impl AsyncFnOnce(&Arc<Suite>) -> Result<Vec<Trial>>,
) -> Result<ExitCode> {
    let mut args = Arguments::from_args();
    match at_once {
        1 => args.test_threads = Some(1),
        _ => drop(args.test_threads.get_or_insert(at_once)),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let (suite, trials) = runtime.block_on(async {
        let suite = start.await?;
        let trials = trials(&suite).await?;
        anyhow::Ok((suite, trials))
    })?;
    let conclusion = libtest_mimic::run(&args, trials);
    let stopped = runtime.block_on(suite.operator.end());
    drop(suite);
    stopped?;
    Ok(conclusion.exit_code())
}

/// The control plane and who talks to it.
pub struct Suite {
    cluster: ControlPlane,
    runtime: Handle,
    /// May do everything that admission lets anybody do.
    pub admin: Client,
    /// A member of the break-glass group.
    pub breaker: Client,
    /// The operator; whoever needs it starts it.
    pub operator: Operator,
    /// Tests go one after the other, each with an operator of its own: one that fails must not leave
    /// it to the next.
    alone: bool,
}

impl std::fmt::Debug for Suite {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Suite")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl Suite {
    /// Starts the control plane and installs `deploy/install.yaml`, without the operator's pods:
    /// there is no host to run them on, and tests run the operator themselves.
    pub async fn start() -> Result<Arc<Self>> {
        Self::start_with(None).await
    }

    /// The same with a log of every request that the API server has answered, for tests that have it
    /// for themselves.
    pub async fn start_audited() -> Result<Arc<Self>> {
        Self::start_with(Some(AUDIT.to_owned())).await
    }

    async fn start_with(audit_policy: Option<String>) -> Result<Arc<Self>> {
        let alone = audit_policy.is_some();
        let cluster = ControlPlane::start(Config {
            audit_policy,
            controller_manager: true,
            scheduler: true,
            // Tests say themselves which node is ready.
            controller_manager_flags: vec!["--controllers=-node-lifecycle-controller".into()],
            ..Config::default()
        })
        .await?;
        let (admin, breaker) = (
            cluster.client().await?,
            cluster
                .client_for(&Identity::member("breaker", GROUP_BREAK_GLASS))
                .await?,
        );
        let suite = Arc::new(Self {
            cluster,
            runtime: Handle::current(),
            admin,
            breaker,
            operator: Operator::default(),
            alone,
        });
        suite.install().await.context("cannot install deploy/")?;
        Ok(suite)
    }

    async fn install(&self) -> Result<()> {
        let manifest = self.manifest().await?;
        self.kubectl_with(&["apply", "--validate=strict", "-f", "-"], &manifest)
            .await?;
        self.let_breakers_in().await?;
        wait::until("the admission policies are at work", || async {
            let node = unowned_node("before-the-policies");
            let dry = PostParams {
                dry_run: true,
                ..PostParams::default()
            };
            let api = Api::<BootcNode>::all(self.admin.clone());
            match api.create(&dry, &node).await {
                Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(()),
                other => Err(format!("an admin's BootcNode gave {other:?}")),
            }
        })
        .await
    }

    /// `install.yaml` with no replica of the operator.
    async fn manifest(&self) -> Result<String> {
        let text = tokio::fs::read_to_string(install_yaml()).await?;
        let none = text.replace("\n  replicas: 2\n", "\n  replicas: 0\n");
        ensure!(none != text, "install.yaml has no `replicas: 2` any more");
        Ok(none)
    }

    /// Admission lets the break-glass group pass; RBAC must let it in as well.
    async fn let_breakers_in(&self) -> Result<()> {
        let binding: ClusterRoleBinding = serde_json::from_value(json!({
            "metadata": { "name": "breakers" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": GROUP_BREAK_GLASS }],
        }))?;
        Api::all(self.admin.clone())
            .create(&PostParams::default(), &binding)
            .await?;
        Ok(())
    }

    /// What a service account has asked for so far, in order. A watch is noted when it ends.
    pub fn asked_by(&self, account: Account) -> Result<Vec<AuditEvent>> {
        let mut all = self.cluster.audit()?;
        all.retain(|event| event.user.username == account.user());
        Ok(all)
    }

    /// A test of that name, which gets the suite.
    pub fn trial<F, Fut>(self: &Arc<Self>, name: impl Into<String>, test: F) -> Trial
    where
        F: FnOnce(Arc<Self>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<()>>,
    {
        let suite = Arc::clone(self);
        Trial::test(name, move || {
            let runtime = suite.runtime.clone();
            let outcome = runtime.block_on(async {
                let outcome = timeout(TEST, test(Arc::clone(&suite))).await;
                if suite.alone {
                    let _ended_anyhow = suite.operator.end().await;
                }
                outcome
            });
            match outcome {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(format!("{error:#}").into()),
                Err(_) => Err(format!("not over after {TEST:?}").into()),
            }
        })
    }

    /// Runs kubectl as an admin; answers its standard output, fails with its standard error.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl_with(args, "").await
    }

    /// The same with something on its standard input.
    pub async fn kubectl_with(&self, args: &[&str], input: &str) -> Result<String> {
        let output = self.run_kubectl(args, input).await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        let command = args.join(" ");
        ensure!(output.status.success(), "kubectl {command}: {errors}");
        // A warning (such as "would violate PodSecurity") is as good as a failure here.
        ensure!(!errors.contains("Warning:"), "kubectl {command}: {errors}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// `kubectl diff`: the differences between the cluster and a file; empty if there are none.
    pub async fn kubectl_diff(&self, file: &str) -> Result<String> {
        let output = self.run_kubectl(&["diff", "-f", file], "").await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        // 1 says that there are differences, more that it failed.
        ensure!(output.status.code() <= Some(1), "kubectl diff: {errors}");
        Ok(String::from_utf8(output.stdout)?)
    }

    async fn run_kubectl(&self, args: &[&str], input: &str) -> Result<std::process::Output> {
        let mut child = Command::new(paths::bin()?.join("kubectl"))
            .args(args)
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start kubectl")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        Ok(timeout(KUBECTL, child.wait_with_output()).await??)
    }

    /// A client for a service account. `bound_to` is the JSON of a `boundObjectRef`, by which the
    /// API server puts the pod's node into the token.
    pub async fn client_of(
        &self,
        account: Account,
        bound_to: Option<serde_json::Value>,
    ) -> Result<Client> {
        let token = self.token_of(account, bound_to).await?;
        let kubeconfig = self.kubeconfig_with(&token)?;
        let mut config =
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.default_retry = false;
        account.namespace.clone_into(&mut config.default_namespace);
        Ok(Client::try_from(config)?)
    }

    /// The text of a kubeconfig for a service account, for another process.
    pub async fn kubeconfig_of(&self, account: Account) -> Result<String> {
        let token = self.token_of(account, None).await?;
        let mut kubeconfig = serde_json::to_value(self.kubeconfig_with(&token)?)?;
        // It does not show what is secret.
        for user in kubeconfig["users"].as_array_mut().into_iter().flatten() {
            user["user"] = json!({ "token": token });
        }
        Ok(kubeconfig.to_string())
    }

    async fn token_of(
        &self,
        account: Account,
        bound_to: Option<serde_json::Value>,
    ) -> Result<String> {
        let request: TokenRequest = serde_json::from_value(json!({
            "spec": { "audiences": [], "boundObjectRef": bound_to },
        }))?;
        let accounts = Api::<ServiceAccount>::namespaced(self.admin.clone(), account.namespace);
        let answer = accounts
            .create_token_request(account.name, &PostParams::default(), &request)
            .await
            .with_context(|| format!("no token for {}", account.user()))?;
        Ok(answer
            .status
            .context("a token request without answer")?
            .token)
    }

    fn kubeconfig_with(&self, token: &str) -> Result<Kubeconfig> {
        let mut kubeconfig = Kubeconfig::read_from(self.cluster.kubeconfig())?;
        for named in &mut kubeconfig.auth_infos {
            named.auth_info = Some(AuthInfo {
                token: Some(token.to_owned().into()),
                ..AuthInfo::default()
            });
        }
        Ok(kubeconfig)
    }
}

impl Drop for Suite {
    fn drop(&mut self) {
        progress::say("stopping the control plane of the API tests");
    }
}

/// `deploy/install.yaml`.
#[must_use]
pub fn install_yaml() -> PathBuf {
    paths::project().join("deploy/install.yaml")
}

/// A `BootcNode` that belongs to no pool.
#[must_use]
pub fn unowned_node(name: &str) -> BootcNode {
    BootcNode::new(name, crd::BootcNodeSpec::default())
}
