//! The operator's life: from the first question to the API server to a clean end.

use std::time::Duration;

use tokio::{
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tracing::info;

use crate::{
    Config,
    health::{self, Health, Pings},
    lease::{Elector, Fence},
    observe::check,
    report::{Metrics, Scrapes, Telemetry, trace::Export},
    scrape::Scrape,
    shell::Shell,
};
use kube::Client;

/// How long the last spans may take at the end.
const FLUSH: Duration = Duration::from_secs(1);

/// Runs the operator until `shutdown` or until it cannot go on, for example since its Lease is
/// lost. There is no global state: several may run in one process.
///
/// `client` must not retry by itself (see [`connect`](crate::connect)).
pub async fn run(
    client: Client,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let (health, pings) = Health::new();
    let (metrics, scrapes) = Metrics::new();
    let mut servers = JoinSet::new();
    if let Some(listener) = health::bind(&config.probes).await? {
        servers.spawn(health::serve(listener, health.clone()));
    }
    let scrape = Scrape::open(&config, &client, metrics.clone(), health.clone()).await?;
    if let Some(scrape) = scrape {
        servers.spawn(scrape.serve());
    }
    let (spans, export) = config
        .traces
        .clone()
        .and_then(|settings| Export::begin(settings, &metrics))
        .unzip();
    let export = export.map(|export| tokio::spawn(export.run()));
    let telemetry = Telemetry { metrics, spans };
    let asked = Asked { pings, scrapes };
    let mut elector = config
        .leader_elect
        .then(|| Elector::new(client.clone(), config.identity.clone()));
    let result = tokio::select! {
        result = duty(&client, &config, elector.as_mut(), health, telemetry, asked) => result,
        () = shutdown => {
            info!("stopping");
            Ok(())
        }
    };
    // Everything that acts ended with its future; only now may another replica begin.
    let release = async {
        if let Some(elector) = elector {
            elector.release().await;
        }
    };
    tokio::join!(release, flush(export));
    result
}

/// Lets the last spans go, for a moment: a collector that is gone must not hold up the end.
async fn flush(export: Option<JoinHandle<()>>) {
    if let Some(mut export) = export
        && timeout(FLUSH, &mut export).await.is_err()
    {
        info!("the collector did not take the last spans");
        export.abort();
    }
}

/// Questions to the deciding task.
struct Asked {
    pings: Pings,
    scrapes: Scrapes,
}

async fn duty(
    client: &Client,
    config: &Config,
    elector: Option<&mut Elector>,
    health: Health,
    telemetry: Telemetry,
    asked: Asked,
) -> anyhow::Result<()> {
    check(client).await?;
    let Some(elector) = elector else {
        return decide(client, config, &Fence::open(), health, telemetry, asked).await;
    };
    health.set_ready(true);
    elector.acquire().await?;
    health.set_ready(false);
    let fence = elector.fence();
    tokio::select! {
        lost = elector.hold() => Err(lost),
        result = decide(client, config, &fence, health, telemetry, asked) => result,
    }
}

async fn decide(
    client: &Client,
    config: &Config,
    fence: &Fence,
    health: Health,
    telemetry: Telemetry,
    asked: Asked,
) -> anyhow::Result<()> {
    health.set_on_duty();
    telemetry.metrics.set_lease_held(true);
    let shell = Shell::new(client, config, fence, health, telemetry);
    shell.run(asked.pings, asked.scrapes).await
}
