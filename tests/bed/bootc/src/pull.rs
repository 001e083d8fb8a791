//! Pulling an image into the store: what is needed, then the blobs one by one.

use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use oci_spec::distribution::Reference;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};

use crate::registry::{Access, Client};
use crate::store::{Store, choose_platform, digest_of};

/// Where an image comes from.
#[derive(Debug)]
pub(crate) enum Upstream {
    Registry(Box<Client>, Reference),
    Layout(PathBuf),
}

/// An image whose manifest is known and whose layers may be missing.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) digest: String,
    pub(crate) manifest: ImageManifest,
    raw: Vec<u8>,
}

impl Upstream {
    /// Contacts the registry that `image` names.
    pub(crate) fn registry(image: &str, access: &Access) -> Result<Self> {
        let reference = parse(image)?;
        Ok(Self::Registry(
            Box::new(Client::connect(&reference, access)?),
            reference,
        ))
    }

    /// Fetches the manifest for this machine. Of `tag@digest` only the digest counts.
    pub(crate) fn prepare(&self) -> Result<Prepared> {
        let bytes = match self {
            Self::Registry(client, reference) => {
                client.manifest(reference.digest().or(reference.tag()).unwrap_or("latest"))?
            }
            Self::Layout(dir) => {
                std::fs::read(dir.join("index.json")).context("reading index.json")?
            }
        };
        let raw = match serde_json::from_slice::<ImageIndex>(&bytes) {
            Ok(index) => self.instance(&index)?,
            Err(_) => bytes,
        };
        let manifest = ImageManifest::from_reader(raw.as_slice()).context("parsing manifest")?;
        Ok(Prepared {
            digest: digest_of(&raw),
            manifest,
            raw,
        })
    }

    fn instance(&self, index: &ImageIndex) -> Result<Vec<u8>> {
        // A layout's index names its one image without a platform.
        let chosen = match (self, index.manifests().as_slice()) {
            (Self::Layout(_), [only]) => only,
            _ => choose_platform(index)?,
        };
        let digest = chosen.digest().to_string();
        let raw = match self {
            Self::Registry(client, _) => client.manifest(&digest)?,
            Self::Layout(_) => read_all(self.blob(&digest)?)?,
        };
        if digest_of(&raw) != digest {
            bail!("manifest does not match provided manifest digest {digest}");
        }
        Ok(raw)
    }

    fn blob(&self, digest: &str) -> Result<Box<dyn Read>> {
        Ok(match self {
            Self::Registry(client, _) => Box::new(client.blob(digest)?),
            Self::Layout(dir) => {
                let path = dir
                    .join("blobs/sha256")
                    .join(digest.trim_start_matches("sha256:"));
                Box::new(
                    std::fs::File::open(&path)
                        .with_context(|| format!("opening {}", path.display()))?,
                )
            }
        })
    }

    /// Fetches all blobs that are missing; the manifest last, so that it is
    /// there only for a whole image. `seen` is told each layer's bytes so far.
    pub(crate) fn import(
        &self,
        store: &Store,
        image: &Prepared,
        seen: &mut dyn FnMut(&Descriptor, u64) -> Result<()>,
    ) -> Result<()> {
        for layer in missing(store, image) {
            let digest = layer.digest().to_string();
            let mut blob = self.blob(&digest)?;
            store
                .put(&digest, &mut blob, &mut |bytes| seen(layer, bytes))
                .with_context(|| format!("Parsing layer blob {digest}"))?;
        }
        self.import_config(store, image)?;
        store.put(&image.digest, &mut image.raw.as_slice(), &mut |_| Ok(()))
    }

    /// Fetches the image's config, which says version and age.
    pub(crate) fn import_config(&self, store: &Store, image: &Prepared) -> Result<()> {
        let config = image.manifest.config().digest().to_string();
        if store.has(&config) {
            return Ok(());
        }
        store.put(&config, &mut self.blob(&config)?, &mut |_| Ok(()))
    }
}

/// The layers that are not in the store yet, in the manifest's order.
pub(crate) fn missing<'a>(store: &Store, image: &'a Prepared) -> Vec<&'a Descriptor> {
    let layers = image.manifest.layers().iter();
    layers.filter(|l| !store.has(l.digest().as_ref())).collect()
}

/// Reads a pullspec such as `host:5000/os:tag@sha256:…`.
pub(crate) fn parse(image: &str) -> Result<Reference> {
    Reference::from_str(image).with_context(|| format!("invalid reference format: {image}"))
}

fn read_all(mut reader: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    Ok(bytes)
}
