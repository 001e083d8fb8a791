//! The registry of this machine, shared by all clusters: a daemon that runs as
//! long as somebody uses it.
//!
//! Users are clusters, and the owners of commands ([`crate::owner`]). A
//! `registry start` without an owner makes it stay until `registry stop`.
//!
//! It has two doors to the same images: one for everybody, and one that wants
//! [`USER`] and [`PASSWORD`].

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::detached::{self, Handshake};
use crate::parts::{self, Part};
use crate::paths;
use crate::process::{Daemon, Program};
use crate::run_dir::{Mark, RunDir, locked};

/// The port that bink's registry has; taken when it is free.
pub const USUAL_PORT: u16 = 5000;
/// Who may pull through the protected door.
pub const USER: &str = "bed";
/// That user's password. It protects nothing but what a test made.
pub const PASSWORD: &str = "let-me-in";
/// The two as the registry reads them, hashed by bcrypt.
const HTPASSWD: &str = "bed:$2y$05$abcdefghijklmnopqrstuu3Jd./u/rH1RxB6auX5v7gLP6uWhKCgG\n";
/// How long the registry may take to listen, and to end.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long it waits for another user when the last one has gone.
const LINGER: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(100);
const NAME: &str = "registry";
/// The hidden command that is the daemon.
pub const COMMAND: [&str; 2] = ["bed", "run-registry"];

/// A registry that runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Running {
    /// Its port on this machine's loopback address.
    pub port: u16,
    /// The port of its protected door, on the same address.
    pub protected: u16,
    daemon: Mark,
}

/// The registry, if it runs.
pub fn find() -> Result<Option<Running>> {
    let Ok(text) = fs::read(dir()?.join("registry.json")) else {
        return Ok(None);
    };
    // What a dead daemon left says nothing, whichever version wrote it.
    match serde_json::from_slice::<Owned>(&text) {
        Ok(state) if state.daemon.lives() => serde_json::from_slice(&text)
            .context("a registry of another version runs: end what uses it")
            .map(Some),
        _ => Ok(None),
    }
}

/// All that must be readable of another version's [`Running`].
#[derive(Deserialize)]
struct Owned {
    daemon: Mark,
}

/// Starts the registry unless it runs, and notes that `user` needs it; without
/// a user it stays until it is stopped.
pub fn start(user: Option<Mark>) -> Result<Running> {
    let _lock = lock()?;
    if find()?.is_none() {
        parts::ensure(&[Part::Registry])?;
        detached::launch(&COMMAND.map(str::to_owned)).context("the registry did not start")?;
    }
    let running = find()?.context("the registry ended at once")?;
    hold(user)?;
    Ok(running)
}

/// Notes a user of the registry, or that it is to stay.
fn hold(user: Option<Mark>) -> Result<()> {
    let users = dir()?.join("users");
    fs::create_dir_all(&users)?;
    let name = user.map_or_else(|| "everybody".to_owned(), |mark| mark.pid.to_string());
    fs::write(users.join(name), serde_json::to_vec(&user)?)
        .context("cannot note a user of the registry")
}

/// Ends the registry and removes its images. It is no error when none runs.
pub fn stop() -> Result<()> {
    let Some(running) = find()? else {
        return Ok(());
    };
    running
        .daemon
        .ask_to_end(DEADLINE)
        .context("the registry does not end")
}

fn dir() -> Result<PathBuf> {
    Ok(paths::run()?.join(NAME))
}

/// Whoever starts or ends the registry, or counts its users, holds this.
fn lock() -> Result<File> {
    locked(&paths::run()?.join(".registry"))
}

/// The daemon itself: [`COMMAND`].
pub fn run() -> Result<()> {
    let mut handshake = Handshake::begin()?;
    let outcome = serve(&mut handshake);
    outcome.or_else(|error| handshake.failed(&error))
}

fn serve(handshake: &mut Handshake) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let dir = RunDir::claim(NAME)?;
    handshake.log_to(&dir.path().join("daemon.log"))?;
    let mut doors = Doors::open(dir.path())?;
    let daemon_mark = Mark::of(std::process::id()).context("cannot see our own process")?;
    let running = Running {
        port: doors.everybody.1,
        protected: doors.protected.1,
        daemon: daemon_mark,
    };
    fs::write(
        dir.path().join("registry.json"),
        serde_json::to_vec(&running)?,
    )?;
    handshake.ready()?;
    runtime.block_on(async {
        tokio::select! {
            ended = detached::termination() => ended,
            ended = while_used(dir.path(), &mut doors) => ended,
        }
    })
}

/// Ends, holding the lock until all is removed, when nobody needs the registry.
async fn while_used(dir: &Path, doors: &mut Doors) -> Result<()> {
    let mut used = Instant::now();
    loop {
        tokio::time::sleep(POLL).await;
        doors.everybody.0.check()?;
        doors.protected.0.check()?;
        if is_used(dir)? {
            used = Instant::now();
        } else if used.elapsed() > LINGER {
            let _lock = lock()?;
            if !is_used(dir)? {
                fs::remove_file(dir.join("registry.json"))?;
                return Ok(());
            }
        }
    }
}

fn is_used(dir: &Path) -> Result<bool> {
    let Ok(users) = fs::read_dir(dir.join("users")) else {
        return Ok(false);
    };
    for user in users {
        // A note that is being written has a user.
        let user = serde_json::from_slice(&fs::read(user?.path())?);
        if !matches!(user, Ok(Some(mark)) if !Mark::lives(mark)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The two programs that serve the same images, each with its port.
struct Doors {
    everybody: (Daemon, u16),
    protected: (Daemon, u16),
}

impl Doors {
    fn open(dir: &Path) -> Result<Self> {
        let users = dir.join("htpasswd");
        fs::write(&users, HTPASSWD)?;
        let auth = json!({"htpasswd": {"realm": "bed", "path": users}});
        Ok(Self {
            everybody: open_door(dir, NAME, USUAL_PORT, &json!({}))?,
            protected: open_door(dir, "protected-registry", 0, &auth)?,
        })
    }
}

fn open_door(dir: &Path, name: &str, usual: u16, auth: &Value) -> Result<(Daemon, u16)> {
    let port = free_port(usual)?;
    let mut daemon = program(dir, name, port, auth)?.start()?;
    wait_listening(&mut daemon, port)?;
    Ok((daemon, port))
}

fn free_port(usual: u16) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, usual))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .context("no free port on the loopback address")?;
    Ok(listener.local_addr()?.port())
}

fn program(dir: &Path, name: &str, port: u16, auth: &Value) -> Result<Program> {
    let settings = json!({
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": true}},
        "storage": {"filesystem": {"rootdirectory": dir.join("images")}},
        "http": {"addr": format!("127.0.0.1:{port}")},
        "auth": auth,
    });
    let file = dir.join(format!("{name}.json"));
    fs::write(&file, settings.to_string())?;
    Ok(Program {
        name: name.to_owned(),
        argv: vec![
            paths::bin()?.join("registry").into(),
            "serve".into(),
            file.into(),
        ],
        // By default it looks for a trace collector, and says so for ever.
        env: vec![("OTEL_TRACES_EXPORTER".to_owned(), "none".into())],
        dir: dir.to_path_buf(),
    })
}

fn wait_listening(daemon: &mut Daemon, port: u16) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    while TcpStream::connect(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).is_err() {
        daemon.check()?;
        if Instant::now() > deadline {
            bail!(
                "the registry does not listen; the end of its log:\n{}",
                daemon.last_words()
            );
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}
