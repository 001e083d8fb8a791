//! A client with threads of its own, so that their CPU time can be told from that of the rest.

use anyhow::{Context as _, Result};
use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use operator::protobuf;
use tokio::runtime::{Builder, Handle, Runtime};

/// How many, as in the operator.
const COUNT: usize = 2;

/// The threads, and the client whose connections live on them. Dropped, both end.
pub(crate) struct Threads {
    runtime: Option<Runtime>,
    /// The client.
    pub(crate) client: Client,
    /// The same for Nodes, as the operator asks for them.
    pub(crate) of_nodes: Client,
}

impl Drop for Threads {
    fn drop(&mut self) {
        // It may not be waited for where other tasks run.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Threads {
    /// Threads of this name, and a client of this kubeconfig's user.
    pub(crate) async fn new(name: &'static str, kubeconfig: String) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(COUNT)
            .thread_name(name)
            .enable_all()
            .build()?;
        let [client, of_nodes] = runtime.spawn(connect(kubeconfig)).await??;
        Ok(Self {
            runtime: Some(runtime),
            client,
            of_nodes,
        })
    }

    /// Where to spawn what they shall do.
    pub(crate) fn handle(&self) -> Result<Handle> {
        let runtime = self.runtime.as_ref().context("no threads")?;
        Ok(runtime.handle().clone())
    }
}

async fn connect(kubeconfig: String) -> Result<[Client; 2]> {
    let kubeconfig = Kubeconfig::from_yaml(&kubeconfig)?;
    let options = KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    config.default_retry = false;
    let client = Client::try_from(config)?;
    let of_nodes = protobuf::of_nodes(&client);
    Ok([client, of_nodes])
}
