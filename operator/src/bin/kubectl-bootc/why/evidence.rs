//! What is seen of a cause: each piece from where it is, and none where that may not be read.

use crd::names;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node, Pod},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, ResourceExt as _,
    api::ListParams,
    core::{Selector, SelectorExt as _},
};
use operator::observe::{
    time::{now, timestamp},
    wire::NodeCondition,
};

use crate::{
    ages::{age, length},
    cluster::Cluster,
    model::{Model, OPERATOR, Wait, condition, pool_condition},
    rows::PoolRow,
};

/// Pods, holders and the like named one by one.
const NAMED: usize = 10;
/// A Lease that was not renewed for so long belongs to nobody, in milliseconds.
const STALE: i64 = 30_000;

/// The evidence for what a node waits for.
pub(super) async fn of(
    cluster: &Cluster,
    model: &Model<'_>,
    node: &str,
    wait: &Wait,
) -> Vec<String> {
    let mut lines = own_words(model, node);
    let pools = model.pools_of(node);
    let pool = pools.first().map_or("", String::as_str);
    match wait.reason.as_str() {
        "Drain" | "DrainTimedOut" => lines.extend(drain(cluster, node).await),
        "RebootSlot" => lines.extend(holders(model, pool)),
        "ControlPlane" => lines.extend(control_plane(model, node)),
        "StagingRoom" => lines.extend(stagers(model, pool)),
        "RolloutHalted" => lines.extend(unhealthy(model, pool)),
        "Paused" | "TargetUnknown" | "PoolNotReady" => lines.extend(pool_words(model, pool)),
        "NodeConflict" => lines.push(format!("selected by {}", pools_that_claim(model, node))),
        "NotReady" | "Kubelet" | "MinReady" => lines.extend(readiness(cluster, node).await),
        "AgentReport" | "AgentSilent" | "Staging" | "Rebooting" | "RebootTimedOut" => {
            lines.extend(agent(cluster, node).await);
        }
        _ => {}
    }
    if wait.reason == OPERATOR || wait.since.is_none() {
        lines.extend(operator(cluster).await);
    }
    lines
}

/// What the agent says of its host, with bootc's own words.
fn own_words(model: &Model<'_>, node: &str) -> Vec<String> {
    let Some(object) = model.objects.bootc.get(node) else {
        return vec!["it has no BootcNode yet".to_owned()];
    };
    let mut lines = Vec::new();
    for kind in [names::condition::DEGRADED, names::condition::IDLE] {
        if let Some(condition) = condition(object, kind) {
            let bad = (kind == names::condition::DEGRADED) == (condition.status == "True");
            if bad && !condition.message.is_empty() {
                lines.push(format!(
                    "the agent says {}: {}",
                    condition.reason, condition.message
                ));
            }
        }
    }
    if let Some(attempt) = object
        .status
        .get()
        .and_then(|status| status.last_attempt.as_ref())
    {
        let when = attempt
            .time
            .as_ref()
            .map(|at| age(timestamp(at), model.now));
        let when = when.map(|age| format!(", {age} ago")).unwrap_or_default();
        let image = fsm::image::short(&attempt.image_digest);
        lines.push(format!("last tried to boot {image}{when}"));
    }
    lines
}

/// The pods that are still there and may not stay, and the budgets that guard them.
async fn drain(cluster: &Cluster, node: &str) -> Vec<String> {
    let pods = Api::<Pod>::all(cluster.client.clone());
    let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let pods = match cluster.ask("list Pods", pods.list(&on_node)).await {
        Ok(pods) => pods.items,
        Err(error) => return vec![format!("(pods are not looked at: {error:#})")],
    };
    let left: Vec<&Pod> = pods.iter().filter(|pod| must_go(pod)).collect();
    let mut lines = Vec::new();
    for pod in left.iter().take(NAMED) {
        let namespace = pod.namespace().unwrap_or_default();
        let owner = pod.owner_references().first();
        let owner = owner.map_or_else(
            || "no controller".to_owned(),
            |it| format!("{} {}", it.kind, it.name),
        );
        let going = pod.metadata.deletion_timestamp.as_ref();
        let going = going.map(|at| format!(", shutting down since {}", age(timestamp(at), now())));
        lines.push(format!(
            "pod {namespace}/{} ({owner}) is still on the node{}",
            pod.name_any(),
            going.unwrap_or_default()
        ));
    }
    if left.len() > NAMED {
        lines.push(format!("and {} pods more", left.len() - NAMED));
    }
    lines.extend(budgets(cluster, &left).await);
    lines
}

/// Would a drain wait for it? As kubectl has it: not for daemons, static pods and what is over.
fn must_go(pod: &Pod) -> bool {
    let daemon = pod
        .owner_references()
        .iter()
        .any(|owner| owner.kind == "DaemonSet");
    let mirror = pod
        .annotations()
        .contains_key("kubernetes.io/config.mirror");
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    !daemon && !mirror && !matches!(phase, Some("Succeeded" | "Failed"))
}

async fn budgets(cluster: &Cluster, pods: &[&Pod]) -> Vec<String> {
    let mut namespaces: Vec<String> = pods.iter().filter_map(|pod| pod.namespace()).collect();
    namespaces.sort();
    namespaces.dedup();
    let mut lines = Vec::new();
    for namespace in namespaces {
        let api = Api::<PodDisruptionBudget>::namespaced(cluster.client.clone(), &namespace);
        let all = ListParams::default();
        let found = match cluster
            .ask("list PodDisruptionBudgets", api.list(&all))
            .await
        {
            Ok(found) => found.items,
            Err(error) => {
                lines.push(format!("(budgets are not looked at: {error:#})"));
                break;
            }
        };
        for budget in found
            .iter()
            .filter(|budget| guards(budget, &namespace, pods))
        {
            let status = budget.status.clone().unwrap_or_default();
            lines.push(format!(
                "PodDisruptionBudget {namespace}/{}: {} of {} pods are healthy, {} must be, {} disruptions allowed",
                budget.name_any(),
                status.current_healthy,
                status.expected_pods,
                status.desired_healthy,
                status.disruptions_allowed
            ));
        }
    }
    lines
}

fn guards(budget: &PodDisruptionBudget, namespace: &str, pods: &[&Pod]) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.clone());
    let Some(selector) = selector.and_then(|selector| Selector::try_from(selector).ok()) else {
        return false;
    };
    pods.iter()
        .filter(|pod| pod.namespace().as_deref() == Some(namespace))
        .any(|pod| selector.matches(pod.labels()))
}

/// Who has the slots, and what each of them waits for.
fn holders(model: &Model<'_>, pool: &str) -> Vec<String> {
    let Some(sum) = model.sum(pool) else {
        return Vec::new();
    };
    let allowed = PoolRow::of(model, pool).and_then(|row| row.slots_allowed);
    let mut lines = Vec::new();
    if let Some(allowed) = allowed {
        lines.push(format!(
            "{} of {allowed} reboot slots are in use",
            sum.holders.len()
        ));
    }
    for holder in sum.holders.iter().take(NAMED) {
        lines.push(one(model, "a slot is held by", holder.as_str()));
    }
    lines
}

/// `a slot is held by w1 (Draining for 3m): waiting for pod …`
fn one(model: &Model<'_>, what: &str, node: &str) -> String {
    let record = model.record(node);
    let since = record.as_ref().and_then(|record| model.since(node, record));
    let since = since.map(|at| format!(" for {}", length(model.now.since(at))));
    let wait = model.wait(node).map(|wait| format!(": {}", wait.message));
    format!(
        "{what} {node} ({}{}){}",
        model.state(node),
        since.unwrap_or_default(),
        wait.unwrap_or_default()
    )
}

fn stagers(model: &Model<'_>, pool: &str) -> Vec<String> {
    let stages = |node: &String| model.state(node) == "Staging";
    let nodes = model.nodes_of(pool);
    let staging = nodes.iter().filter(|node| stages(node));
    staging
        .take(NAMED)
        .map(|node| one(model, "room is taken by", node))
        .collect()
}

fn unhealthy(model: &Model<'_>, pool: &str) -> Vec<String> {
    let Some(sum) = model.sum(pool) else {
        return Vec::new();
    };
    let all = sum.unhealthy.iter().take(NAMED);
    all.map(|(node, why)| one(model, &format!("unhealthy ({why}):"), node.as_str()))
        .collect()
}

/// The others of the control plane that are down or in a slot.
fn control_plane(model: &Model<'_>, node: &str) -> Vec<String> {
    let Some(nodes) = &model.objects.nodes else {
        return Vec::new();
    };
    let member = |node: &&String| {
        let object = nodes.get(*node);
        object.is_some_and(|object| object.labels().contains_key(names::LABEL_CONTROL_PLANE))
    };
    let others = nodes.keys().filter(|name| *name != node).filter(member);
    let busy = others.filter(|other| {
        let slot = model
            .record(other)
            .is_some_and(|record| record.slot.is_some());
        let ready = nodes
            .get(*other)
            .is_some_and(|object| object.status.ready().is_none_or(NodeCondition::holds));
        slot || !ready
    });
    busy.map(|other| one(model, "down or in a slot:", other))
        .collect()
}

fn pools_that_claim(model: &Model<'_>, node: &str) -> String {
    let claims = |pool: &&String| model.nodes_of(pool).iter().any(|name| name == node);
    let pools: Vec<_> = model.objects.pools.keys().filter(claims).cloned().collect();
    pools.join(" and ")
}

/// The pool's own conditions: the registry's answer, the secret, the spec's fault.
fn pool_words(model: &Model<'_>, pool: &str) -> Vec<String> {
    let Some(object) = model.objects.pools.get(pool) else {
        return Vec::new();
    };
    let kinds = [names::condition::DEGRADED, names::condition::UP_TO_DATE];
    let conditions = kinds.iter().filter_map(|kind| pool_condition(object, kind));
    let told = conditions.filter(|it| !it.message.is_empty());
    let mut lines: Vec<_> = told
        .map(|it| format!("pool {pool} says {}: {}", it.reason, it.message))
        .collect();
    let paused = object.spec.get().is_some_and(|spec| spec.rollout.paused);
    if paused {
        lines.push(format!("spec.rollout.paused of pool {pool} is true"));
    }
    lines
}

/// What the kubelet says.
async fn readiness(cluster: &Cluster, node: &str) -> Vec<String> {
    let api = Api::<Node>::all(cluster.client.clone());
    let node = match cluster.ask("read the Node", api.get(node)).await {
        Ok(node) => node,
        Err(error) => return vec![format!("(the Node is not looked at: {error:#})")],
    };
    let conditions = node.status.and_then(|status| status.conditions);
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|it| it.type_ == "Ready");
    let Some(ready) = ready else {
        return vec!["the Node has no condition Ready".to_owned()];
    };
    let since = ready
        .last_transition_time
        .map(|at| age(timestamp(&at), now()));
    vec![format!(
        "the Node's Ready is {}{}: {} {}",
        ready.status,
        since
            .map(|since| format!(" for {since}"))
            .unwrap_or_default(),
        ready.reason.unwrap_or_default(),
        ready.message.unwrap_or_default()
    )]
}

/// The agent's pod on the node.
async fn agent(cluster: &Cluster, node: &str) -> Vec<String> {
    let pods = Api::<Pod>::namespaced(cluster.client.clone(), names::NAMESPACE_AGENT);
    let here = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let pods = match cluster.ask("list the agent's Pods", pods.list(&here)).await {
        Ok(pods) => pods.items,
        Err(error) => return vec![format!("(the agent's pod is not looked at: {error:#})")],
    };
    if pods.is_empty() {
        return vec![format!(
            "no pod of the agent is on the node (namespace {}): does the Node have the label {}?",
            names::NAMESPACE_AGENT,
            names::LABEL_MANAGED
        )];
    }
    let told = |pod: &Pod| {
        let status = pod.status.clone().unwrap_or_default();
        let containers = status.container_statuses.unwrap_or_default();
        let waits = containers
            .iter()
            .find_map(|it| it.state.as_ref()?.waiting.as_ref()?.reason.clone());
        let restarts: i32 = containers.iter().map(|it| it.restart_count).sum();
        format!(
            "the agent's pod {} is {} ({restarts} restarts)",
            pod.name_any(),
            waits
                .or(status.phase)
                .unwrap_or_else(|| "Unknown".to_owned())
        )
    };
    pods.iter().map(told).collect()
}

/// Is there an operator that acts?
pub(super) async fn operator(cluster: &Cluster) -> Vec<String> {
    let api = Api::<Lease>::namespaced(cluster.client.clone(), names::NAMESPACE_OPERATOR);
    let lease = match cluster
        .ask("read the operator's Lease", api.get_opt(names::LEASE))
        .await
    {
        Ok(Some(lease)) => lease.spec.unwrap_or_default(),
        Ok(None) => return vec!["no operator ever held the Lease: is one installed?".to_owned()],
        // Whether there is one is not this reader's to know.
        Err(_) => return Vec::new(),
    };
    let renewed = lease
        .renew_time
        .map(|at| fsm::Timestamp(at.0.as_millisecond()));
    match (lease.holder_identity.filter(|it| !it.is_empty()), renewed) {
        (Some(holder), Some(renewed)) if now().since(renewed) > STALE => vec![format!(
            "no operator acts: {holder} has not renewed its Lease for {}",
            age(renewed, now())
        )],
        (Some(_), Some(_)) => Vec::new(),
        _ => vec!["no operator acts: nobody holds the Lease".to_owned()],
    }
}
