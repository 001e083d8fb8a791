//! The bed's registry on a free port of the loopback, and pushing to it.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// User and password of a protected registry, and the latter's bcrypt hash.
const LOGIN: &str = "bed:secret";
const HTPASSWD: &str = "bed:$2y$04$4Nt2tHoONGSeogKRbsRyk./vFB3jCN7ChTc3Pa05YDQCH.yWvrTbe\n";

pub(crate) struct Registry {
    child: Child,
    dir: tempfile::TempDir,
    pub(crate) address: String,
    kind: Kind,
}

/// What a registry wants of its clients.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    /// A password, over plain http.
    Password,
    /// TLS, with a certificate of its own making.
    Tls,
}

impl Registry {
    pub(crate) fn start(kind: Kind) -> Self {
        let programs = bed::parts::ensure(&[bed::parts::Part::Registry]).unwrap();
        // In memory where there is such a folder: a registry syncs every blob.
        let shm = std::path::Path::new("/dev/shm");
        let dir = if shm.is_dir() {
            tempfile::tempdir_in(shm)
        } else {
            tempfile::tempdir()
        }
        .unwrap();
        let address = free_address();
        let auth = if kind == Kind::Password {
            std::fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
            format!(
                "auth: {{htpasswd: {{realm: bed, path: {}/htpasswd}}}}\n",
                dir.path().display()
            )
        } else {
            String::new()
        };
        let tls = if kind == Kind::Tls {
            certify(dir.path())
        } else {
            String::new()
        };
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}/data}}}}\n\
             http: {{addr: \"{address}\"{tls}}}\n{auth}",
            dir.path().display()
        );
        std::fs::write(dir.path().join("config.yml"), config).unwrap();
        let child = spawn(&programs.join("registry"), dir.path());
        let registry = Self {
            child,
            dir,
            address,
            kind,
        };
        registry.wait();
        registry
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(&self.address).is_err() {
            assert!(Instant::now() < deadline, "the registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Takes it off the network; `resume` brings the same content back at the same place.
    pub(crate) fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn resume(&mut self) {
        let programs = bed::parts::ensure(&[bed::parts::Part::Registry]).unwrap();
        self.child = spawn(&programs.join("registry"), self.dir.path());
        self.wait();
    }

    /// The entry of an auth file, with or without the right password.
    pub(crate) fn auth(&self, right: bool) -> String {
        let login = if right { LOGIN } else { "bed:wrong" };
        format!(
            r#"{{"auths":{{"{}":{{"auth":"{}"}}}}}}"#,
            self.address,
            STANDARD.encode(login)
        )
    }

    /// The folder of all that it stores.
    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    /// The certificate of a registry with TLS.
    pub(crate) fn certificate(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("cert.pem")).unwrap()
    }

    /// Stores a blob and returns its digest.
    pub(crate) fn push_blob(&self, repository: &str, blob: &[u8]) -> String {
        let digest = format!("sha256:{}", hex(&Sha256::digest(blob)));
        let start = self.request(ureq::post(format!(
            "http://{}/v2/{repository}/blobs/uploads/",
            self.address
        )));
        let started = start.send_empty().unwrap();
        let location = started.headers().get("location").unwrap().to_str().unwrap();
        let separator = if location.contains('?') { '&' } else { '?' };
        let put = self.request(ureq::put(format!("{location}{separator}digest={digest}")));
        put.header("Content-Type", "application/octet-stream")
            .send(blob)
            .unwrap();
        digest
    }

    /// Stores a manifest or index under a tag and returns its digest.
    pub(crate) fn push_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        manifest: &[u8],
    ) -> String {
        let put = self.request(ureq::put(format!(
            "http://{}/v2/{repository}/manifests/{tag}",
            self.address
        )));
        put.header("Content-Type", media_type)
            .send(manifest)
            .unwrap();
        format!("sha256:{}", hex(&Sha256::digest(manifest)))
    }

    fn request<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        if self.kind == Kind::Password {
            request.header("Authorization", format!("Basic {}", STANDARD.encode(LOGIN)))
        } else {
            request
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes a certificate for the loopback; the part of the configuration that names it.
fn certify(dir: &std::path::Path) -> String {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let dir = dir.display();
    format!(", tls: {{certificate: {dir}/cert.pem, key: {dir}/key.pem}}")
}

/// An address of the loopback for one registry of this process: below the ports that the kernel gives
/// to connections and to whoever asks for any, or one of those may have it before the registry has.
fn free_address() -> String {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed) % 100;
        let address = format!(
            "127.0.0.1:{}",
            20_000 + std::process::id() % 100 * 100 + given
        );
        if TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

fn spawn(program: &std::path::Path, dir: &std::path::Path) -> Child {
    Command::new(program)
        .args(["serve", "config.yml"])
        .current_dir(dir)
        .env("OTEL_TRACES_EXPORTER", "none")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut out, b| {
        write!(out, "{b:02x}").unwrap();
        out
    })
}
