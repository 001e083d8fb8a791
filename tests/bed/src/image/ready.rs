//! The images that every cluster of the bed uses.

use anyhow::Result;

use super::{Image, Layer};
use crate::parts::{self, Part};

/// The kernel release that OS images of the bed carry. It is never booted: the
/// hosts share the machine's kernel.
const KERNEL: &str = "6.18.0-bed";
/// Nobody: what runs unprivileged.
const UNPRIVILEGED: &str = "65532:65532";

/// The image that holds a pod's namespaces.
pub fn pause() -> Result<Image> {
    let bin = parts::ensure(&[Part::Workload])?;
    let layer = Layer::new().program("/pause", &bin.join("workload/pause"))?;
    Ok(Image::new(layer).entrypoint(&["/pause"]).user(UNPRIVILEGED))
}

/// A web server on port 8080 that answers with its pod's name.
pub fn web() -> Result<Image> {
    let bin = parts::ensure(&[Part::Workload])?;
    let layer = Layer::new().program("/web", &bin.join("workload/web"))?;
    Ok(Image::new(layer).entrypoint(&["/web"]).user(UNPRIVILEGED))
}

/// A bootable OS image of that version: what differs from the hosts' base
/// tree. Another `kernel` is another kernel: no soft reboot leads to it.
pub fn os(version: &str, kernel: &str) -> Result<Image> {
    let release = format!(
        "NAME=\"Bed Linux\"\nID=bed\nVERSION=\"{version}\"\nVERSION_ID={version}\nPRETTY_NAME=\"Bed Linux {version}\"\nOSTREE_VERSION='{version}'\n"
    );
    let modules = format!("/usr/lib/modules/{KERNEL}");
    let layer = Layer::new()
        .file("/usr/lib/os-release", 0o644, release)?
        .link("/etc/os-release", "../usr/lib/os-release")?
        .file(
            &format!("{modules}/vmlinuz"),
            0o644,
            format!("kernel {kernel}\n"),
        )?;
    Ok(Image::new(layer)
        .label("containers.bootc", "1")
        .label("ostree.bootable", "true")
        .label("ostree.linux", KERNEL)
        .label("org.opencontainers.image.version", version))
}
