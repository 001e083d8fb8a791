//! What a cluster pulls: our own images, the workload's, and OS images.

use std::env;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bed::image::{self, Layer, Registry};
use tokio::process::Command;
use tokio::time::timeout;

use crate::bink::SEED;
use crate::build::Binaries;

/// The registry's name within a cluster.
pub(crate) const WITHIN: &str = "registry.cluster.local:5000";
/// Repository of the OS images that tests make.
const OS: &str = "e2e/os";
/// How long building or pushing a whole OS image may take.
const PODMAN: Duration = Duration::from_secs(600);
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
    /// Hosts are machines: the bed's OS images, which hold what differs from
    /// the bed's base tree, would not boot there.
    machines: bool,
}

impl Images {
    /// Builds our own images and pushes them to the registry at `address`.
    ///
    /// `machines` says that OS images are to be whole ones.
    pub async fn push(address: &str, machines: bool) -> Result<Self> {
        let registry = Arc::new(Registry::plain(address));
        let (operator, agent) = push_programs(&registry, "test").await?;
        Ok(Self {
            operator,
            agent,
            web: push(&registry, &image::web()?, "e2e/web", "test").await?,
            registry,
            machines,
        })
    }

    /// Our own images as another version would be: the same programs, with
    /// other digests.
    pub async fn newer(&self) -> Result<Self> {
        let (operator, agent) = push_programs(&self.registry, "newer").await?;
        Ok(Self {
            operator,
            agent,
            ..self.clone()
        })
    }

    /// Pushes an OS image of this version, tagged with it.
    pub async fn push_os(&self, version: &str) -> Result<Image> {
        self.push_os_with_kernel(version, KERNEL).await
    }

    /// The same with another kernel: no soft reboot leads to it.
    pub async fn push_os_with_kernel(&self, version: &str, kernel: &str) -> Result<Image> {
        self.push_os_as(version, kernel, version).await
    }

    /// Pushes an OS image of this version under a tag, which may have been another one's.
    pub async fn move_tag(&self, tag: &str, version: &str) -> Result<Image> {
        self.push_os_as(version, KERNEL, tag).await
    }

    async fn push_os_as(&self, version: &str, kernel: &str, tag: &str) -> Result<Image> {
        if self.machines {
            return build_os(version, tag).await;
        }
        push(&self.registry, &image::os(version, kernel)?, OS, tag).await
    }
}

/// The OS image that the machines were made from, as another version of it: built and pushed by
/// podman, since it takes running commands in it.
async fn build_os(version: &str, tag: &str) -> Result<Image> {
    let seed = env::var(SEED).with_context(|| {
        format!(
            "{SEED} must name the OS image of the machines; .github/scripts/e2e-bink.sh does that"
        )
    })?;
    let dir = tempfile::tempdir()?;
    let containerfile = format!(
        "FROM {seed}\nRUN sed -i 's/^VERSION_ID=.*/VERSION_ID={version}/' /usr/lib/os-release\n"
    );
    fs::write(dir.path().join("Containerfile"), containerfile)?;
    let tag = format!("localhost:5000/{OS}:{tag}");
    podman(
        dir.path(),
        &["build", "--tls-verify=false", "-t", &tag, "."],
    )
    .await?;
    podman(
        dir.path(),
        &["push", "--tls-verify=false", "--digestfile", "digest", &tag],
    )
    .await?;
    Ok(Image {
        name: format!("{WITHIN}/{OS}"),
        digest: fs::read_to_string(dir.path().join("digest"))?
            .trim()
            .to_owned(),
    })
}

async fn podman(dir: &Path, args: &[&str]) -> Result<()> {
    let mut command = Command::new("podman");
    command.current_dir(dir).args(args).kill_on_drop(true);
    let status = timeout(PODMAN, command.status())
        .await
        .with_context(|| format!("podman {} did not end in time", args.join(" ")))??;
    ensure!(status.success(), "podman {} failed", args.join(" "));
    Ok(())
}

/// Pushes operator and agent as this version.
async fn push_programs(registry: &Registry, version: &str) -> Result<(Image, Image)> {
    let binaries = Binaries::ensure().await?;
    let label = "org.opencontainers.image.version";
    let operator = Layer::new().program("/bootc-operator", &binaries.operator)?;
    let operator = image::Image::new(operator)
        .entrypoint(&["/bootc-operator"])
        .user(UNPRIVILEGED)
        .label(label, version);
    let agent = Layer::new().program("/bootc-nodeagent", &binaries.agent)?;
    let agent = image::Image::new(agent)
        .entrypoint(&["/bootc-nodeagent"])
        .label(label, version);
    Ok((
        push(registry, &operator, "e2e/bootc-operator", version).await?,
        push(registry, &agent, "e2e/bootc-nodeagent", version).await?,
    ))
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
