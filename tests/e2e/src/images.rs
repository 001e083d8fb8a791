//! What a cluster pulls: our own images, the workload's, and OS images.

use std::sync::Arc;

use anyhow::Result;
use bed::image::{self, Layer, Registry};

use crate::build::Binaries;

/// The registry's name within a cluster.
const WITHIN: &str = "registry.cluster.local:5000";
/// Repository of the OS images that tests make.
const OS: &str = "e2e/os";
/// The kernel that they carry: all the same.
const KERNEL: &str = "1";
/// Nobody: what the operator runs as.
const UNPRIVILEGED: &str = "65532:65532";

/// An image by digest, by the name that it has within the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `host/repository`
    pub name: String,
    /// `sha256:…`
    pub digest: String,
}

impl Image {
    /// `host/repository@sha256:…`
    #[must_use]
    pub fn reference(&self) -> String {
        format!("{}@{}", self.name, self.digest)
    }
}

/// What was pushed for a test, and the way to push more.
#[derive(Debug, Clone)]
pub struct Images {
    /// The operator.
    pub operator: Image,
    /// The agent.
    pub agent: Image,
    /// A small web server on port 8080.
    pub web: Image,
    registry: Arc<Registry>,
}

impl Images {
    /// Builds our own images and pushes them to the registry at `address`.
    pub async fn push(address: &str) -> Result<Self> {
        let binaries = Binaries::ensure().await?;
        let registry = Registry::plain(address);
        let operator = Layer::new().program("/bootc-operator", &binaries.operator)?;
        let operator = image::Image::new(operator)
            .entrypoint(&["/bootc-operator"])
            .user(UNPRIVILEGED);
        let agent = Layer::new().program("/bootc-nodeagent", &binaries.agent)?;
        let agent = image::Image::new(agent).entrypoint(&["/bootc-nodeagent"]);
        Ok(Self {
            operator: push(&registry, &operator, "e2e/bootc-operator", "test").await?,
            agent: push(&registry, &agent, "e2e/bootc-nodeagent", "test").await?,
            web: push(&registry, &image::web()?, "e2e/web", "test").await?,
            registry: Arc::new(registry),
        })
    }

    /// Pushes an OS image of this version, tagged with it.
    pub async fn push_os(&self, version: &str) -> Result<Image> {
        self.push_os_with_kernel(version, KERNEL).await
    }

    /// The same with another kernel: no soft reboot leads to it.
    pub async fn push_os_with_kernel(&self, version: &str, kernel: &str) -> Result<Image> {
        push(&self.registry, &image::os(version, kernel)?, OS, version).await
    }
}

async fn push(
    registry: &Registry,
    image: &image::Image,
    repository: &str,
    tag: &str,
) -> Result<Image> {
    let digest = registry.push(image, repository, tag).await?;
    Ok(Image {
        name: format!("{WITHIN}/{repository}"),
        digest,
    })
}
