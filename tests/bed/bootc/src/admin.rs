//! `ostree admin`: what an agent uses of it, and the verbs of its units.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::host::{Booted, Host, touch};
use crate::origin::Origin;
use crate::soft_reboot;
use crate::staged::Staged;
use crate::sysroot::STATEROOT;

/// One line of `ostree admin status`: the staged deployment first, then those on disk.
#[derive(Clone, Debug)]
struct Row {
    id: String,
    value: Value,
}

/// `ostree admin status`; reads without the sysroot lock.
pub(crate) fn status(host: &Host, as_json: bool) -> Result<()> {
    let rows = rows(host, &host.load()?)?;
    if as_json {
        let deployments: Vec<_> = rows.into_iter().map(|r| r.value).collect();
        println!(
            "{}",
            serde_json::to_string_pretty(&json!({"deployments": deployments}))?
        );
        return Ok(());
    }
    for row in rows {
        let is = |key: &str| row.value.get(key) == Some(&Value::Bool(true));
        let mark = if is("booted") { '*' } else { ' ' };
        let states = [
            ("staged", " (staged)"),
            ("pending", " (pending)"),
            ("rollback", " (rollback)"),
        ];
        let state = states
            .iter()
            .find(|(key, _)| is(key))
            .map_or("", |(_, text)| text);
        let soft = if is("soft-reboot-target") {
            " (soft-reboot)"
        } else {
            ""
        };
        println!("{mark} {STATEROOT} {}{state}{soft}", row.id);
        if is("pinned") {
            println!("    Pinned: yes");
        }
        println!("    origin: <unknown origin type>");
    }
    Ok(())
}

fn rows(host: &Host, booted: &Booted) -> Result<Vec<Row>> {
    let staged = booted.staged_entry()?;
    let before = usize::from(staged.is_some());
    let mut rows = Vec::new();
    for (index, entry) in staged.iter().chain(&booted.entries).enumerate() {
        let place = index.checked_sub(before);
        let id = entry.deployment.id();
        let value = json!({
            "checksum": entry.deployment.checksum,
            "stateroot": STATEROOT,
            "serial": entry.deployment.serial,
            "index": index,
            "booted": place == Some(booted.index),
            "pending": place.is_none_or(|p| p < booted.index),
            "rollback": place.is_some_and(|p| p == booted.index + 1),
            "finalization-locked": place.is_none() && booted.staged.as_ref().is_some_and(|s| s.locked),
            "soft-reboot-target": soft_reboot::is_target(host, &id),
            "staged": place.is_none(),
            "pinned": entry.origin.pinned,
            "unlocked": "none",
        });
        rows.push(Row { id, value });
    }
    Ok(rows)
}

/// `ostree admin undeploy INDEX`, counting as `status` does.
pub(crate) fn undeploy(host: &Host, index: usize) -> Result<()> {
    let mut booted = host.load()?;
    let id = deployment_at(&booted, index)?;
    if Some(&id) == booted.running().map(|e| e.deployment.id()).as_ref() {
        bail!("Cannot undeploy currently booted deployment");
    }
    soft_reboot::reset(host)?;
    if booted
        .staged
        .as_ref()
        .is_some_and(|s| s.deployment.id() == id)
    {
        Staged::remove(&host.run_ostree())?;
        booted.staged = None;
    } else {
        booted.state.deployments.retain(|d| d.id() != id);
        booted.sysroot.save(&booted.state)?;
    }
    booted.clean()?;
    touch(&booted.sysroot.root().join("ostree/deploy"))?;
    println!("Deleted deployment {id}");
    Ok(())
}

/// `ostree admin pin [--unpin] INDEX`.
pub(crate) fn pin(host: &Host, index: usize, pinned: bool) -> Result<()> {
    let booted = host.load()?;
    let id = deployment_at(&booted, index)?;
    if booted
        .staged
        .as_ref()
        .is_some_and(|s| s.deployment.id() == id)
    {
        bail!("Cannot pin staged deployment");
    }
    Origin::pin(&booted.sysroot.tree(&id), pinned)?;
    touch(&booted.sysroot.root().join("ostree/deploy"))?;
    println!(
        "Deployment {index} is now {}",
        if pinned { "pinned" } else { "unpinned" }
    );
    Ok(())
}

/// `ostree admin lock-finalization [--unlock]`.
pub(crate) fn lock_finalization(host: &Host, lock: bool) -> Result<()> {
    let staged = host.load()?.staged.context("No staged deployment")?;
    println!(
        "{}",
        match (lock, staged.locked) {
            (true, false) => "Staged deployment is now finalization locked",
            (true, true) => "Staged deployment is already finalization locked",
            (false, true) => "Staged deployment is now queued to apply on shutdown",
            (false, false) => "Staged deployment is already queued to apply on shutdown",
        }
    );
    if staged.locked == lock {
        Ok(())
    } else {
        staged.set_locked(&host.run_ostree(), lock)
    }
}

fn deployment_at(booted: &Booted, index: usize) -> Result<String> {
    let staged = booted.staged.iter().map(|s| s.deployment.id());
    let all: Vec<_> = staged
        .chain(booted.entries.iter().map(|e| e.deployment.id()))
        .collect();
    let count = all.len();
    all.into_iter()
        .nth(index)
        .with_context(|| format!("Out of range deployment index {index}, expected < {count}"))
}
