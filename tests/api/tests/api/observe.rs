//! What of a real Node wakes the operator up: its labels as far as a pool selects by them, whether it is
//! Ready and schedulable, and its boot. A cluster of thousands says everything else all the time.

use std::{pin::pin, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use api_tests::{Fleet, Suite, fleet::LABEL, hosts};
use crd::names::ANNOTATION_CORDONED_BY;
use fsm::{Input, view::NodeView};
use futures::{Stream, StreamExt as _};
use http::header::{ACCEPT, CONTENT_TYPE};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams, WatchParams},
    client::Body,
    core::Request,
};
use libtest_mimic::Trial;
use operator::{
    observe::{Index, Watch, watch, wire},
    protobuf,
    report::Metrics,
};
use serde_json::{Value, json};
use tokio::time::timeout;

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial(
            "observe::heartbeats_images_and_annotations_wake_nobody",
            wakes,
        ),
        suite.trial("observe::nodes_are_the_same_in_protobuf_and_json", forms),
    ]
}

const NAME: &str = "wakes-1";

/// The operator's own watch and index, and what they say of one node.
struct Observer<S> {
    watch: S,
    index: Index,
}

impl<S: Stream<Item = Watch> + Unpin> Observer<S> {
    /// All that is said of the node up to the first that fits.
    async fn until(&mut self, fits: impl Fn(&NodeView) -> bool) -> Result<Vec<NodeView>> {
        let mut said = Vec::new();
        loop {
            let news = timeout(api_tests::wait::PATIENCE, self.watch.next()).await;
            let news = news.with_context(|| format!("only {said:?}"))?;
            for input in self.index.watched(news.context("the watch ended")?) {
                match input {
                    Input::Node(name, Some(view)) if name.as_str() == NAME => {
                        said.push(view.clone());
                        if fits(&view) {
                            return Ok(said);
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

async fn wakes(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::new(&suite, "wakes", 1).await?;
    fleet.create_pool("wakes", json!({})).await?;
    let client = suite.client_of(api_tests::Account::OPERATOR, None).await?;
    let mut observer = Observer {
        watch: pin!(watch(&client, &Metrics::new().0)),
        index: Index::default(),
    };
    observer.until(|view| view.claims.len() == 1).await?;

    let nodes = Api::<Node>::all(suite.admin.clone());
    let params = PatchParams::default();
    let status = async |status: Value| -> Result<()> {
        let patch = Patch::Strategic(json!({ "status": status }));
        nodes.patch_status(NAME, &params, &patch).await?;
        Ok(())
    };
    let main = async |patch: Value| -> Result<()> {
        nodes.patch(NAME, &params, &Patch::Merge(patch)).await?;
        Ok(())
    };
    for n in 0..5 {
        let beat = format!("2026-01-01T00:00:0{n}Z");
        let condition = |kind: &str| json!({ "type": kind, "status": "True", "reason": format!("Beat{n}"), "lastHeartbeatTime": beat });
        status(json!({ "conditions": [condition("Ready"), condition("DiskPressure")] })).await?;
        status(
            json!({ "images": [{ "names": [format!("registry.test/app:{n}")], "sizeBytes": n }] }),
        )
        .await?;
        status(json!({ "allocatable": { "pods": format!("{}", 100 + n) } })).await?;
        status(json!({ "volumesInUse": [format!("volume-{n}")] })).await?;
        main(json!({ "metadata": { "annotations": { "test/note": format!("{n}") } } })).await?;
        main(json!({ "metadata": { "labels": { "test/unselected": format!("{n}") } } })).await?;
        main(json!({ "spec": { "taints": [{ "key": format!("test/{n}"), "effect": "PreferNoSchedule" }] } })).await?;
    }
    main(json!({ "spec": { "unschedulable": true } })).await?;
    let said = observer.until(|view| view.cordoned).await?;
    ensure!(said.len() == 1, "woken up {} times: {said:#?}", said.len());

    // Each of these wakes, once.
    let ready = |ready: &str, boot: &str| Patch::Merge(hosts::ready(ready, boot));
    nodes
        .patch_status(NAME, &params, &ready("False", "boot-1"))
        .await?;
    let said = observer.until(|view| view.ready == Some(false)).await?;
    ensure!(said.len() == 1, "{said:#?}");
    nodes
        .patch_status(NAME, &params, &ready("False", "boot-2"))
        .await?;
    let boot = |view: &NodeView| view.boot_id.as_deref() == Some("boot-2");
    let said = observer.until(boot).await?;
    ensure!(said.len() == 1, "{said:#?}");
    fleet.take_out(1).await?;
    let said = observer.until(|view| view.claims.is_empty()).await?;
    ensure!(said.len() == 1, "{said:#?}");
    // Nobody runs the operator here, so nothing holds the pool.
    fleet.finish().await
}

/// All that is read of a Node.
fn read(node: &wire::Node) -> String {
    let meta = &node.metadata;
    let all = meta.annotations.clone().unwrap_or_default();
    let annotations = all.get(ANNOTATION_CORDONED_BY);
    format!(
        "{:?} {:?} {:?} {:?} {annotations:?} {:?} {:?} {:?}",
        meta.name,
        meta.uid,
        meta.resource_version,
        meta.labels,
        node.spec,
        node.status.ready(),
        node.status.node_info
    )
}

/// The code of a refusal.
fn refused<T>(result: kube::Result<T>) -> Result<u16> {
    match result {
        Err(kube::Error::Api(status)) if !status.message.is_empty() => Ok(status.code),
        Err(error) => Err(error.into()),
        Ok(_) => anyhow::bail!("it was not refused"),
    }
}

async fn forms(suite: Arc<Suite>) -> Result<()> {
    let fleet = Fleet::new(&suite, "forms", 2).await?;
    let plain = Api::<wire::Node>::all(suite.admin.clone());
    let client = suite.client_of(api_tests::Account::OPERATOR, None).await?;
    let nodes = Api::<wire::Node>::all(protobuf::of_nodes(&client));
    let params = PatchParams::default();
    let all = ListParams::default().labels(&format!("{LABEL}=forms"));
    let texts = |all: Vec<wire::Node>| -> Vec<String> { all.iter().map(read).collect() };
    // The cluster's own controllers write to new Nodes as well, between two questions at times.
    let same = async |patch: Value| {
        let patch = Patch::Strategic(patch);
        api_tests::wait::until("the same in both forms", async || {
            let patched = read(&nodes.patch("forms-1", &params, &patch).await?);
            let got = read(&plain.get("forms-1").await?);
            ensure!(patched == got, "{patched}\n{got}");
            let [ours, theirs] = [nodes.list(&all).await?, plain.list(&all).await?];
            let (ours, theirs) = (texts(ours.items), texts(theirs.items));
            ensure!(ours == theirs && ours.len() == 2, "{ours:#?}\n{theirs:#?}");
            ensure!(patched == ours[0], "{patched}\n{}", ours[0]);
            Ok(patched)
        })
        .await
    };
    let cordoned = same(json!({
        "metadata": { "annotations": { "bootc.dev/cordoned-by": "forms" } },
        "spec": { "unschedulable": true },
    }));
    let cordoned = cordoned.await?;
    for part in ["unschedulable: true", "Some(\"forms\")", "type: Ready"] {
        ensure!(cordoned.contains(part), "no {part} in {cordoned}");
    }
    let free = json!({
        "metadata": { "annotations": { "bootc.dev/cordoned-by": null } },
        "spec": { "unschedulable": null },
    });
    let free = same(free).await?;
    ensure!(free.contains("unschedulable: false"), "{free}");

    let stale = Patch::Merge(json!({ "metadata": { "resourceVersion": "1" } }));
    ensure!(refused(nodes.patch("forms-1", &params, &stale).await)? == 409);
    ensure!(refused(nodes.patch("forms-none", &params, &stale).await)? == 404);
    ensure!(refused(nodes.get("forms-1").await)? == 403);
    ensure!(is_protobuf(&suite.admin, false).await? && is_protobuf(&suite.admin, true).await?);
    fleet.finish().await
}

/// Whether the API server really answers in protobuf.
async fn is_protobuf(client: &Client, watch: bool) -> Result<bool> {
    let request = Request::new("/api/v1/nodes");
    let mut request = if watch {
        request.watch(&WatchParams::default(), "0")?
    } else {
        request.list(&ListParams::default())?
    };
    request.headers_mut().insert(ACCEPT, protobuf::WANTED);
    let answer = client.send(request.map(Body::from)).await?;
    let kind = answer.headers().get(CONTENT_TYPE).context("no type")?;
    let wanted = if watch {
        "application/vnd.kubernetes.protobuf;stream=watch"
    } else {
        "application/vnd.kubernetes.protobuf"
    };
    Ok(kind == wanted)
}
