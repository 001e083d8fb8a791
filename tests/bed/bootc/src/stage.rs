//! From a reference to a staged deployment: what `switch` and `upgrade` share.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use ini::Ini;
use nix::sys::statvfs::statvfs;
use oci_spec::image::{Descriptor, ImageManifest};

use crate::access::{access, check_policy};
use crate::deploy::{commit_of, deploy};
use crate::faults::PullFault;
use crate::host::{Booted, Host, touch};
use crate::origin::ImageRef;
use crate::progress::{Layer, Progress, Pull};
use crate::pull::{Prepared, Upstream, missing, parse};
use crate::soft_reboot;
use crate::staged::Staged;
use crate::store::{Pruned, Store};
use crate::sysroot::{BASE, ImageInfo};

/// How long a real host is busy with its stores between the moment when an
/// image shows as staged and the end of the command. A watcher that acts on
/// the first sign meets the sysroot lock in this time.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// A command at work: the host, what it knows, and where progress goes.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    pub(crate) host: &'a Host,
    pub(crate) booted: Booted,
    pub(crate) store: Store,
    pub(crate) faults: &'a PullFault,
    pub(crate) progress: Progress,
}

/// What the registry has, against what the store holds under the same pullspec.
#[derive(Debug)]
pub(crate) enum Found {
    /// The same image; its digest.
    Present(String),
    /// Another image, or the first one.
    New(Box<(Upstream, Prepared)>),
}

impl<'a> Work<'a> {
    pub(crate) fn new(
        host: &'a Host,
        booted: Booted,
        faults: &'a PullFault,
        progress: Progress,
    ) -> Result<Self> {
        let store = Store::of(&booted.sysroot);
        store.prepare()?;
        Ok(Self {
            host,
            booted,
            store,
            faults,
            progress,
        })
    }

    /// Asks the registry for the image's manifest, unless the pullspec is a
    /// platform's digest that was pulled by this very pullspec before.
    pub(crate) fn find(&mut self, image: &ImageRef) -> Result<Found> {
        let stored = self.booted.state.images.get(&image.pullspec()).cloned();
        let reference = parse(&image.image)?;
        if let Some(digest) = stored.clone().filter(|d| reference.digest() == Some(d)) {
            return Ok(Found::Present(digest));
        }
        let (upstream, found) = self
            .fetch_manifest(image)
            .context("Fetching manifest")
            .context("Preparing import")?;
        if stored.as_ref() == Some(&found.digest) {
            return Ok(Found::Present(found.digest));
        }
        if let Some(old) = stored {
            upstream.import_config(&self.store, &found)?;
            let info = self.store.info(&found.digest, &found.manifest)?;
            self.booted
                .state
                .cached_updates
                .insert(commit_of(&old), info);
            self.booted.sysroot.save(&self.booted.state)?;
        }
        Ok(Found::New(Box::new((upstream, found))))
    }

    fn fetch_manifest(&self, image: &ImageRef) -> Result<(Upstream, Prepared)> {
        if image.transport != "registry" {
            bail!(
                "transport {} is not known to this stand-in; push the image to a registry",
                image.transport
            );
        }
        check_policy(self.host, image)?;
        let access = access(self.host, &parse(&image.image)?)?;
        let open = || -> Result<_> {
            let upstream = Upstream::registry(&image.image, &access)?;
            let found = upstream.prepare()?;
            Ok((upstream, found))
        };
        open().map_err(|e| anyhow!("failed to invoke method OpenImage: {e:#}"))
    }

    /// Brings the image into the store and returns its digest.
    pub(crate) fn pull(&mut self, image: &ImageRef) -> Result<String> {
        let (upstream, found) = match self.find(image)? {
            Found::Present(digest) => {
                println!("No changes in {} => {digest}", image.image);
                return Ok(digest);
            }
            Found::New(new) => *new,
        };
        self.announce(image, &found)?;
        self.import(&upstream, &found)
            .context("Importing")
            .context("Pulling")?;
        self.progress.importing(&found.digest, false);
        self.progress.importing(&found.digest, true);
        self.booted
            .state
            .images
            .insert(image.pullspec(), found.digest.clone());
        self.booted.sysroot.save(&self.booted.state)?;
        Ok(found.digest)
    }

    /// Says what is to be fetched, and refuses what cannot fit.
    fn announce(&self, image: &ImageRef, found: &Prepared) -> Result<()> {
        let needed = missing(&self.store, found);
        if needed.is_empty() {
            return Ok(());
        }
        let present = found.manifest.layers().len() - needed.len();
        let bytes = needed.iter().map(|l| l.size()).sum();
        println!(
            "layers already present: {present}; layers needed: {} ({})",
            needed.len(),
            size(bytes)
        );
        let free = match self.faults.free_bytes {
            Some(free) => free,
            None => free_bytes(self.booted.sysroot.root())?,
        };
        if free < bytes {
            let (free, bytes) = (size(free), size(bytes));
            bail!(
                "Insufficient free space for {} (available: {free} required: {bytes})",
                image.image
            );
        }
        Ok(())
    }

    fn import(&mut self, upstream: &Upstream, found: &Prepared) -> Result<()> {
        let needed = missing(&self.store, found);
        let total: u64 = found.manifest.layers().iter().map(Descriptor::size).sum();
        let bytes_total = needed.iter().map(|l| l.size()).sum();
        let mut pull = Pull {
            image: &found.digest,
            bytes_total,
            bytes_cached: total - bytes_total,
            steps_cached: found.manifest.layers().len() - needed.len(),
            steps_total: needed.len(),
            ..Pull::default()
        };
        let mut pace = Pace {
            faults: self.faults,
            start: Instant::now(),
        };
        let (progress, mut before) = (&mut self.progress, 0);
        upstream.import(&self.store, found, &mut |layer, bytes| {
            pull.bytes = before + bytes;
            pace.keep(pull.bytes)?;
            if bytes == layer.size() {
                before += bytes;
                pull.steps += 1;
            }
            progress.pulling(
                pull,
                Layer {
                    digest: layer.digest().as_ref(),
                    bytes,
                    total: layer.size(),
                },
            );
            Ok(())
        })
    }

    /// Makes the stored image `digest` the staged deployment, in place of any other.
    pub(crate) fn stage(
        &mut self,
        image: &ImageRef,
        digest: &str,
        locked: bool,
    ) -> Result<ImageInfo> {
        let booted = &mut self.booted;
        soft_reboot::reset(self.host)?;
        let base = booted.sysroot.root().join(BASE);
        let deployed = deploy(&booted.sysroot, &self.store, &base, image, digest);
        eprintln!("Deploying...done (0 seconds)");
        let deployment = deployed.context("Staging")?;
        self.progress.staging(&deployment, 0);
        let staged = Staged {
            deployment: deployment.clone(),
            locked,
        };
        staged.store(&self.host.run_ostree())?;
        booted.staged = Some(staged);
        self.progress.staging(&deployment, 1);
        booted.clean()?;
        touch(&booted.sysroot.root().join("ostree/deploy"))?;
        std::thread::sleep(HOUSEKEEPING);
        self.progress.staging(&deployment, 2);
        self.check_bound_images(&deployment.id())
            .context("Staging")?;
        self.progress.staging(&deployment, 3);
        self.prune()?;
        self.progress.staging(&deployment, 4);
        announce_queued(image, &deployment.image);
        self.host.require_reboot(digest)?;
        Ok(deployment.image)
    }

    /// The images that the new tree wants to have beside it, by `bound-images.d`.
    fn check_bound_images(&self, id: &str) -> Result<()> {
        let dir = self
            .booted
            .sysroot
            .tree(id)
            .join("usr/lib/bootc/bound-images.d");
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let file = Ini::load_from_file(entry?.path())?;
            let Some(image) = file.get_from(Some("Image"), "Image") else {
                continue;
            };
            eprintln!("Fetching bound image: {image}...done (0 seconds)");
            let found = access(self.host, &parse(image)?)
                .and_then(|a| Upstream::registry(image, &a)?.prepare());
            found.map_err(|e| {
                anyhow!(
                    "Pulling bound images: Pulling bound images: Failed to pull image: Subprocess failed: \
                     ExitStatus(unix_wait_status(32000))\nTrying to pull {image}...\nError: unable to copy from \
                     source docker://{image}: initializing source docker://{image}: {e:#}\n"
                )
            })?;
        }
        Ok(())
    }

    /// Drops images that no deployment follows any more.
    fn prune(&mut self) -> Result<()> {
        let staged = self.booted.staged_entry()?;
        let entries = || self.booted.entries.iter().chain(&staged);
        let keep = entries()
            .filter_map(|e| e.origin.image.as_ref())
            .map(ImageRef::pullspec)
            .collect();
        let deployed = entries()
            .map(|e| e.deployment.image.digest.clone())
            .collect();
        let pruned = self.store.prune(&mut self.booted.state, &keep, &deployed)?;
        self.booted.sysroot.save(&self.booted.state)?;
        let Pruned {
            images,
            layers,
            bytes,
        } = pruned;
        if images + layers > 0 {
            println!(
                "Pruned images: {images} (layers: {layers}, objsize: {})",
                size(bytes)
            );
        }
        Ok(())
    }

    /// Tells the watchers of bootc's own folder.
    pub(crate) fn tell_watchers(&self) -> Result<()> {
        touch(&self.booted.sysroot.root().join("ostree/bootc"))
    }

    /// Prints how the image `new` differs from the running one.
    pub(crate) fn print_difference(&self, new: &ImageManifest) -> Result<()> {
        let Some(running) = self.booted.running() else {
            return Ok(());
        };
        let old = self.store.manifest(&running.deployment.image.digest)?;
        let (removed, added) = (without(&old, new), without(new, &old));
        let line = |title: &str, layers: &[&Descriptor]| {
            let bytes = layers.iter().map(|l| l.size()).sum();
            println!("{title:<17} {:<4}  Size: {}", layers.len(), size(bytes));
        };
        line(
            "Total new layers:",
            &new.layers().iter().collect::<Vec<_>>(),
        );
        line("Removed layers:", &removed);
        line("Added layers:", &added);
        Ok(())
    }
}

/// Slows a pull down, or stops it as a full disk does.
struct Pace<'a> {
    faults: &'a PullFault,
    start: Instant,
}

impl Pace<'_> {
    fn keep(&mut self, bytes: u64) -> Result<()> {
        if self
            .faults
            .full_after_bytes
            .is_some_and(|limit| bytes >= limit)
        {
            bail!(
                "error: ostree-tar: Failed to handle file: ostree-tar: Failed to import file: Writing content object: \
                 No space left on device: Processing tar: Failed to commit tar: ExitStatus(unix_wait_status(256))"
            );
        }
        if let Some(rate) = self.faults.bytes_per_second {
            let due = Duration::from_millis(bytes.saturating_mul(1000) / rate.max(1));
            std::thread::sleep(due.saturating_sub(self.start.elapsed()));
        }
        Ok(())
    }
}

fn announce_queued(image: &ImageRef, info: &ImageInfo) {
    println!("Queued for next boot: {}", image.image);
    if let Some(version) = &info.version {
        println!("  Version: {version}");
    }
    println!("  Digest: {}", info.digest);
}

fn without<'m>(manifest: &'m ImageManifest, other: &ImageManifest) -> Vec<&'m Descriptor> {
    let there: BTreeSet<_> = other
        .layers()
        .iter()
        .map(|l| l.digest().to_string())
        .collect();
    manifest
        .layers()
        .iter()
        .filter(|l| !there.contains(l.digest().as_ref()))
        .collect()
}

fn free_bytes(dir: &Path) -> Result<u64> {
    let stat = statvfs(dir)
        .map_err(io::Error::from)
        .with_context(|| format!("statvfs {}", dir.display()))?;
    Ok(stat.blocks_available() * stat.fragment_size())
}

/// Bytes as `GLib` writes them: `648 bytes`, and `20.0 MB` with a no-break space.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} bytes");
    }
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1}\u{a0}{}", UNITS.get(unit).unwrap_or(&"TB"))
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_glibs() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (648, "648 bytes"),
            (11_100, "11.1\u{a0}kB"),
            (20_010_000, "20.0\u{a0}MB"),
            (135_200_000, "135.2\u{a0}MB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
