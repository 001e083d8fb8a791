//! Pushing images to a registry.

use std::time::Duration;

use anyhow::{Context as _, Result};
use oci_distribution::client::{ClientConfig, ClientProtocol};
use oci_distribution::secrets::RegistryAuth;
use oci_distribution::{Client, Reference, RegistryOperation};

use super::{Image, MANIFEST_TYPE, digest};

/// How long a registry may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// A registry to push to.
pub struct Registry {
    host: String,
    client: Client,
    auth: RegistryAuth,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// A registry that speaks plain HTTP, for everybody.
    #[must_use]
    pub fn plain(host: &str) -> Self {
        Self::new(host, ClientProtocol::Http)
    }

    /// A registry that speaks HTTPS, by the machine's certificate authorities.
    #[must_use]
    pub fn secure(host: &str) -> Self {
        Self::new(host, ClientProtocol::Https)
    }

    /// The same registry with a user's name and password.
    #[must_use]
    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.auth = RegistryAuth::Basic(user.to_owned(), password.to_owned());
        self
    }

    fn new(host: &str, protocol: ClientProtocol) -> Self {
        // Fails when the process has chosen a provider already, which is as good.
        let _chosen_before = rustls::crypto::ring::default_provider().install_default();
        let config = ClientConfig {
            protocol,
            connect_timeout: Some(PATIENCE),
            read_timeout: Some(PATIENCE),
            ..ClientConfig::default()
        };
        Self {
            host: host.to_owned(),
            client: Client::new(config),
            auth: RegistryAuth::Anonymous,
        }
    }

    /// Pushes an image under a tag; answers the digest of its manifest.
    pub async fn push(&self, image: &Image, repository: &str, tag: &str) -> Result<String> {
        let target = self.reference(repository, &format!(":{tag}"))?;
        let pushing = || format!("cannot push {target}");
        self.client
            .auth(&target, &self.auth, RegistryOperation::Push)
            .await
            .with_context(pushing)?;
        let config = image.config();
        for blob in image.layers.iter().chain([&config]) {
            let name = digest(blob);
            if !self
                .client
                .blob_exists(&target, &name)
                .await
                .unwrap_or(false)
            {
                self.client
                    .push_blob(&target, blob.clone(), &name)
                    .await
                    .with_context(pushing)?;
            }
        }
        let media_type = MANIFEST_TYPE.parse()?;
        self.client
            .push_manifest_raw(&target, image.manifest(), media_type)
            .await
            .with_context(pushing)?;
        Ok(image.digest())
    }

    /// The digest that a tag stands for.
    pub async fn resolve(&self, repository: &str, tag: &str) -> Result<String> {
        let source = self.reference(repository, &format!(":{tag}"))?;
        let found = self.client.fetch_manifest_digest(&source, &self.auth).await;
        found.with_context(|| format!("cannot resolve {source}"))
    }

    /// Lets a tag stand for an image that the repository has already.
    pub async fn tag(&self, repository: &str, digest: &str, tag: &str) -> Result<()> {
        let (source, target) = (
            self.reference(repository, &format!("@{digest}"))?,
            self.reference(repository, &format!(":{tag}"))?,
        );
        let (manifest, _) = self
            .client
            .pull_manifest_raw(&source, &self.auth, &[MANIFEST_TYPE])
            .await?;
        self.client
            .auth(&target, &self.auth, RegistryOperation::Push)
            .await?;
        self.client
            .push_manifest_raw(&target, manifest, MANIFEST_TYPE.parse()?)
            .await?;
        Ok(())
    }

    fn reference(&self, repository: &str, rest: &str) -> Result<Reference> {
        let text = format!("{}/{repository}{rest}", self.host);
        text.parse()
            .with_context(|| format!("`{text}` is no image reference"))
    }
}
