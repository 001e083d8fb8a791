//! Running the Go compiler.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bed_host::apt::{self, Closure};
use nix::sys::statvfs::statvfs;

use super::recipe::Recipe;
use super::{Part, stamp};
use crate::paths;
use crate::progress::Step;

/// Room that a first build takes, in GiB: Go's caches and the programs.
const ROOM: u64 = 7;
/// How many lines of the compiler's output an error shows.
const SHOWN_LINES: usize = 20;

/// The Go compiler of this machine.
#[derive(Debug)]
pub(super) struct Toolchain {
    version: String,
    cache: PathBuf,
}

impl Toolchain {
    pub(super) fn find() -> Result<Self> {
        let output = go().args(["env", "GOVERSION", "GOCACHE"]).output();
        let output =
            output.context("cannot run `go`: install Go 1.26 or newer (https://go.dev/dl)")?;
        if !output.status.success() {
            bail!(
                "`go env` failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let text = String::from_utf8(output.stdout).context("`go env` answered no text")?;
        let mut lines = text.lines().map(str::to_owned);
        let (version, cache) = (
            lines.next().unwrap_or_default(),
            lines.next().unwrap_or_default(),
        );
        Ok(Self {
            version,
            cache: cache.into(),
        })
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }
}

/// `go`, in the folder of the parts, free of what a user's environment says
/// about other builds.
fn go() -> Command {
    let mut command = Command::new("go");
    command.current_dir(paths::part_sources());
    command
        .env("GOFLAGS", "")
        .env("GOWORK", "off")
        .env_remove("GOOS")
        .env_remove("GOARCH");
    command
}

/// Builds a part and puts its programs in place, each by a rename.
pub(super) fn build(part: Part, toolchain: &Toolchain) -> Result<()> {
    let recipe = part.recipe();
    check_room(toolchain)?;
    let bin = paths::bin()?;
    let scratch = bin.join(".build").join(recipe.source);
    fs::create_dir_all(&scratch)?;
    let output = output_flag(recipe, &scratch);
    compile(recipe, &output)
        .with_context(|| format!("cannot build the part `{}`", recipe.source))?;
    for name in recipe.outputs {
        let target = bin.join(name);
        fs::create_dir_all(target.parent().unwrap_or(&bin))?;
        let file = target.file_name().context("a part's output has no name")?;
        fs::rename(scratch.join(file), &target)
            .with_context(|| format!("the build made no {name}"))?;
    }
    link(recipe, &bin)?;
    fs::write(stamp(part)?, recipe.key(toolchain.version())?)?;
    Ok(())
}

/// `-o`: a folder where several programs come out, a file where one does, for
/// a lone program is called after its module and not after what we call it.
fn output_flag(recipe: &Recipe, scratch: &Path) -> PathBuf {
    match recipe.outputs {
        [only] => scratch.join(only),
        _ => scratch.join(""),
    }
}

fn link(recipe: &Recipe, bin: &Path) -> Result<()> {
    let Some(program) = recipe.outputs.first() else {
        return Ok(());
    };
    for name in recipe.links {
        let link = bin.join(name);
        let _was_not_there = fs::remove_file(&link);
        std::os::unix::fs::symlink(program, &link)?;
    }
    Ok(())
}

fn compile(recipe: &Recipe, output: &Path) -> Result<()> {
    let mut command = go();
    command.current_dir(paths::part_sources().join(recipe.source));
    // The stamp of the version control would make equal sources differ.
    command.args([
        "build",
        "-v",
        "-trimpath",
        "-buildvcs=false",
        "-tags",
        recipe.tags,
        "-ldflags",
        recipe.ldflags,
    ]);
    command.arg("-o").arg(output).args(recipe.packages);
    command.env("CGO_ENABLED", if recipe.cgo { "1" } else { "0" });
    if recipe.cgo {
        command.envs(c_environment()?);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let said = watch(&mut child, recipe.source)?;
    if child.wait()?.success() {
        return Ok(());
    }
    let shown = said
        .get(said.len().saturating_sub(SHOWN_LINES)..)
        .unwrap_or_default();
    bail!("go build failed:\n{}", shown.join("\n"))
}

/// Where the C compiler finds libseccomp, which is fetched and not installed.
fn c_environment() -> Result<[(&'static str, String); 3]> {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let known = Command::new(&compiler).arg("--version").output();
    if !known.is_ok_and(|output| output.status.success()) {
        bail!(
            "cannot run the C compiler `{compiler}`: install one (Debian, Ubuntu: apt install gcc libc6-dev)"
        );
    }
    let root = apt::unpacked(
        &paths::bed()?,
        "libseccomp",
        &["libseccomp-dev"],
        Closure::Named,
    )?;
    let usr = root.join("usr").display().to_string();
    let libraries = format!("{usr}/lib/{}-linux-gnu", std::env::consts::ARCH);
    Ok([
        ("PKG_CONFIG_PATH", format!("{libraries}/pkgconfig")),
        ("CGO_CFLAGS", format!("-O2 -I{usr}/include")),
        ("CGO_LDFLAGS", format!("-L{libraries}")),
    ])
}

/// Shows which package is being compiled; answers all that was said.
fn watch(child: &mut Child, source: &str) -> Result<Vec<String>> {
    let lines = lines(child.stderr.take().context("no output to watch")?);
    let mut step = Step::new(format!("building {source} (minutes the first time)"));
    let mut said = Vec::new();
    loop {
        match lines.recv_timeout(Duration::from_millis(500)) {
            Ok(line) => said.push(line),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let last = said.last().map_or("", String::as_str);
        step.tick(&format!(
            "{} packages compiled or downloaded, {last}",
            said.len()
        ));
    }
    step.done();
    Ok(said)
}

fn lines(from: ChildStderr) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// Says what to do before the compiler fails half-way for want of room. Once
/// there is a build cache, far less is needed and nothing is asked.
fn check_room(toolchain: &Toolchain) -> Result<()> {
    if toolchain.cache.join("trim.txt").exists() {
        return Ok(());
    }
    let cache = toolchain
        .cache
        .ancestors()
        .find(|dir| dir.exists())
        .unwrap_or(Path::new("/"));
    for dir in [&paths::bin()?, cache] {
        let stat = statvfs(dir)
            .with_context(|| format!("cannot tell the free room in {}", dir.display()))?;
        let free = (stat.blocks_available() * stat.fragment_size()) >> 30;
        if free < ROOM {
            bail!(
                "{} has {free} GiB free, a first build needs {ROOM}: make room, or set CARGO_TARGET_DIR and GOCACHE",
                dir.display()
            );
        }
    }
    Ok(())
}
