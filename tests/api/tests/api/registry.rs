//! Tags are resolved at a real registry: with and without a login, up and down.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use api_tests::{Suite, wait};
use bed::{
    image::{Image, Layer, Registry},
    parts::{self, Part},
    process::{Daemon, Program},
    run_dir::RunDir,
};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use oci_distribution::{
    Client,
    client::{ClientConfig, ClientProtocol},
    secrets::RegistryAuth,
};
use operator::{
    registry::{ResolveError, Resolver},
    secrets::DockerConfig,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};

const USER: (&str, &str) = ("fleet", "correct horse");
/// bcrypt of the password above.
const HTPASSWD: &str = "fleet:$2b$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2\n";

pub(crate) fn trials(suite: &Arc<Suite>) -> Vec<Trial> {
    vec![
        suite.trial("registry::a_tag_is_followed_as_it_moves", |_| moved_tag()),
        suite.trial("registry::an_index_has_its_own_digest", |_| index()),
        suite.trial("registry::only_the_right_login_reads", |_| login()),
        suite.trial("registry::down_and_up_again", |_| down()),
        suite.trial("registry::frozen", |_| frozen()),
    ]
}

/// A registry of a test's own. Dropped, it is killed.
struct Server {
    host: String,
    program: Program,
    daemon: Option<Daemon>,
    _dir: RunDir,
}

impl Server {
    async fn start(auth: bool) -> Result<Self> {
        let bin = tokio::task::spawn_blocking(|| parts::ensure(&[Part::Registry])).await??;
        let dir = RunDir::fresh("test-registry")?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let host = format!("127.0.0.1:{port}");
        let mut settings = json!({
            "version": "0.1",
            "log": { "level": "warn", "accesslog": { "disabled": true } },
            "storage": { "filesystem": { "rootdirectory": dir.path().join("images") } },
            "http": { "addr": host },
        });
        if auth {
            let path = dir.path().join("htpasswd");
            fs::write(&path, HTPASSWD)?;
            settings["auth"] = json!({ "htpasswd": { "realm": "test", "path": path } });
        }
        let file = dir.path().join("settings.json");
        fs::write(&file, settings.to_string())?;
        let program = Program {
            name: "registry".to_owned(),
            argv: vec![bin.join("registry").into(), "serve".into(), file.into()],
            env: vec![("OTEL_TRACES_EXPORTER".to_owned(), "none".into())],
            dir: dir.path().to_path_buf(),
        };
        let mut server = Self {
            host,
            program,
            daemon: None,
            _dir: dir,
        };
        server.run().await?;
        Ok(server)
    }

    async fn run(&mut self) -> Result<()> {
        self.daemon = Some(self.program.start()?);
        wait::until("the registry listens", || {
            tokio::net::TcpStream::connect(&self.host)
        })
        .await
        .map(drop)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.daemon
            .as_ref()
            .context("it does not run")?
            .signal(signal)
    }

    fn reference(&self, tag: &str) -> String {
        format!("{}/fleet/os:{tag}", self.host)
    }

    async fn push(&self, content: &str, tag: &str) -> Result<String> {
        let image = Image::new(Layer::new().file("/etc/os-release", 0o644, content)?);
        self.pusher().push(&image, "fleet/os", tag).await
    }

    fn pusher(&self) -> Registry {
        Registry::plain(&self.host).login(USER.0, USER.1)
    }

    fn logins(&self, password: &str) -> Result<DockerConfig> {
        let text = json!({ "auths": { &self.host: { "username": USER.0, "password": password } } });
        DockerConfig::parse(text.to_string().as_bytes()).map_err(anyhow::Error::msg)
    }
}

async fn moved_tag() -> Result<()> {
    let server = Server::start(false).await?;
    let resolver = Resolver::new(true);
    let first = server.push("VERSION=1", "stable").await?;
    ensure!(resolver.resolve(&server.reference("stable"), None).await? == first);
    let second = server.push("VERSION=2", "stable").await?;
    ensure!(first != second);
    ensure!(resolver.resolve(&server.reference("stable"), None).await? == second);
    let error = resolver.resolve(&server.reference("nightly"), None).await;
    ensure!(
        matches!(error, Err(ResolveError::NotFound { .. })),
        "{error:?}"
    );
    Ok(())
}

async fn index() -> Result<()> {
    let server = Server::start(false).await?;
    let platform = server.push("VERSION=1", "amd64").await?;
    let client = Client::new(ClientConfig {
        protocol: ClientProtocol::Http,
        ..ClientConfig::default()
    });
    let (reference, anonymous) = (server.reference("amd64").parse()?, RegistryAuth::Anonymous);
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let (manifest, _) = client
        .pull_manifest_raw(&reference, &anonymous, &[media_type])
        .await?;
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": platform, "size": manifest.len(),
            "platform": { "architecture": "amd64", "os": "linux" },
        }],
    });
    let media_type = http::HeaderValue::from_static("application/vnd.oci.image.index.v1+json");
    let target = server.reference("multi").parse()?;
    let wanted = Sha256::digest(index.to_string())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>();
    client
        .push_manifest_raw(&target, index.to_string(), media_type)
        .await?;
    let found = Resolver::new(true)
        .resolve(&server.reference("multi"), None)
        .await?;
    ensure!(found != platform, "the digest of one platform");
    ensure!(found == format!("sha256:{}", wanted.concat()), "{found}");
    Ok(())
}

async fn login() -> Result<()> {
    let server = Server::start(true).await?;
    let digest = server.push("VERSION=1", "stable").await?;
    let (resolver, reference) = (Resolver::new(true), server.reference("stable"));
    ensure!(
        resolver
            .resolve(&reference, Some(&server.logins(USER.1)?))
            .await?
            == digest
    );
    // What one pool's login reads, another pool must not.
    for logins in [None, Some(server.logins("wrong battery")?)] {
        let error = resolver.resolve(&reference, logins.as_ref()).await;
        let Err(error @ ResolveError::Denied { .. }) = error else {
            anyhow::bail!("not denied: {error:?}")
        };
        ensure!(!error.to_string().contains("battery"), "{error}");
    }
    Ok(())
}

async fn down() -> Result<()> {
    let mut server = Server::start(false).await?;
    let digest = server.push("VERSION=1", "stable").await?;
    let (resolver, reference) = (Resolver::new(true), server.reference("stable"));
    server.daemon = None;
    let error = resolver.resolve(&reference, None).await;
    ensure!(
        matches!(error, Err(ResolveError::Unreachable { .. })),
        "{error:?}"
    );
    server.run().await?;
    ensure!(resolver.resolve(&reference, None).await? == digest);
    Ok(())
}

async fn frozen() -> Result<()> {
    let server = Server::start(false).await?;
    let digest = server.push("VERSION=1", "stable").await?;
    let resolver = Resolver::new(true).with_deadline(Duration::from_secs(2));
    let reference = server.reference("stable");
    server.signal(Signal::SIGSTOP)?;
    let error = resolver.resolve(&reference, None).await;
    ensure!(
        matches!(error, Err(ResolveError::TimedOut { .. })),
        "{error:?}"
    );
    server.signal(Signal::SIGCONT)?;
    ensure!(resolver.resolve(&reference, None).await? == digest);
    Ok(())
}
