//! What a person can ask of a rollout: hold, go on, try again, another image.

use std::io::{self, Write as _};

use anyhow::{Context as _, bail};
use crd::{BootcNodePool, ImageRef, names};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use operator::observe::time::{now, rfc3339_exact};
use serde_json::{Value, json};

use crate::{
    Verdict,
    cli::{DryRun, SetImage},
    cluster::Cluster,
    forecast,
    model::Model,
};

/// How kubectl names a pool that it changed.
const KIND: &str = "bootcnodepool.node.bootc.dev";

async fn patch(
    cluster: &Cluster,
    pool: &str,
    body: Value,
    dry_run: bool,
) -> anyhow::Result<BootcNodePool> {
    let api = Api::<BootcNodePool>::all(cluster.client.clone());
    let params = PatchParams {
        dry_run,
        field_manager: Some("kubectl-bootc".to_owned()),
        ..PatchParams::default()
    };
    let body = Patch::Merge(body);
    let request = api.patch(pool, &params, &body);
    cluster.ask(&format!("change pool {pool}"), request).await
}

/// Holds a rollout, or lets it go on.
pub(crate) async fn pause(cluster: &Cluster, pool: &str, paused: bool) -> anyhow::Result<Verdict> {
    let body = json!({ "spec": { "rollout": { "paused": paused } } });
    patch(cluster, pool, body, false).await?;
    let done = if paused { "paused" } else { "resumed" };
    writeln!(io::stdout(), "{KIND}/{pool} {done}")?;
    Ok(Verdict::Good)
}

/// Asks for another try of these nodes.
pub(crate) async fn retry(cluster: &Cluster, nodes: &[String]) -> anyhow::Result<Verdict> {
    let objects = cluster.objects().await?;
    let model = Model::new(&objects, now());
    let mut pools: Vec<String> = Vec::new();
    for node in nodes {
        let of = model.pools_of(node);
        let pool = match of.as_slice() {
            [pool] => pool.clone(),
            [] => bail!("node {node} is of no pool: kubectl bootc status"),
            several => bail!(
                "node {node} is claimed by {}; it is updated by none of them until only one selects it",
                several.join(" and ")
            ),
        };
        if !pools.contains(&pool) {
            pools.push(pool);
        }
    }
    let [pool] = pools.as_slice() else {
        bail!(
            "these nodes are of several pools ({}): ask for each by itself",
            pools.join(", ")
        );
    };
    let asked = format!("{}@{}", nodes.join(","), rfc3339_exact(now()));
    let body = json!({ "metadata": { "annotations": { names::ANNOTATION_RETRY: asked } } });
    patch(cluster, pool, body, false).await?;
    for node in nodes {
        writeln!(
            io::stdout(),
            "node/{node} is tried again (asked of {KIND}/{pool})"
        )?;
    }
    Ok(Verdict::Good)
}

/// Names another image, or says what that would do.
pub(crate) async fn set_image(cluster: &Cluster, args: &SetImage) -> anyhow::Result<Verdict> {
    let image: ImageRef = args
        .reference
        .parse()
        .with_context(|| format!("{} is no image reference", args.reference))?;
    let body = json!({ "spec": { "image": { "ref": args.reference } } });
    if args.dry_run == DryRun::None {
        patch(cluster, &args.pool, body, false).await?;
        writeln!(
            io::stdout(),
            "{KIND}/{} image set to {}",
            args.pool,
            args.reference
        )?;
        return Ok(Verdict::Good);
    }
    let by = if args.dry_run == DryRun::Server {
        patch(cluster, &args.pool, body, true).await?;
        "server dry run"
    } else {
        "dry run"
    };
    let text = forecast::of(cluster, &args.pool, &args.reference, &image).await?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{KIND}/{} image set to {} ({by})",
        args.pool, args.reference
    )?;
    for line in text {
        writeln!(out, "{line}")?;
    }
    Ok(Verdict::Good)
}
