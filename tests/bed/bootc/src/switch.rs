//! `bootc switch` and `bootc upgrade`.

use anyhow::{Context, Result, bail};

use crate::apply;
use crate::host::Booted;
use crate::origin::ImageRef;
use crate::pull::parse;
use crate::soft_reboot::{self, Wish};
use crate::stage::{Found, Work};
use crate::staged::Staged;

/// What is done with the result.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct After {
    pub(crate) soft_reboot: Option<Wish>,
    pub(crate) apply: bool,
}

/// What `upgrade` shall do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Upgrade {
    pub(crate) check: bool,
    pub(crate) download_only: bool,
    pub(crate) from_downloaded: bool,
    pub(crate) tag: Option<String>,
    pub(crate) after: After,
}

/// Follows another image: pulls and stages it, locked or not.
pub(crate) fn switch(
    work: &mut Work<'_>,
    target: &ImageRef,
    download_only: bool,
    after: After,
) -> Result<()> {
    if followed(&work.booted)?.as_ref() == Some(target) {
        println!("Image specification is unchanged.");
        return if after.apply && work.booted.staged.is_some() {
            apply::reboot()
        } else {
            Ok(())
        };
    }
    let digest = work.pull(target)?;
    work.stage(target, &digest, download_only)?;
    work.tell_watchers()?;
    finish(work, after)
}

/// `--from-downloaded`: what is staged shall be applied at the next reboot.
pub(crate) fn unlock(work: &Work<'_>, after: After) -> Result<()> {
    let Some(staged) = &work.booted.staged else {
        bail!("No staged deployment found")
    };
    if staged.locked {
        staged.set_locked(&work.host.run_ostree(), false)?;
        println!("Staged deployment will now be applied on reboot");
    } else {
        println!("Staged deployment is already set to apply on reboot");
    }
    finish(work, after)
}

/// Looks for a newer image of the reference that is followed.
pub(crate) fn upgrade(work: &mut Work<'_>, options: &Upgrade) -> Result<()> {
    if options.from_downloaded {
        return unlock(work, options.after);
    }
    let target = upgrade_target(&work.booted, options.tag.as_deref())?;
    if options.check {
        return check(work, &target);
    }
    let digest = work.pull(&target)?;
    if let Some(staged) = work
        .booted
        .staged
        .clone()
        .filter(|s| s.deployment.image.digest == digest)
    {
        toggle(work, &staged, options.download_only)?;
        return finish(work, options.after);
    }
    if work
        .booted
        .running()
        .is_some_and(|e| e.deployment.image.digest == digest)
    {
        println!("No update available.");
        return Ok(());
    }
    work.stage(&target, &digest, options.download_only)?;
    work.tell_watchers()?;
    work.print_difference(&work.store.manifest(&digest)?)?;
    finish(work, options.after)
}

fn toggle(work: &Work<'_>, staged: &Staged, lock: bool) -> Result<()> {
    if staged.locked == lock {
        println!("Staged update present, not changed");
        return Ok(());
    }
    staged.set_locked(&work.host.run_ostree(), lock)?;
    println!(
        "{}",
        if lock {
            "Image downloaded, but will not be applied on reboot"
        } else {
            "Staged deployment will now be applied on reboot"
        }
    );
    Ok(())
}

fn check(work: &mut Work<'_>, target: &ImageRef) -> Result<()> {
    let Found::New(new) = work.find(target)? else {
        println!("No changes in: docker://{}", target.image);
        return Ok(());
    };
    let (upstream, found) = *new;
    upstream.import_config(&work.store, &found)?;
    let info = work.store.info(&found.digest, &found.manifest)?;
    println!("Update available for: docker://{}", target.image);
    if let Some(version) = &info.version {
        println!("  Version: {version}");
    }
    println!("  Digest: {}", info.digest);
    work.print_difference(&found.manifest)?;
    work.tell_watchers()
}

/// The reference that the host follows: that of the staged image, else of the running one.
fn followed(booted: &Booted) -> Result<Option<ImageRef>> {
    let staged = booted.staged_entry()?;
    let entry = staged.as_ref().or(booted.running());
    Ok(entry
        .filter(|e| !e.origin.incompatible)
        .and_then(|e| e.origin.image.clone()))
}

fn upgrade_target(booted: &Booted, tag: Option<&str>) -> Result<ImageRef> {
    if booted.running().is_some_and(|e| e.origin.incompatible) {
        bail!(
            "Deployment contains local rpm-ostree modifications; cannot upgrade via bootc. \
             You can run `rpm-ostree reset` to undo the modifications."
        );
    }
    let target = followed(booted)?.context("No image source specified")?;
    let Some(tag) = tag else { return Ok(target) };
    let reference = parse(&target.image)?;
    Ok(ImageRef {
        image: format!("{}/{}:{tag}", reference.registry(), reference.repository()),
        ..target
    })
}

fn finish(work: &Work<'_>, after: After) -> Result<()> {
    if let (Some(wish), Some(staged)) = (after.soft_reboot, &work.booted.staged) {
        soft_reboot::prepare(work.host, &work.booted, &staged.deployment, wish, "staged")
            .context("Handling soft reboot")
            .context("Handling staged soft reboot")?;
    }
    if after.apply && work.booted.staged.is_some() {
        apply::reboot()
    } else {
        Ok(())
    }
}
