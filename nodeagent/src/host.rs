//! Entering the host: commands run in the namespaces of its PID 1, files are reached through
//! `/proc/1/root`.
//!
//! This is the one place with `unsafe` code: between fork and exec the child joins the host's
//! namespaces. It execs the host's program at once, so killing the child hits that program, and the
//! pod's own file system is never seen by it.

#![allow(
    unsafe_code,
    reason = "a child joins the host's namespaces between fork and exec"
)]

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, Command},
    time::timeout,
};

/// Where the host's programs are.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// More output than any command here has, in bytes; the rest is dropped.
const LONGEST_OUTPUT: u64 = 4 << 20;
/// How many of a tool's last lines are shown.
const LAST_LINES: usize = 5;
/// How long these may be together, in bytes.
const LAST_WORDS: usize = 1000;

/// The host as the agent reaches it.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
    way: Way,
}

/// How a command comes to run on the host.
#[derive(Clone, Debug)]
enum Way {
    /// In the namespaces of PID 1.
    Enter,
    /// As our own child, its programs looked up here: for tests, and never for a real host.
    Direct { path: String },
}

/// Why the host cannot be entered.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// `/proc/1` cannot be read.
    #[error("cannot look at PID 1: {0}; the agent needs a privileged pod")]
    Proc(#[from] io::Error),
    /// In a pod with a PID namespace of its own.
    #[error(
        "PID 1 is the agent's own container, not the host's init: set hostPID: true in the pod"
    )]
    NoHostPid,
    /// Not in a pod at all.
    #[error(
        "the agent is not in a pod, so PID 1 may be that of your own machine, which it would reboot; \
         say --enter-host if that is what you want"
    )]
    NotInPod,
    /// PID 1 is not systemd.
    #[error("PID 1 is not systemd (/run/systemd/system is missing there); bootc hosts run systemd")]
    NotSystemd,
}

/// A command that ran and ended well.
#[derive(Debug, Default)]
pub struct Output {
    /// Its standard output.
    pub stdout: Vec<u8>,
}

/// Why a command on the host brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no such program there.
    #[error("the host has no {0}")]
    Missing(String),
    /// It could not be started.
    #[error("cannot run {command}: {cause}")]
    Start {
        /// What was to be run.
        command: String,
        /// Why not.
        cause: io::Error,
    },
    /// It ended badly.
    #[error("{command} failed ({status}): {words}")]
    Failed {
        /// What was run.
        command: String,
        /// Its exit.
        status: String,
        /// Its last lines.
        words: String,
    },
    /// It did not end in time and was killed.
    #[error("{command} has not ended within {seconds} s and was killed")]
    TimedOut {
        /// What was run.
        command: String,
        /// The deadline.
        seconds: u64,
    },
}

impl Host {
    /// The host whose init is PID 1.
    ///
    /// # Errors
    /// If PID 1 is not what it should be: then nothing must be entered, let alone rebooted. Outside
    /// a pod that is the machine itself, which `enter_host` admits.
    pub fn enter(enter_host: bool) -> Result<Self, EnterError> {
        let in_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        if !in_pod && !enter_host {
            return Err(EnterError::NotInPod);
        }
        let same_mounts = fs::read_link("/proc/1/ns/mnt")? == fs::read_link("/proc/self/ns/mnt")?;
        if in_pod && same_mounts {
            return Err(EnterError::NoHostPid);
        }
        if !Path::new("/proc/1/root/run/systemd/system").is_dir() {
            return Err(EnterError::NotSystemd);
        }
        Ok(Self {
            root: "/proc/1/root".into(),
            way: Way::Enter,
        })
    }

    /// A directory that plays the host, for tests: its files under `root`, its programs found on
    /// `path`. Commands run as plain children, so give it none that touch the machine.
    #[must_use]
    pub fn played(root: &Path, path: &str) -> Self {
        Self {
            root: root.to_owned(),
            way: Way::Direct {
                path: path.to_owned(),
            },
        }
    }

    /// A path on the host, as the agent reaches it. `path` must be relative, and must not lead
    /// through an absolute symbolic link: that would be resolved in the pod.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The kernel's boot id as the host sees it.
    ///
    /// # Errors
    /// If the host's `/proc` does not show it.
    pub fn boot_id(&self) -> io::Result<String> {
        let text = fs::read_to_string(self.path("proc/sys/kernel/random/boot_id"))?;
        Ok(text.trim().to_owned())
    }

    /// Runs a command on the host; it gets no input, a clean environment, and is killed with all its
    /// children at the deadline.
    ///
    /// # Errors
    /// If it is missing, fails or does not end; with its last lines.
    pub async fn run(&self, argv: &[&str], deadline: Duration) -> Result<Output, CommandError> {
        let command = argv.join(" ");
        tracing::debug!(%command, "run");
        let mut child = self.spawn(argv).map_err(|cause| {
            let program = argv.first().copied().unwrap_or_default();
            match cause.kind() {
                io::ErrorKind::NotFound => CommandError::Missing(program.to_owned()),
                _ => CommandError::Start {
                    command: command.clone(),
                    cause,
                },
            }
        })?;
        let group = child.id();
        let Ok(ended) = timeout(deadline, finish(&mut child)).await else {
            kill(group);
            return Err(CommandError::TimedOut {
                command,
                seconds: deadline.as_secs(),
            });
        };
        let (status, stdout, stderr) = ended.map_err(|cause| CommandError::Start {
            command: command.clone(),
            cause,
        })?;
        if status.success() {
            return Ok(Output { stdout });
        }
        let said = if stderr.is_empty() { &stdout } else { &stderr };
        Err(CommandError::Failed {
            command,
            status: status.to_string(),
            words: last_words(&String::from_utf8_lossy(said)),
        })
    }

    fn spawn(&self, argv: &[&str]) -> io::Result<Child> {
        let (program, arguments) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        // `container` in the environment, even empty, makes bootc deny that this is its host.
        command
            .args(arguments)
            .env_clear()
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", "/root")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        match &self.way {
            Way::Enter => {
                command.env("PATH", PATH);
                join(&mut command, &Namespaces::of_init()?);
            }
            Way::Direct { path } => {
                command
                    .env("PATH", path)
                    .env("HOST_ROOT", AsRef::<OsStr>::as_ref(&self.root));
            }
        }
        command.spawn()
    }
}

/// The namespaces of PID 1 that are not our own, opened.
#[derive(Debug)]
struct Namespaces(Vec<(File, CloneFlags)>);

impl Namespaces {
    /// All but the PID namespace (hostPID makes that the host's already) and the user namespace.
    fn of_init() -> io::Result<Self> {
        let kinds = [
            ("cgroup", CloneFlags::CLONE_NEWCGROUP),
            ("ipc", CloneFlags::CLONE_NEWIPC),
            ("uts", CloneFlags::CLONE_NEWUTS),
            ("net", CloneFlags::CLONE_NEWNET),
            ("mnt", CloneFlags::CLONE_NEWNS),
        ];
        let mut open = Vec::new();
        for (name, flag) in kinds {
            let of = |who: &str| format!("/proc/{who}/ns/{name}");
            if fs::read_link(of("1"))? != fs::read_link(of("self"))? {
                open.push((File::open(of("1"))?, flag));
            }
        }
        Ok(Self(open))
    }
}

/// Makes the command join the namespaces before it becomes the host's program.
fn join(command: &mut Command, namespaces: &Namespaces) {
    let joined: io::Result<Vec<_>> = namespaces
        .0
        .iter()
        .map(|(file, flag)| Ok((file.try_clone()?, *flag)))
        .collect();
    let enter = move || {
        let Ok(namespaces) = &joined else {
            return Err(io::ErrorKind::Other.into());
        };
        for (file, flag) in namespaces {
            setns(file.as_fd(), *flag)?;
        }
        Ok(())
    };
    // SAFETY: the closure runs in the forked child, which has one thread. It makes system calls only:
    // no allocation, no lock, nothing that another thread of the parent could have held at the fork.
    unsafe {
        command.pre_exec(enter);
    }
}

async fn finish(child: &mut Child) -> io::Result<(std::process::ExitStatus, Vec<u8>, Vec<u8>)> {
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let (out, err) = tokio::join!(read(stdout), read(stderr));
    Ok((child.wait().await?, out?, err?))
}

async fn read(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(LONGEST_OUTPUT).read_to_end(&mut text).await?;
    }
    Ok(text)
}

/// Kills a command and the children it has (skopeo, say, which would hold on to the pull).
fn kill(group: Option<u32>) {
    if let Some(group) = group.and_then(|it| i32::try_from(it).ok()) {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
}

/// The last lines of what a tool said, for people: not empty, not endless.
#[must_use]
pub fn last_words(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let last = lines.get(lines.len().saturating_sub(LAST_LINES)..);
    let mut words = last.unwrap_or_default().join(" | ");
    if words.len() > LAST_WORDS {
        words = format!("…{}", crate::text::tail(&words, LAST_WORDS));
    }
    if words.is_empty() {
        "it did not say why".to_owned()
    } else {
        words
    }
}
