//! A deployment's origin file: which image it follows, and its marks.
//!
//! The file is ostree's, beside the tree (`<checksum>.<serial>.origin`), and
//! is the truth: edit it on a host as rpm-ostree would and the stand-in sees a
//! layered host, or one that follows no container image.

use serde::{Deserialize, Serialize};

/// An image reference as `bootc switch` was given it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageRef {
    /// The pullspec, exactly as given.
    pub image: String,
    /// `registry` and the other transports of containers/image.
    pub transport: String,
    /// Whether the host's policy must verify it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

/// What must be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Signature {
    /// The host's containers policy must verify images (`--enforce-container-sigpolicy`).
    ContainerPolicy,
}

impl ImageRef {
    /// An image in a registry, without a signature to verify.
    pub fn registry(image: &str) -> Self {
        Self {
            image: image.to_owned(),
            transport: "registry".to_owned(),
            signature: None,
        }
    }
}
