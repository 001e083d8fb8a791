//! Container images made from files, and pushed to a registry.
//!
//! The same files give the same digest: no time, owner or order of the machine
//! gets into a layer.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use bed::image::{Image, Layer, Registry};
//!
//! let layer = Layer::new().program("/bootc-operator", "target/release/bootc-operator".as_ref())?;
//! let image = Image::new(layer).entrypoint(&["/bootc-operator"]).user("65532:65532");
//! let digest = Registry::plain("127.0.0.1:5000").push(&image, "bootc-operator", "latest").await?;
//! # Ok(()) }
//! ```

mod layer;
mod ready;
mod registry;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

pub use layer::Layer;
pub use ready::{os, pause, web};
pub use registry::Registry;

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image: its layers and how to run it.
#[derive(Debug, Clone)]
pub struct Image {
    layers: Vec<Vec<u8>>,
    settings: Map<String, Value>,
    labels: Map<String, Value>,
}

impl Image {
    /// An image of one layer, `FROM scratch`.
    #[must_use]
    pub fn new(layer: Layer) -> Self {
        Self {
            layers: vec![layer.into_tar()],
            settings: Map::new(),
            labels: Map::new(),
        }
    }

    /// Adds a layer on top.
    #[must_use]
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer.into_tar());
        self
    }

    /// The program that a container runs, with its first arguments.
    #[must_use]
    pub fn entrypoint(mut self, argv: &[&str]) -> Self {
        self.settings.insert("Entrypoint".to_owned(), json!(argv));
        self
    }

    /// Who a container runs as: `uid:gid`.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.settings.insert("User".to_owned(), json!(user));
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), json!(value));
        self
    }

    /// The digest of its manifest, which a registry knows it by.
    #[must_use]
    pub fn digest(&self) -> String {
        digest(&self.manifest())
    }

    fn config(&self) -> Vec<u8> {
        let mut settings = self.settings.clone();
        settings.insert("Labels".to_owned(), self.labels.clone().into());
        let diff_ids: Vec<String> = self.layers.iter().map(|layer| digest(layer)).collect();
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": vec![json!({"created_by": "bed"}); self.layers.len()],
        });
        config.to_string().into_bytes()
    }

    fn manifest(&self) -> Vec<u8> {
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|layer| descriptor(LAYER_TYPE, layer))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor(CONFIG_TYPE, &self.config()),
            "layers": layers,
        });
        manifest.to_string().into_bytes()
    }
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
}

/// A digest as registries write it.
fn digest(blob: &[u8]) -> String {
    format!(
        "sha256:{}",
        base16ct::lower::encode_string(&Sha256::digest(blob))
    )
}

/// This machine's architecture by the name that images have for it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_give_the_same_digest() {
        let image = || {
            Image::new(Layer::new().file("/etc/a", 0o644, "1").unwrap())
                .label("k", "v")
                .label("a", "b")
        };
        assert_eq!(image().digest(), image().digest());
        let other = Image::new(Layer::new().file("/etc/a", 0o644, "2").unwrap());
        assert_ne!(image().digest(), other.digest());
    }

    #[test]
    fn the_manifest_names_the_blobs_that_are_pushed() {
        let image = Image::new(Layer::new().file("/a", 0o644, "1").unwrap()).entrypoint(&["/a"]);
        let manifest: Value = serde_json::from_slice(&image.manifest()).unwrap();
        assert_eq!(manifest["layers"][0]["digest"], digest(&image.layers[0]));
        assert_eq!(manifest["layers"][0]["size"], image.layers[0].len());
        let config: Value = serde_json::from_slice(&image.config()).unwrap();
        assert_eq!(manifest["config"]["digest"], digest(&image.config()));
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            manifest["layers"][0]["digest"]
        );
        assert_eq!(config["config"]["Entrypoint"], json!(["/a"]));
    }
}
