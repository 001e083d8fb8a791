//! Image references, and when two images are the same.
//!
//! An own parser: the usual crates complete short names (`nginx` becomes `docker.io/library/nginx`),
//! which is just what a pool must refuse, and bring a regex engine into the agent.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// Longest reference that the schema admits, in bytes.
pub const MAX_REF_LENGTH: usize = 512;

/// A fully qualified reference: `host/repo:tag`, `host/repo@sha256:…`, or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageRef {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// Why a reference is refused; the text says how it should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ImageRefError {
    /// Longer than [`MAX_REF_LENGTH`].
    #[error("the image reference is longer than {MAX_REF_LENGTH} characters")]
    TooLong,
    /// No registry host in front: a short name, or nothing at all.
    #[error(
        "the image reference has no registry host: write host/repository:tag or host/repository@sha256:…"
    )]
    NoHost,
    /// The part between host and tag is not a repository path.
    #[error(
        "the repository must be lower-case letters, digits and single separators (. _ -), parted by /"
    )]
    BadRepository,
    /// A tag with other characters than letters, digits, `_`, `.`, `-`, or longer than 128.
    #[error(
        "the tag must be 1 to 128 letters, digits, '_', '.' or '-', and not begin with '.' or '-'"
    )]
    BadTag,
    /// Something after `@` that is not `sha256:` and 64 lower-case hex digits.
    #[error("the digest must be sha256: and 64 lower-case hex digits")]
    BadDigest,
    /// Neither tag nor digest.
    #[error("the image reference has neither tag nor digest: add :tag or @sha256:…")]
    NoVersion,
}

impl ImageRef {
    /// Registry host, with the port where there is one.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Path of the repository within the registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, where one was written.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, where one was written: it wins over the tag.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// This image by digest, without the tag: what a node is told (`host/repo@sha256:…`).
    #[must_use]
    pub fn at(&self, digest: &str) -> String {
        format!("{}/{}@{digest}", self.host, self.repository)
    }

    /// [`Self::at`] its own digest; `None` if only a tag was written.
    #[must_use]
    pub fn pinned(&self) -> Option<String> {
        self.digest().map(|digest| self.at(digest))
    }
}

impl FromStr for ImageRef {
    type Err = ImageRefError;

    fn from_str(text: &str) -> Result<Self, ImageRefError> {
        if text.len() > MAX_REF_LENGTH {
            return Err(ImageRefError::TooLong);
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let (host, path) = name.split_once('/').ok_or(ImageRefError::NoHost)?;
        let (repository, tag) = match path.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        check(is_host(host), ImageRefError::NoHost)?;
        check(
            repository.split('/').all(is_component),
            ImageRefError::BadRepository,
        )?;
        check(tag.is_none_or(is_tag), ImageRefError::BadTag)?;
        check(digest.is_none_or(is_digest), ImageRefError::BadDigest)?;
        check(tag.is_some() || digest.is_some(), ImageRefError::NoVersion)?;
        Ok(Self {
            host: host.into(),
            repository: repository.into(),
            tag: tag.map(Into::into),
            digest: digest.map(Into::into),
        })
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(out, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(out, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// The digest that a pull specification names: what follows `@`, if it is a digest.
#[must_use]
pub fn digest_of(pullspec: &str) -> Option<&str> {
    let (_, digest) = pullspec.rsplit_once('@')?;
    is_digest(digest).then_some(digest)
}

/// `sha256:` and 64 lower-case hex digits?
#[must_use]
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn check(holds: bool, otherwise: ImageRefError) -> Result<(), ImageRefError> {
    if holds { Ok(()) } else { Err(otherwise) }
}

/// A registry and not the first part of a short name: it has a dot or a port, or is `localhost`.
fn is_host(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (text, None),
    };
    let port_ok = port.is_none_or(|port| {
        (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit())
    });
    port_ok && (is_ipv6(name) || is_host_name(name, port.is_some()))
}

fn is_ipv6(text: &str) -> bool {
    text.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|inner| {
            !inner.is_empty() && inner.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
        })
}

fn is_host_name(text: &str, has_port: bool) -> bool {
    let label = |label: &str| {
        let edge_ok = !label.starts_with('-') && !label.ends_with('-');
        let inner_ok = label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-');
        !label.is_empty() && edge_ok && inner_ok
    };
    text.split('.').all(label) && (has_port || text.contains('.') || text == "localhost")
}

/// A part of a repository path: runs of `[a-z0-9]` joined by `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let edges = text.bytes().next().is_some_and(word) && text.bytes().last().is_some_and(word);
    let joint = |joint: &str| matches!(joint, "" | "." | "_" | "__") || is_dashes(joint);
    edges
        && text
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(joint)
}

fn is_dashes(text: &str) -> bool {
    text.bytes().all(|b| b == b'-')
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_reference_and_its_parts() {
        let text = format!("quay.io/org/os:v1@{DIGEST}");
        let parsed: ImageRef = text.parse().unwrap();
        assert_eq!(parsed.host(), "quay.io");
        assert_eq!(parsed.repository(), "org/os");
        assert_eq!(parsed.tag(), Some("v1"));
        assert_eq!(parsed.digest(), Some(DIGEST));
        assert_eq!(parsed.to_string(), text);
        // The digest wins, the tag is dropped.
        assert_eq!(parsed.pinned(), Some(format!("quay.io/org/os@{DIGEST}")));
    }

    #[test]
    fn a_tag_alone_is_not_pinned() {
        let parsed: ImageRef = "localhost/os:latest".parse().unwrap();
        assert_eq!(parsed.pinned(), None);
        assert_eq!(parsed.at(DIGEST), format!("localhost/os@{DIGEST}"));
    }

    #[test]
    fn a_pullspec_names_its_digest() {
        assert_eq!(digest_of(&format!("a.b/c:t@{DIGEST}")), Some(DIGEST));
        assert_eq!(digest_of("a.b/c:t"), None);
        assert_eq!(digest_of("a.b/c@sha256:12"), None);
    }

    #[test]
    fn references_that_are_fine() {
        for good in [
            "quay.io/os:1",
            "registry.cluster.local:5000/os:1",
            "registry:5000/a/b/c:V_1.x-y",
            "10.88.0.2:5000/os:1",
            "[::1]:5000/os:1",
            "[::1]/os:1",
            "localhost/os:1",
            "quay.io/a__b/c---d/e.f_g:1",
        ] {
            assert_eq!(
                good.parse::<ImageRef>().map(|r| r.to_string()),
                Ok(good.into())
            );
        }
    }

    #[test]
    fn references_that_are_refused() {
        use ImageRefError::{BadDigest, BadRepository, BadTag, NoHost, NoVersion, TooLong};
        let upper = DIGEST.to_uppercase().replace("SHA256", "sha256");
        for (bad, why) in [
            ("", NoHost),
            ("os", NoHost),
            ("os:1", NoHost),
            ("org/os:1", NoHost),
            ("/os:1", NoHost),
            ("-a.b/os:1", NoHost),
            ("a..b/os:1", NoHost),
            ("a.b:/os:1", NoHost),
            ("a.b:123456/os:1", NoHost),
            ("https://quay.io/os:1", NoHost),
            ("quay.io/:1", BadRepository),
            ("quay.io/Os:1", BadRepository),
            ("quay.io/a//b:1", BadRepository),
            ("quay.io/a___b:1", BadRepository),
            ("quay.io/a.-b:1", BadRepository),
            ("quay.io/a b:1", BadRepository),
            ("quay.io/os:", BadTag),
            ("quay.io/os:-1", BadTag),
            ("quay.io/os:a:b", BadTag),
            ("quay.io/os@sha256:12", BadDigest),
            ("quay.io/os@sha512:12", BadDigest),
            (&format!("quay.io/os@{upper}"), BadDigest),
            (&format!("quay.io/os@{DIGEST}@{DIGEST}"), BadDigest),
            ("quay.io/os", NoVersion),
            (
                &format!("quay.io/{}:1", "a".repeat(MAX_REF_LENGTH)),
                TooLong,
            ),
            (&format!("quay.io/os:{}", "a".repeat(129)), BadTag),
        ] {
            assert_eq!(bad.parse::<ImageRef>(), Err(why), "{bad}");
        }
    }
}
