//! `bootc rollback`: swaps the running deployment and the one before it, at once.

use anyhow::{Context, Result, bail};

use crate::apply;
use crate::host::{Booted, Host, touch};
use crate::soft_reboot;
use crate::staged::Staged;
use crate::switch::After;

/// Queues the rollback, or takes a queued one back. What is staged is lost.
pub(crate) fn rollback(host: &Host, booted: &mut Booted, after: After) -> Result<()> {
    let Some(other) = booted.rollback() else {
        bail!("No rollback available")
    };
    let reverting = booted.rollback_queued();
    let first = if reverting { booted.index } else { other };
    let next = booted
        .entries
        .get(first)
        .context("No rollback available")?
        .clone();
    if next.origin.image.is_none() || next.origin.incompatible {
        bail!("Rollback is not container image based");
    }
    if reverting {
        println!("notice: Reverting queued rollback state");
    }
    soft_reboot::reset(host)?;
    Staged::remove(&host.run_ostree())?;
    booted.staged = None;
    booted.clean()?;
    booted.state.deployments.retain(|d| *d != next.deployment);
    booted.state.deployments.insert(0, next.deployment.clone());
    booted.sysroot.save(&booted.state)?;
    touch(&booted.sysroot.root().join("ostree/deploy"))?;
    println!(
        "Next boot: {} deployment",
        if reverting { "current" } else { "rollback" }
    );
    host.require_reboot(&next.deployment.image.digest)?;
    touch(&booted.sysroot.root().join("ostree/bootc"))?;
    if let Some(wish) = after.soft_reboot {
        soft_reboot::prepare(host, booted, &next.deployment, wish, "rollback")
            .context("Handling soft reboot")?;
    }
    if after.apply { apply::reboot() } else { Ok(()) }
}
