//! One run: two nodes whose hosts are played, the agents' and the operator's real code, and one
//! fault. Whoever dies is started again, as a kubelet does.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use api_tests::{
    Account, Fleet, Suite,
    fleet::{A, B, LABEL, View, digest, reference},
    hosts,
    operator::Options,
};
use bed::wait::Patience;
use crd::names;
use futures::future::pending;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};
use nodeagent::{agent::Agent, api::Server, hands::Hands};
use serde_json::json;
use tokio::{
    sync::Notify,
    task::{JoinHandle, LocalSet},
    time::sleep,
};

use crate::{
    alone::in_run,
    fault::{Process, Script},
    played::PlayedHost,
};

/// How long a run may take: a fault may cost half a minute, and many runs share the machine.
const RUN: Patience = Patience {
    at_most: Duration::from_secs(200),
    every: Duration::from_millis(500),
};
/// How long it takes until a process that ended is started again.
const RESTART: Duration = Duration::from_millis(500);
const NODES: usize = 2;

/// One run.
pub(crate) struct World {
    fleet: Fleet,
    suite: Arc<Suite>,
    run: String,
    script: Arc<Script>,
    options: Options,
    hosts: Vec<Arc<PlayedHost>>,
}

impl World {
    /// Two nodes on A without a pool; somebody else cordoned the second one.
    ///
    /// The operator asks a Lease first only where that is what may go wrong: after a crash its next life
    /// waits for it.
    pub(crate) async fn new(
        suite: &Arc<Suite>,
        run: &str,
        script: Arc<Script>,
        leader_elect: bool,
    ) -> Result<Self> {
        let fleet = Fleet::apart(suite, run, NODES).await?;
        // The hosts are played otherwise here; what is left is the witness.
        fleet.plan_all(|plan| plan.mute = true);
        fleet.cordon(2, true).await?;
        if leader_elect {
            let operator = format!("--user={}", Account::OPERATOR.user());
            let all = [
                "create",
                "rolebinding",
                "lease",
                "--clusterrole=admin",
                &operator,
                "-n",
                run,
            ];
            suite.kubectl(&all).await?;
        }
        let host = || -> Result<Arc<PlayedHost>> {
            let host = PlayedHost::booted(&reference(A))?;
            // As the Node says.
            host.set("proc/sys/kernel/random/boot_id", "boot-1");
            host.set("boots", "1");
            Ok(Arc::new(host))
        };
        Ok(Self {
            fleet,
            suite: Arc::clone(suite),
            run: run.to_owned(),
            script,
            options: Options {
                leader_elect,
                ..Options::UNELECTED
            },
            hosts: (0..NODES).map(|_| host()).collect::<Result<_>>()?,
        })
    }

    /// Everything that happens, and what must be so at the end. Answers the requests.
    pub(crate) async fn play(self, operator: &Client) -> Result<Vec<String>> {
        let local = LocalSet::new();
        let mut agents = Vec::new();
        for n in 1..=NODES {
            let life = self.agent(n).await?;
            agents.push(AbortOnDrop(local.spawn_local(life)));
        }
        let operator = AbortOnDrop(tokio::spawn(self.operator(operator)));
        local
            .run_until(async {
                self.fleet.create_pool_of(&self.run, B, json!({})).await?;
                self.updated().await?;
                let calls = self.script.end();
                drop(agents);
                self.fleet.finish().await?;
                drop(operator);
                Ok(calls)
            })
            .await
    }

    /// Waits until the rollout is over, and judges it.
    async fn updated(&self) -> Result<()> {
        let rolled_out = RUN.until("the rollout is over", || async {
            let view = self.fleet.view().await?;
            view.pool_is("UpToDate=True/AllUpdated")?;
            view.pool_is("Degraded=False/OK")?;
            ensure!(view.deployed() == Some(digest(B)), "{view}");
            anyhow::Ok(view)
        });
        let view = rolled_out.await.with_context(|| self.boots())?;
        ensure!(view.runs(&digest(B)), "not on the new image: {view}");
        ensure!(view.cordoned() == [self.fleet.node(2)], "cordons: {view}");
        no_trace_of_ours(&view)?;
        ensure!(view.in_slot().is_empty(), "slots: {view}");
        let once = self.hosts.iter().all(|host| host.boots() == 2);
        ensure!(once, "not once each: {}", self.boots());
        self.fleet.used_slots(1..=1)?;
        self.fleet.check()
    }

    fn boots(&self) -> String {
        let boots: Vec<_> = self.hosts.iter().map(|host| host.boots() - 1).collect();
        format!("reboots: {boots:?}")
    }

    fn process(&self, actor: &str) -> Process {
        Process {
            actor: actor.to_owned(),
            run: self.run.clone(),
            script: Arc::clone(&self.script),
            crash: Arc::new(Notify::new()),
        }
    }

    /// The operator, again and again.
    fn operator(&self, client: &Client) -> impl Future<Output = ()> + Send + use<> {
        let process = self.process("operator");
        let client = process.client(&in_run(client, &self.run));
        let options = self.options;
        async move {
            loop {
                let life = operator::run(client.clone(), options.config(), pending());
                // A task of its own: what it spawns dies with it, and it may be in the middle of anything.
                let mut life = AbortOnDrop(tokio::spawn(life));
                tokio::select! {
                    ended = &mut life.0 => tracing::error!(?ended, "the operator ended"),
                    () = process.crash.notified() => {
                        life.0.abort();
                        let _gone = (&mut life.0).await;
                    }
                }
                sleep(RESTART).await;
            }
        }
    }

    /// The agent of node `n` and its kubelet, which starts it again after each boot.
    async fn agent(&self, n: usize) -> Result<impl Future<Output = ()> + use<>> {
        let name = self.fleet.node(n);
        let process = self.process(&format!("agent{n}"));
        let client = process.client(&hosts::agent_on(&self.suite, &name).await?);
        let server = Server::with(client, &name);
        let admin = self.suite.admin.clone();
        let host = self.hosts.get(n - 1).map(Arc::clone).context("no host")?;
        Ok(async move {
            loop {
                let boots = host.boots();
                tokio::select! {
                    () = live(&host, &server) => {}
                    () = process.crash.notified() => {}
                    () = rebooted(&host, boots) => {}
                }
                sleep(RESTART).await;
                if host.boots() > boots {
                    report_boot(&admin, &name, host.boots()).await;
                }
            }
        })
    }
}

/// The agent until it ends, which it does not do by itself.
async fn live(host: &PlayedHost, server: &Server) {
    let hands = Hands::new(host.host(), server.clone());
    match Agent::start(hands, Duration::from_secs(300)).await {
        Ok(agent) => agent.run().await,
        Err(error) => tracing::error!(%error, "an agent did not start"),
    }
}

async fn rebooted(host: &PlayedHost, boots: u32) {
    while host.boots() == boots {
        sleep(Duration::from_millis(50)).await;
    }
}

/// What the kubelet says of a new boot.
async fn report_boot(admin: &Client, node: &str, boots: u32) {
    let nodes = Api::<Node>::all(admin.clone());
    let patch = Patch::Merge(hosts::ready("True", &format!("boot-{boots}")));
    let said = nodes
        .patch_status(node, &PatchParams::default(), &patch)
        .await;
    if let Err(error) = said {
        tracing::error!(node, %error, "the kubelet cannot report");
    }
}

fn no_trace_of_ours(view: &View) -> Result<()> {
    for (name, node) in &view.nodes {
        let note = node.annotations().get(names::ANNOTATION_CORDONED_BY);
        ensure!(note.is_none(), "{name} bears our cordon: {view}");
        ensure!(node.labels().contains_key(LABEL), "{name} lost its label");
    }
    Ok(())
}

/// Ends the task with its owner.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
