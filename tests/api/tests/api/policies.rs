//! The admission policies and rights do what they say: tests that try.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use api_tests::{
    Account, Suite,
    hosts::{self, agent_on},
    suite::unowned_node,
    wait,
};
use crd::{BootcNode, BootcNodePool, names};
use k8s_openapi::api::{
    authorization::v1::SubjectAccessReview,
    core::v1::{Node, Secret},
};
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy},
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial(
            "policies::agent_writes_its_own_status_only",
            agent_own_status,
        ),
        suite.trial(
            "policies::agent_without_a_node_writes_nothing",
            agent_unbound,
        ),
        suite.trial("policies::agent_may_nothing_else", agent_rights),
        suite.trial("policies::operator_may_what_its_code_does", operator_rights),
        suite.trial("policies::only_the_operator_makes_nodes", creation),
        suite.trial("policies::only_the_operator_edits_specs", specs),
        suite.trial(
            "policies::only_the_operator_edits_its_annotations",
            annotations,
        ),
        suite.trial("policies::only_the_operator_says_whose_cordon", cordoned_by),
        suite.trial("policies::garbage_collection_passes", garbage_collection),
    ]
}

fn nodes(client: &Client) -> Api<BootcNode> {
    Api::all(client.clone())
}

/// Fails unless the outcome is a refusal for want of a right, with these words.
fn forbidden<T: std::fmt::Debug>(outcome: kube::Result<T>, words: &str) -> Result<()> {
    match outcome {
        Err(kube::Error::Api(status)) if status.is_forbidden() => {
            ensure!(status.message.contains(words), "{}", status.message);
            Ok(())
        }
        other => bail!("not forbidden: {other:?}"),
    }
}

async fn merge(api: &Api<BootcNode>, name: &str, patch: Value) -> kube::Result<BootcNode> {
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
}

async fn report(client: &Client, name: &str) -> kube::Result<BootcNode> {
    let status = json!({
        "apiVersion": "node.bootc.dev/v1alpha1", "kind": "BootcNode",
        "status": { "boot": "boot-1" },
    });
    let params = PatchParams::apply(names::FIELD_MANAGER_AGENT).force();
    nodes(client)
        .patch_status(name, &params, &Patch::Apply(status))
        .await
}

/// A `BootcNode` made by the operator.
async fn given(suite: &Suite, name: &str) -> Result<Api<BootcNode>> {
    let operator = nodes(&suite.client_of(Account::OPERATOR, None).await?);
    let mut node = unowned_node(name);
    node.annotations_mut()
        .insert(names::ANNOTATION_ROLLOUT.into(), "{}".into());
    operator.create(&PostParams::default(), &node).await?;
    Ok(operator)
}

async fn agent_own_status(suite: Arc<Suite>) -> Result<()> {
    given(&suite, "policy-own").await?;
    given(&suite, "policy-other").await?;
    hosts::node(&suite.admin, "policy-own", json!({})).await?;
    let agent = agent_on(&suite, "policy-own").await?;
    let own = report(&agent, "policy-own").await?;
    ensure!(own.status.and_then(|s| s.boot).as_deref() == Some("boot-1"));
    forbidden(
        report(&agent, "policy-other").await,
        "the agent of node policy-own may not write BootcNode policy-other",
    )?;
    let other = nodes(&suite.admin).get("policy-other").await?;
    ensure!(other.status.is_none(), "{other:?}");
    // Beside the status it has no right at all, whosever node it is.
    let approve = json!({ "spec": { "desiredImageState": "Booted" } });
    forbidden(
        merge(&nodes(&agent), "policy-own", approve).await,
        "cannot patch resource",
    )?;
    hosts::delete_node(&suite.admin, "policy-own").await
}

async fn agent_unbound(suite: Arc<Suite>) -> Result<()> {
    given(&suite, "policy-unbound").await?;
    let unbound = suite.client_of(Account::AGENT, None).await?;
    forbidden(
        report(&unbound, "policy-unbound").await,
        "not bound to a pod on a node",
    )
}

/// `(verb, group, resource/subresource, namespace, name)`; all of it, and nothing that is not here.
type Right = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

async fn may(suite: &Suite, account: Account, right: Right) -> Result<bool> {
    let (verb, group, resource, namespace, name) = right;
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let review: SubjectAccessReview = serde_json::from_value(json!({ "spec": {
        "user": account.user(),
        "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{}", account.namespace), "system:authenticated"],
        "resourceAttributes": {
            "verb": verb, "group": group, "resource": resource, "subresource": subresource,
            "namespace": namespace, "name": name,
        },
    }}))?;
    let answer = Api::all(suite.admin.clone())
        .create(&PostParams::default(), &review)
        .await?;
    Ok(answer
        .status
        .context("no answer to an access review")?
        .allowed)
}

async fn rights(
    suite: &Suite,
    account: Account,
    granted: &[Right],
    refused: &[Right],
) -> Result<()> {
    for (rights, wanted) in [(granted, true), (refused, false)] {
        for right in rights {
            let allowed = may(suite, account, *right).await?;
            ensure!(
                allowed == wanted,
                "{}: {right:?} allowed: {allowed}",
                account.user()
            );
        }
    }
    Ok(())
}

const GROUP: &str = names::GROUP;
const OURS: &str = names::NAMESPACE_OPERATOR;

async fn agent_rights(suite: Arc<Suite>) -> Result<()> {
    let granted = [
        ("get", GROUP, "bootcnodes", "", ""),
        ("list", GROUP, "bootcnodes", "", ""),
        ("watch", GROUP, "bootcnodes", "", ""),
        ("patch", GROUP, "bootcnodes/status", "", ""),
        ("get", "", "secrets", OURS, "pull"),
    ];
    let refused = [
        ("create", GROUP, "bootcnodes", "", ""),
        ("patch", GROUP, "bootcnodes", "", ""),
        ("update", GROUP, "bootcnodes/status", "", ""),
        ("delete", GROUP, "bootcnodes", "", ""),
        ("get", GROUP, "bootcnodepools", "", ""),
        ("list", "", "secrets", OURS, ""),
        ("watch", "", "secrets", OURS, ""),
        ("get", "", "secrets", "default", "pull"),
        ("get", "", "secrets", names::NAMESPACE_AGENT, "pull"),
        ("get", "", "nodes", "", ""),
        ("patch", "", "nodes", "", ""),
        ("list", "", "pods", "", ""),
        ("create", "", "pods", names::NAMESPACE_AGENT, ""),
        ("create", "events.k8s.io", "events", "default", ""),
        (
            "create",
            "",
            "serviceaccounts/token",
            names::NAMESPACE_AGENT,
            "",
        ),
    ];
    rights(&suite, Account::AGENT, &granted, &refused).await
}

async fn operator_rights(suite: Arc<Suite>) -> Result<()> {
    let granted = [
        ("list", "", "nodes", "", ""),
        ("watch", "", "nodes", "", ""),
        ("patch", "", "nodes", "", ""),
        ("list", "", "pods", "", ""),
        ("watch", "", "pods", "", ""),
        ("create", "", "pods/eviction", "default", ""),
        ("watch", GROUP, "bootcnodepools", "", ""),
        ("patch", GROUP, "bootcnodepools", "", ""),
        ("patch", GROUP, "bootcnodepools/status", "", ""),
        ("create", GROUP, "bootcnodes", "", ""),
        ("patch", GROUP, "bootcnodes", "", ""),
        ("delete", GROUP, "bootcnodes", "", ""),
        ("patch", GROUP, "bootcnodes/status", "", ""),
        ("create", "events.k8s.io", "events", "default", ""),
        ("patch", "events.k8s.io", "events", "default", ""),
        ("create", "authentication.k8s.io", "tokenreviews", "", ""),
        ("create", "coordination.k8s.io", "leases", OURS, ""),
        (
            "update",
            "coordination.k8s.io",
            "leases",
            OURS,
            names::LEASE,
        ),
        ("get", "", "secrets", OURS, "pull"),
        ("watch", "", "secrets", OURS, "pull"),
    ];
    let refused = [
        ("get", "", "nodes", "", ""),
        ("delete", "", "nodes", "", ""),
        ("update", "", "nodes", "", ""),
        ("patch", "", "nodes/status", "", ""),
        ("get", GROUP, "bootcnodes", "", ""),
        ("get", GROUP, "bootcnodepools", "", ""),
        ("delete", "events.k8s.io", "events", "default", ""),
        ("delete", "", "pods", "default", ""),
        ("create", "", "pods", OURS, ""),
        ("create", "", "pods/exec", names::NAMESPACE_AGENT, ""),
        ("create", GROUP, "bootcnodepools", "", ""),
        ("delete", GROUP, "bootcnodepools", "", ""),
        ("update", "coordination.k8s.io", "leases", OURS, "another"),
        (
            "update",
            "coordination.k8s.io",
            "leases",
            "kube-system",
            names::LEASE,
        ),
        ("get", "", "secrets", "default", "pull"),
        ("get", "", "secrets", "kube-system", "pull"),
        ("create", "", "secrets", OURS, ""),
        ("patch", "apps", "deployments", OURS, ""),
        ("patch", "apps", "daemonsets", names::NAMESPACE_AGENT, ""),
    ];
    rights(&suite, Account::OPERATOR, &granted, &refused).await?;
    // One right tried for real, so that the table above is not about somebody else.
    let operator = suite.client_of(Account::OPERATOR, None).await?;
    let secrets = Api::<Secret>::namespaced(operator, "kube-system");
    forbidden(secrets.get("pull").await, "cannot get resource")
}

async fn creation(suite: Arc<Suite>) -> Result<()> {
    let admin = nodes(&suite.admin);
    let node = unowned_node("policy-made-by-hand");
    let made = admin.create(&PostParams::default(), &node).await;
    forbidden(made, "select the node in a BootcNodePool instead")?;
    // Broken glass.
    nodes(&suite.breaker)
        .create(&PostParams::default(), &node)
        .await?;
    // Whoever may delete may delete: the operator makes it again.
    admin
        .delete("policy-made-by-hand", &DeleteParams::default())
        .await?;
    Ok(())
}

async fn specs(suite: Arc<Suite>) -> Result<()> {
    let operator = given(&suite, "policy-spec").await?;
    let booted = || json!({ "spec": { "desiredImageState": "Booted" } });
    let admin = nodes(&suite.admin);
    forbidden(
        merge(&admin, "policy-spec", booted()).await,
        "change its BootcNodePool instead",
    )?;
    // Everything else of the object is an admin's to edit.
    merge(
        &admin,
        "policy-spec",
        json!({ "metadata": { "labels": { "a": "b" } } }),
    )
    .await?;
    report(&suite.admin, "policy-spec").await?;
    merge(&operator, "policy-spec", booted()).await?;
    let staged = json!({ "spec": { "desiredImageState": "Staged" } });
    merge(&nodes(&suite.breaker), "policy-spec", staged).await?;
    Ok(())
}

async fn annotations(suite: Arc<Suite>) -> Result<()> {
    let operator = given(&suite, "policy-note").await?;
    let admin = nodes(&suite.admin);
    let note = |key: &str, value: Value| json!({ "metadata": { "annotations": { key: value } } });
    for (what, patch) in [
        (
            "changed",
            note(names::ANNOTATION_ROLLOUT, json!("{\"state\":\"Idle\"}")),
        ),
        ("removed", note(names::ANNOTATION_ROLLOUT, Value::Null)),
        ("added", note(names::ANNOTATION_IN_REBOOT_SLOT, json!(""))),
        (
            "all removed",
            json!({ "metadata": { "annotations": null } }),
        ),
    ] {
        let outcome = merge(&admin, "policy-note", patch).await;
        forbidden(outcome, "annotate its BootcNodePool with bootc.dev/retry").context(what)?;
    }
    merge(
        &admin,
        "policy-note",
        note("example.com/note", json!("mine")),
    )
    .await?;
    merge(
        &operator,
        "policy-note",
        note(names::ANNOTATION_ROLLOUT, json!("{ }")),
    )
    .await?;
    merge(
        &nodes(&suite.breaker),
        "policy-note",
        note(names::ANNOTATION_ROLLOUT, Value::Null),
    )
    .await?;
    Ok(())
}

async fn cordoned_by(suite: Arc<Suite>) -> Result<()> {
    let name = "policy-cordon";
    hosts::node(&suite.admin, name, json!({})).await?;
    let admin = Api::<Node>::all(suite.admin.clone());
    let operator = Api::<Node>::all(suite.client_of(Account::OPERATOR, None).await?);
    let cordon = |by: Value| {
        Patch::Merge(json!({
            "metadata": { "annotations": { names::ANNOTATION_CORDONED_BY: by } },
            "spec": { "unschedulable": true },
        }))
    };
    let params = PatchParams::default();
    let words = "only the operator edits the annotation bootc.dev/cordoned-by";
    forbidden(
        admin.patch(name, &params, &cordon(json!("me"))).await,
        words,
    )?;
    operator
        .patch(name, &params, &cordon(json!("pool")))
        .await?;
    forbidden(
        admin.patch(name, &params, &cordon(json!("me"))).await,
        words,
    )?;
    forbidden(
        admin.patch(name, &params, &cordon(Value::Null)).await,
        words,
    )?;
    // Cordon, uncordon, labels, the kubelet's reports: everybody's, as before.
    suite.kubectl(&["uncordon", name]).await?;
    suite.kubectl(&["cordon", name]).await?;
    suite.kubectl(&["label", "node", name, "a=b"]).await?;
    let status = Patch::Merge(hosts::ready("False", "boot-2"));
    admin.patch_status(name, &params, &status).await?;
    hosts::delete_node(&suite.admin, name).await
}

/// The garbage collector deletes the nodes of a pool, or takes their owner away when asked to.
async fn garbage_collection(suite: Arc<Suite>) -> Result<()> {
    for (name, policy) in [
        ("policy-gc", PropagationPolicy::Background),
        ("policy-gc-foreground", PropagationPolicy::Foreground),
        ("policy-gc-orphan", PropagationPolicy::Orphan),
    ] {
        let orphan = policy == PropagationPolicy::Orphan;
        owned(&suite, name).await?;
        let pools = Api::<BootcNodePool>::all(suite.admin.clone());
        let params = DeleteParams {
            propagation_policy: Some(policy),
            ..DeleteParams::default()
        };
        pools.delete(name, &params).await?;
        let api = nodes(&suite.admin);
        wait::until("the garbage collector", || async {
            match api.get_opt(name).await {
                Ok(None) if !orphan => Ok(()),
                Ok(Some(node)) if orphan && node.owner_references().is_empty() => Ok(()),
                other => Err(format!("{name}: {other:?}")),
            }
        })
        .await?;
    }
    Ok(())
}

async fn owned(suite: &Suite, name: &str) -> Result<()> {
    let pool: BootcNodePool = serde_json::from_value(json!({
        "apiVersion": "node.bootc.dev/v1alpha1", "kind": "BootcNodePool",
        "metadata": { "name": name },
        "spec": {
            "image": { "ref": "quay.io/example/os:1" },
            "nodeSelector": { "matchLabels": { "bootc.dev/none": "here" } },
        },
    }))?;
    let pool = Api::all(suite.admin.clone())
        .create(&PostParams::default(), &pool)
        .await?;
    let mut node = unowned_node(name);
    node.metadata.owner_references = pool.controller_owner_ref(&()).map(|owner| vec![owner]);
    let operator = suite.client_of(Account::OPERATOR, None).await?;
    nodes(&operator)
        .create(&PostParams::default(), &node)
        .await?;
    Ok(())
}
