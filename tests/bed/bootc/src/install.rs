//! Making a disk: what `bootc install` does to a machine.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::origin::ImageRef;
use crate::sysroot::Deployment;

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
/// is the given image. Nothing is half done: without success there is no
/// deployment on it.
pub fn install(_sysroot: &Path, _install: &Install) -> Result<Deployment> {
    anyhow::bail!("the store is not there yet")
}
