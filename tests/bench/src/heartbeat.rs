//! What a Node's heartbeat costs the operator, whom it does not concern: CPU time for each, against
//! that of decoding the whole Node with k8s-openapi, once from memory and once as a plain watch of
//! whole Nodes, which has to read it from its connection as the operator does.

use std::{borrow::Cow, hint::black_box, pin::pin, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use futures::{AsyncBufReadExt as _, StreamExt as _, stream};
use http::header::ACCEPT;
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1;
use kube::{
    Client,
    api::{Patch, PatchParams, WatchParams},
    client::Body,
    core::{Request, WatchEvent},
};
use operator::{observe::wire as observed, protobuf};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::{
    cluster::{Cluster, image, nodes, operator::Operator, wire},
    numbers::{median, micros},
    process::Cpu,
    table::Table,
    threads::Threads,
};

/// Kubelets that send at once.
const AT_ONCE: usize = 8;
/// Events that are decoded for comparison.
const SAMPLES: usize = 200;
/// What the threads of the plain watch are called.
const THREAD: &str = "whole-nodes";
/// How often each is.
const ROUNDS: u32 = 20;
/// How long the operator may take to read what has been sent.
const REST: Duration = Duration::from_secs(2);
/// An operator that uses less than a hundredth of this time has nothing to do.
const QUIET: Duration = Duration::from_secs(3);
/// How long the events may take to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures with so many nodes and so many heartbeats of each, several times.
pub(crate) async fn measure(size: usize, beats: usize, repeat: usize) -> Result<Table> {
    let cluster = Cluster::start().await?;
    let (operator, _hosts) = cluster.settled(size, &image(0), json!({})).await?;
    let threads = Threads::new(THREAD, cluster.operator_kubeconfig()?).await?;
    let plain = threads.handle()?.spawn(watch_whole(threads.client.clone()));
    let count = u32::try_from(size * beats)?;
    let (mut operators, mut plains) = (Vec::new(), Vec::new());
    let (mut whole, mut ours) = (Vec::new(), Vec::new());
    let mut bytes = [0; 2];
    until_quiet(&operator).await?;
    for _ in 0..repeat {
        sleep(REST).await;
        let before = (operator.cpu()?, Cpu::of_threads(THREAD)?);
        for _ in 0..beats {
            beat(&cluster.admin, size).await?;
        }
        sleep(REST).await;
        ensure!(!plain.is_finished(), "the watch of whole Nodes has ended");
        operators.push(micros(operator.cpu()?.since(before.0) / count));
        plains.push(micros(Cpu::of_threads(THREAD)?.since(before.1) / count));
        let lines = lines(&cluster.admin, SAMPLES.min(size)).await?;
        let frames = frames(&cluster.admin, SAMPLES.min(size)).await?;
        bytes = [mean(&frames, Vec::len), mean(&lines, String::len)];
        whole.push(decode::<v1::Node, _>(&lines, |line| {
            Ok(Cow::Borrowed(line.as_str()))
        })?);
        ours.push(decode::<observed::Node, _>(&frames, |frame| {
            let line = protobuf::line(frame.clone().into()).map_err(|error| anyhow!(error))?;
            Ok(Cow::Owned(String::from_utf8(line)?))
        })?);
    }
    let [operators, plains, whole, ours] = [operators, plains, whole, ours].map(median);
    let mut table = Table::new(["CPU µs of", "operator", "whole Nodes", "ratio"]);
    let mut row = |what: String, operator: f64, whole: f64| {
        let ratio = format!("{:.2}", operator / whole);
        table.row([what, format!("{operator:.1}"), format!("{whole:.1}"), ratio]);
    };
    row(format!("a heartbeat (of {count})"), operators, plains);
    let [protobuf, json] = bytes;
    row(
        format!("decoding alone ({protobuf} and {json} bytes)"),
        ours,
        whole,
    );
    row("a heartbeat / decoding alone".to_owned(), operators, whole);
    Ok(table)
}

/// The last Events of the first rollout are written at a pace, and are no heartbeat's affair.
async fn until_quiet(operator: &Operator) -> Result<()> {
    let quiet = async {
        loop {
            let before = operator.cpu()?;
            sleep(QUIET).await;
            if operator.cpu()?.since(before) < QUIET / 100 {
                return Ok(());
            }
        }
    };
    let waited = timeout(2 * PATIENCE, quiet).await;
    waited.context("the operator does not come to rest")?
}

/// What a client without any care does: it decodes whole Nodes, and drops them.
async fn watch_whole(client: Client) -> Result<()> {
    let request = Request::new(wire::NODES).watch(&WatchParams::default(), "0")?;
    let mut events = pin!(client.request_events::<v1::Node>(request).await?);
    while let Some(event) = events.next().await {
        black_box(event?);
    }
    Ok(())
}

/// One heartbeat of every node.
async fn beat(client: &Client, size: usize) -> Result<()> {
    let one = |n: usize| async move {
        let params = PatchParams {
            field_manager: Some("kubelet".to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Strategic(nodes::heartbeat());
        let request = Request::new(wire::NODES).patch_subresource(
            "status",
            &nodes::name(n),
            &params,
            &patch,
        )?;
        client
            .request::<wire::Object<wire::Nothing>>(request)
            .await?;
        anyhow::Ok(())
    };
    let mut all = stream::iter(0..size).map(one).buffer_unordered(AT_ONCE);
    while let Some(sent) = all.next().await {
        sent?;
    }
    Ok(())
}

/// Events of a watch on Nodes as they come over the wire, in JSON.
async fn lines(client: &Client, count: usize) -> Result<Vec<String>> {
    let request = Request::new(wire::NODES).watch(&WatchParams::default(), "0")?;
    let mut lines = client.request_stream(request).await?.lines();
    let mut events = Vec::new();
    while events.len() < count {
        let line = timeout(PATIENCE, lines.next()).await?;
        events.push(line.context("the watch ended")??);
    }
    Ok(events)
}

/// The same in protobuf: each is preceded by its length.
async fn frames(client: &Client, count: usize) -> Result<Vec<Vec<u8>>> {
    let mut request = Request::new(wire::NODES).watch(&WatchParams::default(), "0")?;
    request.headers_mut().insert(ACCEPT, protobuf::WANTED);
    let mut body = client.send(request.map(Body::from)).await?.into_body();
    let (mut read, mut events) = (Vec::new(), Vec::new());
    while events.len() < count {
        let frame = timeout(PATIENCE, body.frame()).await?;
        let data = frame.context("the watch ended")??.into_data();
        read.extend_from_slice(&data.unwrap_or_default());
        while let Some((length, rest)) = read.split_first_chunk() {
            let length = usize::try_from(u32::from_be_bytes(*length))?;
            let Some(event) = rest.get(..length) else {
                break;
            };
            events.push(event.to_vec());
            read.drain(..size_of::<u32>() + length);
        }
    }
    events.truncate(count);
    Ok(events)
}

fn mean<T>(events: &[T], length: impl Fn(&T) -> usize) -> usize {
    events.iter().map(length).sum::<usize>() / events.len().max(1)
}

/// Microseconds of CPU time for one event, by whatever makes JSON of it first.
fn decode<T: DeserializeOwned, E>(
    events: &[E],
    json: impl Fn(&E) -> Result<Cow<'_, str>>,
) -> Result<f64> {
    let before = Cpu::of_this_thread()?;
    for _ in 0..ROUNDS {
        for event in events {
            let event: WatchEvent<T> = serde_json::from_str(&json(event)?)?;
            ensure!(
                matches!(
                    black_box(event),
                    WatchEvent::Added(_) | WatchEvent::Modified(_)
                ),
                "no event"
            );
        }
    }
    let used = Cpu::of_this_thread()?.since(before);
    Ok(micros(used / ROUNDS) / crate::numbers::number(events.len() as u64))
}
