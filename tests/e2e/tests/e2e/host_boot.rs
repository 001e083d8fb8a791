//! Reboots that do not lead where they should.

use anyhow::{Context as _, Result, ensure};
use crd::names::node_reason::{FELL_BACK, REBOOTING, STAGED};
use crd::names::{ANNOTATION_RETRY, condition};
use e2e::images::Image;
use e2e::wait::until;
use libtest_mimic::Trial;
use serde_json::json;

use crate::host_rig::{Rig, SOON, UPDATE};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "host_boot::an_image_that_falls_back_is_tried_once",
            an_image_that_falls_back_is_tried_once,
        ),
        trial(
            "host_boot::a_lost_reboot_is_repeated_and_nothing_of_ours_delays_one",
            a_lost_reboot_is_repeated_and_nothing_of_ours_delays_one,
        ),
    ]
}

/// The boot loader gives the new image up: one try, the slot stays taken, and
/// the way out is another image.
async fn an_image_that_falls_back_is_tried_once() -> Result<()> {
    let rig = Rig::new(1).await?;
    let node = "node1";
    rig.pool(node).await?;
    let old = rig.env.booted(node).await?;
    let bad = rig.env.images.push_os("2").await?;
    rig.faults(node, json!({ "boot": [{ "image": bad.digest }] }))
        .await?;
    rig.set(node, &bad).await?;
    let seen = rig.degraded(node, FELL_BACK, &bad.digest).await?;
    ensure!(
        seen.holds_slot() && seen.is_cordoned(),
        "{node} fell back and gave its slot or its cordon away"
    );
    ensure!(
        rig.env.booted(node).await? == old,
        "{node} is not back on its old image"
    );
    rig.boots_were(node, &["reboot"]).await?;

    // Whatever makes the agent or the host think again must not make it try again.
    rig.kill_agent(node).await?;
    let before = rig.look(node).await?.boot();
    rig.env.bink.bed(["power", "cut", node]).await?;
    let seen = rig
        .when(node, "is up again and still degraded", UPDATE, |seen| {
            seen.boot().is_some_and(|boot| Some(boot) != before)
                && seen.is_ready()
                && seen.reason_of_degraded() == FELL_BACK
        })
        .await?;
    ensure!(
        seen.holds_slot(),
        "{node} gave its slot away at the second boot"
    );
    ensure!(seen.staged().is_none(), "{node} staged the image again");
    rig.boots_were(node, &["reboot", "power-cut"]).await?;

    let good = rig.env.images.push_os("3").await?;
    rig.set(node, &good).await?;
    rig.updated(node, &good).await?;
    rig.boots_were(node, &["reboot", "power-cut", "reboot"])
        .await
}

async fn a_lost_reboot_is_repeated_and_nothing_of_ours_delays_one() -> Result<()> {
    let rig = Rig::new(3).await?;
    for node in &rig.env.nodes {
        rig.pool(node).await?;
    }
    tokio::try_join!(
        async {
            nothing_holds_the_lock(&rig, "node1")
                .await
                .context("the trap of --apply")
        },
        async {
            cut_after_the_unlock(&rig, "node2")
                .await
                .context("cut after the unlock")
        },
        async {
            cut_during_the_boot(&rig, "node3")
                .await
                .context("cut during the boot")
        },
    )?;
    tokio::try_join!(
        async {
            older_release(&rig, "node3", "1.11.0", "not locked, because")
                .await
                .context("a bootc that cannot lock")
        },
        async {
            older_release(&rig, "node2", "1.16.9", "locked, awaiting")
                .await
                .context("a bootc that locks in two steps")
        },
        async {
            rolled_back_by_hand(&rig, "node1")
                .await
                .context("an admin's rollback")
        },
    )
    .map(drop)
}

/// A bootc that runs at shutdown keeps the finalizer waiting until the update
/// is lost. Here each `bootc status` holds the lock for seconds, and the
/// watched folders change all the time, which asks for one `status` after the
/// other: none may run once the reboot is asked for.
async fn nothing_holds_the_lock(rig: &Rig, node: &str) -> Result<()> {
    let slow = json!({ "commands": { "bootc status": { "hangSeconds": 2, "holdLock": true } } });
    rig.faults(node, slow).await?;
    let touch = "systemd-run --quiet --property=DefaultDependencies=no sh -c 'while touch /sysroot/ostree/deploy; do sleep 0.2; done'";
    rig.on(node, touch).await?;
    let image = rig.env.images.push_os("2").await?;
    rig.set(node, &image).await?;
    rig.updated(node, &image).await?;
    rig.boots_were(node, &["reboot"]).await?;
    let finalizer = rig
        .on(
            node,
            "journalctl --quiet --no-pager -o cat -b -1 -u ostree-finalize-staged.service",
        )
        .await?;
    ensure!(
        finalizer.contains("Finalized deployment"),
        "the journal of {node} does not show the finalizer: {finalizer}"
    );
    ensure!(
        !finalizer.contains("Waiting for sysroot lock"),
        "a bootc of ours kept the finalizer of {node} waiting: {finalizer}"
    );
    Ok(())
}

/// The power goes when the staged image is unlocked and the reboot is not yet
/// asked for: nothing was finalized, so it is staged and tried again.
async fn cut_after_the_unlock(rig: &Rig, node: &str) -> Result<()> {
    let slow = json!({ "commands": { "bootc upgrade": { "after": true, "hangSeconds": 120 } } });
    rig.faults(node, slow).await?;
    let old = rig.env.booted(node).await?;
    let image = rig.env.images.push_os("2").await?;
    rig.set(node, &image).await?;
    rig.when(node, "goes down", UPDATE, |seen| seen.is(REBOOTING))
        .await?;
    until(
        &format!("{node} has unlocked what is staged"),
        SOON,
        async || {
            let said = rig
                .env
                .bink
                .ssh(node, "bootc status --json --format-version=1")
                .await?;
            let status: serde_json::Value = serde_json::from_str(&said.stdout)?;
            let locked = &status["status"]["staged"]["downloadOnly"];
            Ok(if *locked == json!(false) {
                Ok(())
            } else {
                Err(locked.to_string())
            })
        },
    )
    .await?;
    rig.env.bink.bed(["power", "cut", node]).await?;
    until(&format!("{node} is up again"), SOON, async || {
        rig.faults(node, json!({})).await.map(Ok)
    })
    .await?;
    ensure!(
        rig.env.booted(node).await? == old || rig.boots(node).await?.len() > 2,
        "a power cut booted an image that was never finalized"
    );
    rig.updated(node, &image).await?;
    rig.boots_were(node, &["power-cut", "reboot"]).await
}

/// The power goes while the host boots the new image: in the first moment,
/// before the boot is complete, and when all but the agent is up. It boots it
/// again, and that is no second update.
async fn cut_during_the_boot(rig: &Rig, node: &str) -> Result<()> {
    rig.env.bink.bed(["boot-delay", node, "3s"]).await?;
    rig.on(node, HOLD_BOOT).await?;
    let image: Image = rig.env.images.push_os("2").await?;
    rig.set(node, &image).await?;
    until(&format!("{node} boots the new image"), UPDATE, async || {
        let boots = rig.boots(node).await?;
        Ok(if boots.len() == 2 {
            Ok(())
        } else {
            Err(format!("{boots:?}"))
        })
    })
    .await?;
    // In its firmware there is no system to end: the first moment after it.
    until(&format!("the power of {node} is cut"), SOON, async || {
        rig.env.bink.bed(["power", "cut", node]).await.map(Ok)
    })
    .await?;

    is_unit(rig, node, "hold-boot", "activating").await?;
    let complete = "systemctl show --value --property=ActiveState sysinit.target";
    ensure!(
        rig.on(node, complete).await? == "inactive",
        "{node} is not in the middle of its boot"
    );
    rig.on(
        node,
        "rm /etc/systemd/system/sysinit.target.wants/hold-boot.service",
    )
    .await?;
    rig.env.bink.bed(["power", "cut", node]).await?;

    is_unit(rig, node, "kubelet", "active").await?;
    ensure!(
        rig.look(node).await?.is(REBOOTING),
        "the agent of {node} is back already"
    );
    rig.env.bink.bed(["power", "cut", node]).await?;
    rig.updated(node, &image).await?;
    let ends = ["reboot", "power-cut", "power-cut", "power-cut"];
    rig.boots_were(node, &ends).await
}

/// Keeps a host from the end of its boot until it is removed.
const HOLD_BOOT: &str = "cd /etc/systemd/system && mkdir -p sysinit.target.wants && \
    printf '[Unit]\nDefaultDependencies=no\nBefore=sysinit.target ostree-boot-complete.service\n[Service]\nType=oneshot\nExecStart=/usr/bin/sleep 60\n' > hold-boot.service && \
    ln -s ../hold-boot.service sysinit.target.wants/hold-boot.service";

async fn is_unit(rig: &Rig, node: &str, unit: &str, state: &str) -> Result<()> {
    let question = format!("systemctl show --value --property=ActiveState {unit}");
    until(&format!("{unit} of {node} is {state}"), SOON, async || {
        let said = rig.env.bink.ssh(node, &question).await?;
        Ok(if said.stdout == state {
            Ok(())
        } else {
            Err(said.stdout)
        })
    })
    .await
}

/// What a bootc without the newest flags cannot do is said, and it is updated
/// all the same.
async fn older_release(rig: &Rig, node: &str, release: &str, words: &str) -> Result<()> {
    rig.faults(node, json!({ "release": release })).await?;
    // What it can is asked at the agent's start.
    rig.kill_agent(node).await?;
    rig.patch(node, json!({ "spec": { "rollout": { "paused": true } } }))
        .await?;
    let image = rig.env.images.push_os("3").await?;
    rig.set(node, &image).await?;
    rig.when(node, &format!("says `{words}`"), SOON, |seen| {
        seen.is(STAGED) && seen.message(condition::IDLE).contains(words)
    })
    .await?;
    let before = rig.boots(node).await?.len();
    rig.patch(node, json!({ "spec": { "rollout": { "paused": false } } }))
        .await?;
    rig.updated(node, &image).await?;
    ensure!(
        rig.boots(node).await?.len() == before + 1,
        "{node} did not reboot just once"
    );
    Ok(())
}

/// Long after an update somebody rolls the host back and reboots it. It stays
/// where that person put it, is said to be there, keeps its pods, and goes on
/// when a person asks: by a slot, like any update.
async fn rolled_back_by_hand(rig: &Rig, node: &str) -> Result<()> {
    rig.faults(node, json!({})).await?;
    let good = rig.env.booted(node).await?;
    let before = rig.boots(node).await?.len();
    rig.on(node, "bootc rollback").await?;
    // It takes the way in down with it.
    let _cut_off = rig.env.bink.ssh(node, "systemctl reboot").await?;
    let seen = rig.degraded(node, FELL_BACK, "by hand").await?;
    ensure!(
        !seen.holds_slot() && !seen.is_cordoned() && seen.staged().is_none(),
        "{node} is being updated against an admin's will"
    );
    ensure!(rig.env.booted(node).await? != good);
    ensure!(
        rig.boots(node).await?.len() == before + 1,
        "{node} was rebooted by us too"
    );

    let retry = format!("{node}@{:.3}", k8s_openapi::jiff::Timestamp::now());
    rig.patch(
        node,
        json!({ "metadata": { "annotations": { ANNOTATION_RETRY: retry } } }),
    )
    .await?;
    rig.updated(node, &good).await?;
    ensure!(
        rig.boots(node).await?.len() == before + 2,
        "{node} did not reboot just once"
    );
    Ok(())
}
