//! Images by digest, and the one way in which they are compared.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// An image that a node shall run: `host/repository@sha256:…`, never a tag.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Image(Arc<str>);

impl Image {
    /// The image with this pull specification; `None` if that has no digest or no repository.
    #[must_use]
    pub fn new(pullspec: &str) -> Option<Self> {
        let (repository, digest) = pullspec.rsplit_once('@')?;
        (!repository.is_empty() && digest.contains(':')).then(|| Self(pullspec.into()))
    }

    /// The image of `repository` with this digest.
    #[must_use]
    pub fn of(repository: &str, digest: &str) -> Option<Self> {
        Self::new(&format!("{repository}@{digest}"))
    }

    /// `sha256:…`
    #[must_use]
    pub fn digest(&self) -> &str {
        digest_of(&self.0).unwrap_or_default()
    }

    /// `host/repository@sha256:…`
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `sha256:` and twelve digits, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        short(self.digest())
    }
}

/// A digest cut down to `sha256:` and twelve digits, for people.
#[must_use]
pub fn short(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}

fn digest_of(pullspec: &str) -> Option<&str> {
    pullspec.rsplit_once('@').map(|(_, digest)| digest)
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Image {
    type Error = String;
    fn try_from(pullspec: String) -> Result<Self, String> {
        Self::new(&pullspec).ok_or_else(|| format!("{pullspec:?} is not host/repository@digest"))
    }
}

impl From<Image> for String {
    fn from(image: Image) -> Self {
        image.as_str().to_owned()
    }
}

/// An image that a host says it has.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Running {
    /// The pull specification that it was got by.
    pub image: Option<String>,
    /// The manifest's digest; of a multi-arch image the platform's own.
    pub digest: String,
}

impl Running {
    /// Is it that image? Yes if either its own digest or the one in its pull specification is the
    /// wanted one: a multi-arch image is wanted by its index and pulled by its platform.
    #[must_use]
    pub fn is(&self, image: &Image) -> bool {
        let wanted = image.digest();
        self.digest == wanted || self.image.as_deref().and_then(digest_of) == Some(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_needs_a_repository_and_a_digest() {
        assert_eq!(
            Image::new("r/os@sha256:1").map(|i| i.digest().to_owned()),
            Some("sha256:1".to_owned())
        );
        for bad in ["r/os:1", "@sha256:1", "r/os@", "", "r/os@latest"] {
            assert_eq!(Image::new(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_host_runs_an_image_by_either_digest() {
        let wanted = Image::new("r/os@sha256:index").unwrap();
        let running = |image: Option<&str>, digest: &str| Running {
            image: image.map(str::to_owned),
            digest: digest.to_owned(),
        };
        assert!(running(None, "sha256:index").is(&wanted));
        assert!(running(Some("r/os@sha256:index"), "sha256:platform").is(&wanted));
        assert!(!running(Some("r/os:1"), "sha256:platform").is(&wanted));
    }
}
