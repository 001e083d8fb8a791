//! Spans as a real Collector gets them.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use api_tests::{
    Fleet, Suite,
    fleet::{B, Boot, C, digest},
    wait,
};
use bed::{
    collector::{Collector, PHASES, Span, Update},
    run_dir::RunDir,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use libtest_mimic::Trial;
use serde_json::json;

use crate::process::{Operator, log_of};

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial("traces::an_update_is_one_tree_over_grpc", async |suite| {
            tree(suite, "grpc").await
        }),
        suite.trial("traces::an_update_is_one_tree_over_http", async |suite| {
            tree(suite, "http/protobuf").await
        }),
        suite.trial(
            "traces::an_operator_that_is_killed_midway_leaves_one_tree",
            killed,
        ),
        suite.trial("traces::a_collector_that_hangs_holds_nothing_up", hanging),
        suite.trial("traces::without_the_variables_nothing_is_sent", unset),
    ]
}

/// The finished update of a node to an image, once the collector has it.
async fn update_of(collector: &Collector, node: &str, image: char) -> Result<Update> {
    wait::until("the collector has the whole update", || async {
        let all = Update::of(&collector.spans()?, node)?;
        let to = digest(image);
        let found = all
            .into_iter()
            .rfind(|it| it.root.attribute("oci.manifest.digest") == to);
        found.with_context(|| format!("no update of {node} to {image}"))
    })
    .await
}

fn attributes(span: &Span, wanted: &[(&str, &str)]) -> Result<()> {
    for (name, value) in wanted {
        let is = span.attribute(name);
        ensure!(
            is == *value,
            "{name} is {is:?}, not {value:?}, of {span:#?}"
        );
    }
    Ok(())
}

async fn tree(suite: Arc<Suite>, protocol: &str) -> Result<()> {
    let dir = RunDir::fresh("seen-traces")?;
    let collector = Collector::start(dir.path()).await?;
    let (name, endpoint) = match protocol {
        "grpc" => ("over-grpc", collector.grpc()),
        _ => ("over-http", collector.http()),
    };
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment.name=bed",
        ),
    ];
    let operator = Operator::start(&suite, dir.path(), &[], &variables).await?;
    let rollout = json!({ "maxUnavailable": 3 });
    let fleet = Fleet::settled(&suite, name, 3, rollout).await?;
    fleet.plan(2, |plan| plan.boot = Boot::Hold);
    let held = held_pod(&suite, &fleet, 1).await?;
    fleet.want(B).await?;
    let draining = fleet.node(1);
    fleet
        .until("the first node is drained of a pod that stays", |view| {
            let waiting = view.node_condition(&draining, "Waiting")?;
            ensure!(waiting.reason == "Drain", "{view}");
            Ok(())
        })
        .await?;
    let_go(&suite, &fleet, &held).await?;
    fleet.plan(2, |plan| plan.boot = Boot::Go);
    fleet.until_updated(B).await?;
    for n in 1..=3 {
        let node = fleet.node(n);
        let update = update_of(&collector, &node, B).await?;
        ensure!(update.names() == PHASES, "{node}: {:?}", update.names());
        update.is_whole()?;
        attributes(
            &update.root,
            &[
                ("bootc.pool", name),
                ("bootc.outcome", "updated"),
                ("container.image.name", "registry.test/os"),
            ],
        )?;
        ensure!(update.root.error.is_none(), "{:#?}", update.root);
        let resource = |name: &str| update.root.resource.get(name).map(String::as_str);
        ensure!(
            resource("service.name") == Some("bootc-operator"),
            "{:#?}",
            update.root
        );
        ensure!(resource("deployment.environment.name") == Some("bed"));
    }
    let update = update_of(&collector, &draining, B).await?;
    let pods: Vec<_> = update
        .parts
        .iter()
        .filter(|it| it.name == "wait-for-pod")
        .collect();
    let pod = pods.iter().find(|it| it.attribute("k8s.pod.name") == held);
    let pod = pod.with_context(|| format!("no span of {held}: {pods:#?}"))?;
    attributes(pod, &[("k8s.namespace.name", name)])?;
    let why = pod.attribute("bootc.pod.waits_for");
    // Until its time to stop is over nothing holds it up, as far as anybody knows.
    let known = why == "shutting down" || why.contains("finalizers");
    ensure!(known, "{why}");
    let waits = &update.phase("drain")?.events;
    ensure!(waits.contains(&"waiting".to_owned()), "{waits:?}");
    fleet.finish().await?;
    operator.stop().await
}

/// Gives a pod of the fleet on node `n` a finalizer, so that a drain has to wait for it.
pub(crate) async fn held_pod(suite: &Suite, fleet: &Fleet, n: usize) -> Result<String> {
    let on_node = ListParams::default().fields(&format!("spec.nodeName={}", fleet.node(n)));
    let pods = pods_of(suite, fleet);
    let all = pods.list(&on_node).await?;
    let pod = all.items.first().context("a node without a pod")?;
    let hold = Patch::Merge(json!({ "metadata": { "finalizers": ["test.bootc.dev/hold"] } }));
    pods.patch(&pod.name_any(), &PatchParams::default(), &hold)
        .await?;
    Ok(pod.name_any())
}

/// The pods of a fleet; its namespace has its name.
fn pods_of(suite: &Suite, fleet: &Fleet) -> Api<Pod> {
    let node = fleet.node(1);
    let namespace = node.rsplit_once('-').map_or("", |(name, _)| name);
    Api::namespaced(suite.admin.clone(), namespace)
}

/// Takes that finalizer back.
pub(crate) async fn let_go(suite: &Suite, fleet: &Fleet, pod: &str) -> Result<()> {
    let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    let pods = pods_of(suite, fleet);
    pods.patch(pod, &PatchParams::default(), &free).await?;
    Ok(())
}

/// Killed while one node reboots and the others wait for its slot.
async fn killed(suite: Arc<Suite>) -> Result<()> {
    let dir = RunDir::fresh("seen-killed")?;
    let collector = Collector::start(dir.path()).await?;
    let endpoint = collector.grpc();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ];
    let start = || Operator::start(&suite, dir.path(), &[], &variables);
    let operator = start().await?;
    let fleet = Fleet::settled(&suite, "killed-midway", 3, json!({})).await?;
    fleet.plan(1, |plan| plan.boot = Boot::Hold);
    fleet.want_staged(B).await?;
    fleet
        .until("the first node reboots", |view| {
            ensure!(view.states() == ["Rebooting", "Staged", "Staged"], "{view}");
            Ok(())
        })
        .await?;
    operator.kill()?;
    // The host comes back while nobody looks.
    fleet.plan(1, |plan| plan.boot = Boot::Go);
    let operator = start().await?;
    fleet.until_updated(B).await?;
    for n in 1..=3 {
        let update = update_of(&collector, &fleet.node(n), B).await?;
        ensure!(update.names() == PHASES, "{n}: {:?}", update.names());
        update.is_whole()?;
    }
    let all = collector.spans()?;
    for n in 1..=3 {
        // One trace for the first image, where the node joined, and one for the second.
        let of_node = Update::of(&all, &fleet.node(n))?;
        let to_b = of_node
            .iter()
            .filter(|it| it.root.attribute("oci.manifest.digest") == digest(B));
        ensure!(to_b.count() == 1, "{of_node:#?}");
    }
    fleet.finish().await?;
    operator.stop().await
}

/// What the operator logs when nobody takes its spans.
const COMPLAINT: &str = "the collector takes no spans";

/// It answers no more, then it is gone, then it is back: a rollout each time.
async fn hanging(suite: Arc<Suite>) -> Result<()> {
    let dir = RunDir::fresh("seen-hanging")?;
    let mut collector = Collector::start(dir.path()).await?;
    let endpoint = collector.grpc();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
        // Short, so that there is something to send while nobody takes it.
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ];
    let mut operator = Operator::start(&suite, dir.path(), &[], &variables).await?;
    let fleet = Fleet::settled(&suite, "hanging", 2, json!({})).await?;
    fleet.plan_all(|plan| plan.boot = Boot::Hold);
    fleet.want(B).await?;
    fleet
        .until("a node reboots", |view| {
            ensure!(view.states().contains(&"Rebooting".to_owned()), "{view}");
            Ok(())
        })
        .await?;
    collector.freeze()?;
    fleet.plan_all(|plan| plan.boot = Boot::Go);
    fleet.until_updated(B).await?;
    operator.check()?;
    collector.thaw()?;
    collector.kill();
    fleet.want(C).await?;
    fleet.until_updated(C).await?;
    wait::until("the operator says that nobody takes its spans", || async {
        ensure!(log_of(dir.path())?.contains(COMPLAINT), "it does not");
        Ok(())
    })
    .await?;
    collector.start_again().await?;
    // What waited in the queue is not lost.
    for n in 1..=2 {
        update_of(&collector, &fleet.node(n), C).await?.is_whole()?;
    }
    let log = log_of(dir.path())?;
    let complaints = log.matches(COMPLAINT).count();
    ensure!(
        (1..=4).contains(&complaints),
        "{complaints} complaints:\n{log}"
    );
    collector.freeze()?;
    fleet.finish().await?;
    // An end that is on time although nobody takes the last spans.
    operator.stop().await
}

async fn unset(suite: Arc<Suite>) -> Result<()> {
    let dir = RunDir::fresh("seen-unset")?;
    let collector = Collector::start(dir.path()).await?;
    let endpoint = collector.grpc();
    for variables in [
        &[][..],
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_SDK_DISABLED", "true"),
        ],
    ] {
        let operator = Operator::start(&suite, dir.path(), &[], variables).await?;
        let fleet = Fleet::settled(&suite, "unset", 1, json!({})).await?;
        fleet.want(B).await?;
        fleet.until_updated(B).await?;
        fleet.finish().await?;
        operator.stop().await?;
        api_tests::wait::until("the fleet's namespace is gone", || async {
            gone(&suite, "unset").await
        })
        .await?;
    }
    ensure!(collector.spans()?.is_empty(), "{:#?}", collector.spans()?);
    let log = log_of(dir.path())?;
    ensure!(!log.contains("OTLP"), "{log}");
    Ok(())
}

async fn gone(suite: &Suite, namespace: &str) -> Result<()> {
    use k8s_openapi::api::core::v1::Namespace;
    let api = Api::<Namespace>::all(suite.admin.clone());
    if api.get_opt(namespace).await?.is_some() {
        let _going = api
            .delete(namespace, &kube::api::DeleteParams::default())
            .await;
        anyhow::bail!("{namespace} is there");
    }
    Ok(())
}
