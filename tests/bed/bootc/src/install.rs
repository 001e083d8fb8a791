//! Making a disk: what `bootc install` does to a machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::deploy::{deploy, make_backing};
use crate::origin::ImageRef;
use crate::pull::Upstream;
use crate::registry::Access;
use crate::store::Store;
use crate::sysroot::{BASE, Deployment, State, Sysroot};

/// Where the first image comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A registry.
    Registry {
        /// Base address to contact instead of the one in the reference, such
        /// as `http://127.0.0.1:5000`: the machine may reach the registry
        /// by another name than the host will.
        endpoint: Option<String>,
    },
    /// A folder in the OCI image layout; its index names one image.
    Layout(PathBuf),
}

/// What to install.
#[derive(Clone, Debug)]
pub struct Install {
    /// Recorded as the image that the host follows.
    pub image: ImageRef,
    /// Where it comes from now.
    pub source: Source,
    /// The bed's base tree, where a kernel is looked for if the image has none.
    pub base: PathBuf,
}

/// Makes the (existing, empty) folder `sysroot` a disk whose only deployment
/// is the given image. The record of deployments is written last: without
/// success the folder is no installed disk.
pub fn install(sysroot: &Path, install: &Install) -> Result<Deployment> {
    let sysroot = Sysroot::at(sysroot);
    for dir in [
        sysroot.trees(),
        sysroot.var(),
        sysroot.ostree().join("bootc"),
        sysroot.root().join(BASE),
    ] {
        fs::create_dir_all(&dir).with_context(|| format!("Creating {}", dir.display()))?;
    }
    let store = Store::of(&sysroot);
    store.prepare()?;
    let upstream = match &install.source {
        Source::Layout(dir) => Upstream::Layout(dir.clone()),
        Source::Registry { endpoint } => {
            let access = Access {
                endpoint: endpoint.clone(),
                ..Access::default()
            };
            Upstream::registry(&install.image.image, &access)?
        }
    };
    let image = upstream.prepare()?;
    upstream.import(&store, &image, &mut |_, _| Ok(()))?;
    let deployment = deploy(
        &sysroot,
        &store,
        &install.base,
        &install.image,
        &image.digest,
    )?;
    make_backing(&sysroot, &deployment.id())?;
    sysroot.save(&State {
        deployments: vec![deployment.clone()],
        images: BTreeMap::from([(install.image.pullspec(), image.digest)]),
        cached_updates: BTreeMap::new(),
    })?;
    Ok(deployment)
}
