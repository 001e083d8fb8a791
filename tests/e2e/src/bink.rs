//! The `bink` command: the only way in which tests make clusters, so that the
//! same tests run on the bed's hosts and on real bootc VMs.

use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use crate::images;
use crate::wait::until;

/// On real machines: the image of the disk that they start from.
const DISK: &str = "E2E_NODE_DISK";
/// On real machines: the OS image on that disk, `localhost:5000/…@sha256:…`.
pub(crate) const SEED: &str = "E2E_OS_SEED";
/// How long `cluster start` and `node add` may take. On real VMs it is minutes.
const START: Duration = Duration::from_secs(900);
/// How long any other command may take.
const ORDINARY: Duration = Duration::from_secs(120);

/// A `bink` program and the cluster that it is to work on.
#[derive(Debug, Clone)]
pub struct Bink {
    program: PathBuf,
    /// The bed's own, with its further commands.
    is_bed: bool,
    cluster: String,
    /// bink reads `./config.yaml` and writes a kubeconfig beside it: it gets a
    /// folder of its own.
    dir: PathBuf,
}

/// What a command on a node said.
#[derive(Debug, Clone)]
pub struct Output {
    /// The exit code; 255 where the node could not be reached.
    pub code: i32,
    /// Standard output, trimmed.
    pub stdout: String,
    /// Standard error, trimmed.
    pub stderr: String,
}

impl Bink {
    /// The program at `BINK_PATH`, or else `bink` on the `PATH`, or else the
    /// bed's own: this very program, whose `main` must begin with
    /// [`bed::bink::run_as_bink`].
    pub fn find(cluster: &str, dir: &Path) -> Result<Self> {
        let (program, is_bed) = match Self::real()? {
            Some(path) => (path, false),
            None => (own(dir)?, true),
        };
        Ok(Self {
            program,
            is_bed,
            cluster: cluster.to_owned(),
            dir: dir.to_owned(),
        })
    }

    /// The bink that makes clusters of real bootc VMs, if there is one here.
    pub fn real() -> Result<Option<PathBuf>> {
        match env::var_os("BINK_PATH") {
            Some(path) if !path.is_empty() => {
                let path = PathBuf::from(path);
                if !path.is_file() {
                    bail!("BINK_PATH names {}, where there is no file", path.display());
                }
                Ok(Some(path))
            }
            _ => Ok(on_path(bed::bink::NAME)),
        }
    }

    /// Is it the bed's own, with hosts that are no machines?
    #[must_use]
    pub const fn is_bed(&self) -> bool {
        self.is_bed
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Starts the cluster with its first node, which has the control-plane role.
    pub async fn start(&self, node: &str) -> Result<()> {
        let machine = self.machine();
        let machine = machine.iter().map(String::as_str);
        let start = ["cluster", "start", "--node-name", node];
        let start = start.into_iter().chain(machine);
        self.run(START, start).await.map(drop)
    }

    /// The flags that say what a real machine is made of; bink's own defaults
    /// where nothing is said.
    fn machine(&self) -> Vec<String> {
        let flag = |name: &str, variable: &str, value: &dyn Fn(String) -> String| {
            let said = env::var(variable).ok().filter(|_| !self.is_bed);
            said.map(|said| [name.to_owned(), value(said)])
        };
        let disk = flag("--node-image", DISK, &|disk| disk);
        let image = flag("--target-imgref", SEED, &|seed| {
            seed.replacen("localhost:5000", images::WITHIN, 1)
        });
        disk.into_iter().chain(image).flatten().collect()
    }

    /// Adds a worker.
    pub async fn add(&self, node: &str, labels: &[&str]) -> Result<()> {
        let machine = self.machine();
        let machine = machine.iter().map(String::as_str);
        let labels = labels.iter().flat_map(|label| ["--label", label]);
        let add = ["node", "add", node].into_iter();
        self.run(START, add.chain(labels).chain(machine))
            .await
            .map(drop)
    }

    /// Writes a kubeconfig for the machine that we are on and says where.
    pub async fn expose(&self) -> Result<PathBuf> {
        let said = self.run(ORDINARY, ["api", "expose"]).await?;
        let path = said
            .trim()
            .strip_prefix("export KUBECONFIG=")
            .context("bink api expose did not name a kubeconfig")?;
        Ok(PathBuf::from(path))
    }

    /// The registry's address on the machine that we are on, for pushing.
    pub async fn registry(&self) -> Result<String> {
        self.run(ORDINARY, ["registry", "start"]).await?;
        let info = self.run(ORDINARY, ["registry", "info"]).await?;
        let port = info
            .lines()
            .find_map(|line| line.strip_prefix("Host port:"))
            .context("bink registry info names no host port")?;
        let address = format!("127.0.0.1:{}", port.trim());
        // `registry start` returns before the registry listens.
        until("the registry answers", START, async || {
            let connected = TcpStream::connect(&address).await;
            Ok(connected.map(drop).map_err(|error| error.to_string()))
        })
        .await?;
        Ok(address)
    }

    /// Runs a shell command on a node as root.
    pub async fn ssh(&self, node: &str, command: &str) -> Result<Output> {
        let output = self
            .command([
                "node",
                "ssh",
                node,
                "--",
                &format!("sudo sh -c {}", quoted(command)),
            ])
            .output();
        let output = timeout(ORDINARY, output)
            .await
            .with_context(|| format!("`{command}` on {node} did not end in time"))??;
        Ok(Output {
            code: output.status.code().unwrap_or(255),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        })
    }

    /// The names of all clusters, one a line.
    pub async fn clusters(&self) -> Result<String> {
        self.run(ORDINARY, ["cluster", "list", "--name-only"]).await
    }

    /// Runs one of the commands that only the bed has.
    pub async fn bed<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<String> {
        self.run(ORDINARY, ["bed"].into_iter().chain(args)).await
    }

    /// The command that ends the cluster and removes its data, for `Drop`,
    /// which cannot wait for a future.
    #[must_use]
    pub fn stop(&self) -> std::process::Command {
        self.blocking(&["cluster", "stop", "--force", "--remove-data"])
    }

    /// Where the cluster logs what pods ask of its API server; `None` where
    /// that is not known. For `Drop` as well.
    pub(crate) fn audit_log(&self) -> Result<Option<PathBuf>> {
        if !self.is_bed {
            return Ok(None);
        }
        let output = self.blocking(&["bed", "audit-log"]).output()?;
        if !output.status.success() {
            bail!("{}", text(&output.stderr));
        }
        Ok(Some(PathBuf::from(text(&output.stdout))))
    }

    fn blocking(&self, args: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(&self.program);
        command
            .current_dir(&self.dir)
            .args(["--cluster-name", &self.cluster])
            .args(args);
        command
    }

    fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.program);
        command
            .current_dir(&self.dir)
            .args(["--cluster-name", &self.cluster])
            .args(args);
        // The bed ends what runs for us when we do; bink does not look at it.
        command.env(bed::owner::VARIABLE, std::process::id().to_string());
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs a command to its end and answers its standard output; its progress
    /// goes to our own standard error.
    async fn run<'a>(
        &self,
        deadline: Duration,
        args: impl IntoIterator<Item = &'a str>,
    ) -> Result<String> {
        let args: Vec<&str> = args.into_iter().collect();
        let what = format!("bink {}", args.join(" "));
        let mut command = self.command(&args);
        // Not `output()`, which takes standard error too and then waits for
        // whoever still has it: `cluster start` leaves a daemon behind.
        command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        let child = command
            .spawn()
            .with_context(|| format!("cannot run `{what}`"))?;
        let output = timeout(deadline, child.wait_with_output())
            .await
            .with_context(|| format!("`{what}` did not end in time"))??;
        if !output.status.success() {
            bail!("`{what}` failed ({})", output.status);
        }
        Ok(text(&output.stdout))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// This program under the name by which it is `bink`.
fn own(dir: &Path) -> Result<PathBuf> {
    bed::preflight::check()?;
    let link = dir.join(bed::bink::NAME);
    let program = env::current_exe().context("cannot tell which program this is")?;
    symlink(program, &link).with_context(|| format!("cannot make {}", link.display()))?;
    Ok(link)
}

pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// One word for a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_command_reaches_the_shell_as_one_word() {
        assert_eq!(quoted("echo 'a b'"), r"'echo '\''a b'\'''");
    }
}
