//! A registry of a test's own: with or without a login, stopped, frozen and started again.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
};

use anyhow::{Context as _, Result};
use bed::{
    image::{Image, Layer, Registry},
    parts::{self, Part},
    process::{Daemon, Program},
    run_dir::RunDir,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::wait;

/// Who may read where a login is needed, and the password.
pub const USER: (&str, &str) = ("fleet", "correct horse");
/// bcrypt of the password above.
const HTPASSWD: &str = "fleet:$2b$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2\n";

/// A registry of a test's own. Dropped, it is killed.
#[derive(Debug)]
pub struct Server {
    /// `host:port`
    pub host: String,
    program: Program,
    daemon: Option<Daemon>,
    _dir: RunDir,
}

impl Server {
    /// Starts one; `auth`: only [`USER`] may read and write.
    pub async fn start(auth: bool) -> Result<Self> {
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

    /// Starts it again on the same address.
    pub async fn run(&mut self) -> Result<()> {
        self.daemon = Some(self.program.start()?);
        wait::until("the registry listens", || {
            tokio::net::TcpStream::connect(&self.host)
        })
        .await
        .map(drop)
    }

    /// Stops it: nothing listens there any more.
    pub fn stop(&mut self) {
        self.daemon = None;
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.daemon
            .as_ref()
            .context("it does not run")?
            .signal(signal)
    }

    /// A reference to a tag of its image.
    #[must_use]
    pub fn reference(&self, tag: &str) -> String {
        format!("{}/fleet/os:{tag}", self.host)
    }

    /// Pushes an image that holds `content` under a tag; answers its digest.
    pub async fn push(&self, content: &str, tag: &str) -> Result<String> {
        let image = Image::new(Layer::new().file("/etc/os-release", 0o644, content)?);
        self.pusher().push(&image, "fleet/os", tag).await
    }

    fn pusher(&self) -> Registry {
        Registry::plain(&self.host).login(USER.0, USER.1)
    }

    /// A Docker config with [`USER`]'s name and this password.
    #[must_use]
    pub fn logins(&self, password: &str) -> Value {
        json!({ "auths": { &self.host: { "username": USER.0, "password": password } } })
    }
}
