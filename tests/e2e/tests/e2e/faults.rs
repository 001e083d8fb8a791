//! One rollout in which everything else goes wrong, a thing at a time: the
//! registry, etcd, the operator, a host's network, the speed of the API server.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crd::names::{LEASE, NAMESPACE_OPERATOR, node_reason};
use e2e::wait::until;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _};
use libtest_mimic::Trial;
use serde_json::json;
use tokio::time::sleep;

use crate::fault_rig::Disturbed;
use crate::host_rig::{SOON, UPDATE};
use crate::trial;

/// How long a host is up without a network.
const UNPLUGGED: Duration = Duration::from_secs(15);
/// How long the API server is slow, in pulses: of each the larger part is a
/// pause.
const PULSES: usize = 25;
const PAUSE: Duration = Duration::from_millis(700);
const WORK: Duration = Duration::from_millis(100);

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "faults::everything_goes_wrong_once_and_each_host_reboots_once",
        everything_goes_wrong,
    )]
}

async fn everything_goes_wrong() -> Result<()> {
    let mut rollout = Disturbed::prepare(3).await?;
    registry_away(&mut rollout)
        .await
        .context("the registry goes away in the middle of a pull")?;
    etcd_restarted(&rollout)
        .await
        .context("etcd is restarted")?;
    operator_stopped(&rollout)
        .await
        .context("the operator is stopped for longer than its Lease")?;
    rollout.loosen().await?;
    host_unplugged(&rollout)
        .await
        .context("a host comes up without a network")?;
    api_server_slow(&rollout)
        .await
        .context("the API server is slow")?;
    rollout.end().await
}

/// In the middle of a pull nothing more comes: said in bootc's words, and
/// cured by its return.
async fn registry_away(rollout: &mut Disturbed) -> Result<()> {
    let rig = &rollout.rig;
    let slow = json!({ "pull": { "bytesPerSecond": 200 } });
    rig.faults("node3", slow).await?;
    rollout.begin("2").await?;
    let rig = &rollout.rig;
    rig.when("node3", "pulls", SOON, |seen| seen.is(node_reason::STAGING))
        .await?;
    let pulling = "systemctl is-active bootc-operator-stage.service";
    until("node3 is in the middle of it", SOON, async || {
        let said = rig.env.bink.ssh("node3", pulling).await?;
        Ok(if said.stdout == "active" {
            Ok(())
        } else {
            Err(said.stdout)
        })
    })
    .await?;
    rig.env.bink.bed(["cable", "pull"]).await?;
    rig.degraded("node3", node_reason::ERROR, "staging").await?;
    rig.faults("node3", json!({})).await?;
    rig.env.bink.bed(["cable", "plug"]).await?;
    rig.when("node3", "has pulled it", UPDATE, |seen| {
        seen.is(node_reason::STAGED)
    })
    .await
    .map(drop)
}

/// Killed while a node is drained: the API server answers with errors, and
/// then again.
async fn etcd_restarted(rollout: &Disturbed) -> Result<()> {
    rollout.reached("Draining").await?;
    let bink = &rollout.rig.env.bink;
    bink.bed(["control-plane", "kill", "etcd"]).await?;
    sleep(Duration::from_secs(2)).await;
    bink.bed(["control-plane", "start", "etcd"]).await?;
    Ok(())
}

/// The leader does nothing for longer than its Lease lasts: another one takes
/// over, and the first, when it goes on, acts no more.
async fn operator_stopped(rollout: &Disturbed) -> Result<()> {
    let (leader, node) = leader(rollout).await?;
    let uid = leader.uid().context("a pod without a UID")?;
    let signal = |name: &str| {
        let cgroup = uid.replace('-', "[-_]");
        format!(
            "for p in $(grep -l '{cgroup}' /proc/[0-9]*/cgroup); do p=${{p%/cgroup}}; if [ \"$(cat $p/comm)\" = bootc-operator ]; then kill -{name} ${{p#/proc/}} && echo $p; fi; done"
        )
    };
    let stopped = rollout.rig.on(&node, &signal("STOP")).await?;
    ensure!(
        stopped.lines().count() == 1,
        "{node} has {stopped:?} for the leader {}",
        leader.name_any()
    );
    let taken = until("another operator leads", SOON, async || {
        let holder = self::leader(rollout).await?.0;
        Ok(if holder.uid() == leader.uid() {
            Err("the one that is stopped".to_owned())
        } else {
            Ok(())
        })
    })
    .await;
    rollout.rig.on(&node, &signal("CONT")).await?;
    taken?;
    // It finds itself out of time, and ends; its container is started again.
    until("the old leader has ended", SOON, async || {
        let pods = Api::<Pod>::namespaced(rollout.rig.env.client.clone(), NAMESPACE_OPERATOR);
        let pod = pods.get_opt(&leader.name_any()).await?;
        let containers = pod.and_then(|pod| pod.status?.container_statuses);
        let restarts: i32 = containers.iter().flatten().map(|it| it.restart_count).sum();
        let before: i32 = restarts_of(&leader);
        Ok(if containers.is_none() || restarts > before {
            Ok(())
        } else {
            Err("it runs on".to_owned())
        })
    })
    .await
}

fn restarts_of(pod: &Pod) -> i32 {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    containers
        .into_iter()
        .flatten()
        .map(|it| it.restart_count)
        .sum()
}

/// The operator's pod that holds the Lease, and its node.
async fn leader(rollout: &Disturbed) -> Result<(Pod, String)> {
    let client = &rollout.rig.env.client;
    let lease = Api::<Lease>::namespaced(client.clone(), NAMESPACE_OPERATOR)
        .get(LEASE)
        .await?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity);
    let holder = holder.context("nobody leads")?;
    let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE_OPERATOR);
    let all = pods.list(&kube::api::ListParams::default()).await?;
    let pod = all
        .into_iter()
        .find(|pod| holder.starts_with(&pod.name_any()));
    let pod = pod.with_context(|| format!("{holder} leads, and there is no such pod"))?;
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    Ok((pod, node.context("the leader is on no node")?))
}

/// Its cable is pulled while it is down: the new system comes up with nobody
/// to talk to.
async fn host_unplugged(rollout: &Disturbed) -> Result<()> {
    let node = rollout.down().await?;
    let bink = &rollout.rig.env.bink;
    bink.bed(["cable", "pull", &node]).await?;
    until(&format!("{node} is up"), SOON, async || {
        let said = bink.ssh(&node, "systemctl is-active kubelet").await?;
        Ok(if said.stdout == "active" {
            Ok(())
        } else {
            Err(said.stdout)
        })
    })
    .await?;
    sleep(UNPLUGGED).await;
    bink.bed(["cable", "plug", &node]).await?;
    Ok(())
}

/// Each request waits up to the length of a pause, or meets one in its middle.
async fn api_server_slow(rollout: &Disturbed) -> Result<()> {
    let bink = &rollout.rig.env.bink;
    for _ in 0..PULSES {
        bink.bed(["control-plane", "freeze", "api-server"]).await?;
        sleep(PAUSE).await;
        bink.bed(["control-plane", "thaw", "api-server"]).await?;
        sleep(WORK).await;
    }
    Ok(())
}
