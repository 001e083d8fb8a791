//! What goes wrong on one host stays there and is said.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::view::View;
use e2e::wait::until;
use e2e::{Config, Env};
use kube::ResourceExt as _;
use libtest_mimic::Trial;

use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "trouble::a_host_whose_bootc_is_broken_is_degraded_and_the_others_go_on",
        a_host_whose_bootc_is_broken_is_degraded_and_the_others_go_on,
    )]
}

async fn a_host_whose_bootc_is_broken_is_degraded_and_the_others_go_on() -> Result<()> {
    let env = Env::new(Config {
        nodes: 2,
        ..Config::default()
    })
    .await?;
    // Laid over the host's own: a bootc that only fails.
    let script = "printf '#!/bin/sh\\necho \"error: the disk is on fire\" >&2\\nexit 1\\n' > /run/broken-bootc && chmod 755 /run/broken-bootc && mount --bind /run/broken-bootc /usr/bin/bootc";
    let image = env.booted("node1").await?;
    let said = env.bink.ssh("node2", script).await?;
    ensure!(
        said.code == 0,
        "cannot break bootc on node2: {}",
        said.stderr
    );

    let pool = env.pool("hosts", &image).await?;
    let update = env.images.push_os("2").await?;
    env.set_image(&pool, &update).await?;
    until(
        "node1 is updated and node2 is degraded with bootc's own words",
        Duration::from_secs(240),
        async || {
            let view = View::of(&env.client, &pool.name_any()).await?;
            let of = |name: &str| view.nodes.iter().find(|node| node.name == name);
            let updated = of("node1").is_some_and(|node| {
                node.digest == update.digest && node.state == "Idle" && !node.cordoned
            });
            let degraded =
                of("node2").is_some_and(|node| node.note.contains("the disk is on fire"));
            Ok(if updated && degraded {
                Ok(())
            } else {
                Err(format!("{:?}", view.nodes))
            })
        },
    )
    .await?;
    let view = View::of(&env.client, &pool.name_any()).await?;
    let degraded = view.degraded.unwrap_or_default();
    ensure!(
        degraded.starts_with("NodeDegraded") && degraded.contains("node2"),
        "the pool says {degraded:?}"
    );
    Ok(())
}
