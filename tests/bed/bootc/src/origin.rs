//! A deployment's origin file: which image it follows, and its marks.
//!
//! The file is ostree's, beside the tree (`<checksum>.<serial>.origin`), and
//! is the truth: edit it on a host as rpm-ostree would and the stand-in sees a
//! layered host, or one that follows no container image.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ini::Ini;
use serde::{Deserialize, Serialize};

use crate::sysroot::replace;

const UNVERIFIED_REGISTRY: &str = "ostree-unverified-registry:";
const UNVERIFIED: &str = "ostree-unverified-image:";
const SIGNED: &str = "ostree-image-signed:";

/// Groups that rpm-ostree leaves when packages or overrides are layered on the image.
const LAYERED: [&str; 4] = ["rpmostree", "packages", "overrides", "modules"];

/// An image reference as `bootc switch` was given it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageRef {
    /// The pullspec, exactly as given.
    pub image: String,
    /// Whether the host's policy must verify it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
    /// `registry` and the other transports of containers/image.
    pub transport: String,
}

/// What must be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Signature {
    /// The host's containers policy must verify images (`--enforce-container-sigpolicy`).
    ContainerPolicy,
}

/// What an origin file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The image followed; none on a host that follows an ostree remote.
    pub(crate) image: Option<ImageRef>,
    pub(crate) pinned: bool,
    /// rpm-ostree has layered something on the image.
    pub(crate) incompatible: bool,
}

impl ImageRef {
    /// An image in a registry, without a signature to verify.
    #[must_use]
    pub fn registry(image: &str) -> Self {
        Self {
            image: image.to_owned(),
            transport: "registry".to_owned(),
            signature: None,
        }
    }

    /// The key of the image store: what is asked for, however it is verified.
    pub(crate) fn pullspec(&self) -> String {
        format!("{}:{}", self.transport, self.image)
    }

    /// ostree's own spelling.
    fn to_ostree(&self) -> String {
        let transport = if self.transport == "registry" {
            "docker"
        } else {
            &self.transport
        };
        let separator = if self.transport == "registry" {
            "://"
        } else {
            ":"
        };
        match self.signature {
            Some(Signature::ContainerPolicy) => {
                format!("{SIGNED}{transport}{separator}{}", self.image)
            }
            None if self.transport == "registry" => format!("{UNVERIFIED_REGISTRY}{}", self.image),
            None => format!("{UNVERIFIED}{}:{}", self.transport, self.image),
        }
    }

    fn from_ostree(text: &str) -> Result<Self> {
        if let Some(image) = text.strip_prefix(UNVERIFIED_REGISTRY) {
            return Ok(Self::registry(image));
        }
        let (rest, signature) = match (text.strip_prefix(SIGNED), text.strip_prefix(UNVERIFIED)) {
            (Some(rest), _) => (rest, Some(Signature::ContainerPolicy)),
            (_, Some(rest)) => (rest, None),
            _ => bail!("Invalid ostree image reference: {text}"),
        };
        let (transport, image) = match rest.strip_prefix("docker://") {
            Some(image) => ("registry", image),
            None => rest
                .split_once(':')
                .with_context(|| format!("Missing ':' in {text}"))?,
        };
        Ok(Self {
            image: image.to_owned(),
            transport: transport.to_owned(),
            signature,
        })
    }
}

impl Origin {
    /// The file beside a tree.
    pub(crate) fn path(tree: &Path) -> PathBuf {
        PathBuf::from(format!("{}.origin", tree.display()))
    }

    pub(crate) fn load(tree: &Path) -> Result<Self> {
        let path = Self::path(tree);
        let file =
            Ini::load_from_file(&path).with_context(|| format!("Parsing {}", path.display()))?;
        let image = file.get_from(Some("origin"), "container-image-reference");
        Ok(Self {
            image: image.map(ImageRef::from_ostree).transpose()?,
            pinned: file.get_from(Some("libostree-transient"), "pinned") == Some("true"),
            incompatible: LAYERED
                .iter()
                .any(|group| file.section(Some(*group)).is_some()),
        })
    }

    /// Writes the origin of a new deployment.
    pub(crate) fn create(tree: &Path, image: &ImageRef) -> Result<()> {
        let mut file = Ini::new();
        file.with_section(Some("origin"))
            .set("container-image-reference", image.to_ostree());
        store(tree, &file)
    }

    /// Sets or clears the pin and leaves the rest as it is.
    pub(crate) fn pin(tree: &Path, pinned: bool) -> Result<()> {
        let path = Self::path(tree);
        let mut file =
            Ini::load_from_file(&path).with_context(|| format!("Parsing {}", path.display()))?;
        if pinned {
            file.with_section(Some("libostree-transient"))
                .set("pinned", "true");
        } else {
            file.delete(Some("libostree-transient"));
        }
        store(tree, &file)
    }
}

fn store(tree: &Path, file: &Ini) -> Result<()> {
    let mut text = Vec::new();
    file.write_to(&mut text)?;
    replace(&Origin::path(tree), &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_keep_transport_and_signature() {
        let signed = ImageRef {
            signature: Some(Signature::ContainerPolicy),
            ..ImageRef::registry("r:5000/os:a@sha256:1")
        };
        let archive = ImageRef {
            transport: "oci-archive".to_owned(),
            ..ImageRef::registry("/var/os.tar")
        };
        for (reference, text) in [
            (
                ImageRef::registry("r:5000/os:a"),
                "ostree-unverified-registry:r:5000/os:a",
            ),
            (signed, "ostree-image-signed:docker://r:5000/os:a@sha256:1"),
            (archive, "ostree-unverified-image:oci-archive:/var/os.tar"),
        ] {
            assert_eq!(reference.to_ostree(), text);
            assert_eq!(ImageRef::from_ostree(text).unwrap(), reference);
        }
        assert!(ImageRef::from_ostree("nonsense").is_err());
    }

    #[test]
    fn origin_tells_pins_layers_and_plain_ostree() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("abc.0");
        Origin::create(&tree, &ImageRef::registry("r/os:a")).unwrap();
        Origin::pin(&tree, true).unwrap();
        let origin = Origin::load(&tree).unwrap();
        assert_eq!(
            origin,
            Origin {
                image: Some(ImageRef::registry("r/os:a")),
                pinned: true,
                incompatible: false
            }
        );
        Origin::pin(&tree, false).unwrap();
        assert!(!Origin::load(&tree).unwrap().pinned);

        std::fs::write(
            Origin::path(&tree),
            "[origin]\nrefspec=fedora:stable\n[packages]\nrequested=vim;\n",
        )
        .unwrap();
        let origin = Origin::load(&tree).unwrap();
        assert_eq!(
            origin,
            Origin {
                image: None,
                pinned: false,
                incompatible: true
            }
        );
    }
}
