//! Debian packages without installing them: fetched by apt into a root of its
//! own, with the archive's signatures checked, and unpacked into a directory.
//!
//! Nothing of the machine's package state is read or changed: the sources, the
//! keys, the lists and the (empty) dpkg status all live under the bed's own
//! `apt` directory. Only apt's own settings of the machine (a proxy) hold.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// The release whose packages the bed uses, whatever the machine runs.
const SUITE: &str = "trixie";
/// Where packages come from unless [`MIRROR_VARIABLE`] says otherwise.
const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";
/// Environment variable that names another Debian mirror.
pub const MIRROR_VARIABLE: &str = "BED_DEBIAN_MIRROR";
/// Longest that one call of apt may take, in seconds.
const DEADLINE: &str = "600";

/// The archive's public keys, as the package `debian-archive-keyring` ships them.
const KEYS: [(&str, &[u8]); 2] = [
    (
        "automatic.gpg",
        include_bytes!("../keyrings/debian-archive-trixie-automatic.gpg"),
    ),
    (
        "stable.gpg",
        include_bytes!("../keyrings/debian-archive-trixie-stable.gpg"),
    ),
];

/// Which packages besides the named ones are unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closure {
    /// Only the packages named.
    Named,
    /// Also all that they depend on, as apt resolves it for an empty system.
    Dependencies,
}

/// Unpacks `packages` and returns the directory that holds their files.
///
/// The directory is `<bed>/debian/<name>-<key>`, where the key is made of all
/// that decides its contents; when it exists nothing is fetched. Must not be
/// written to by the caller. Several processes may ask at the same time.
pub fn unpacked(bed: &Path, name: &str, packages: &[&str], closure: Closure) -> Result<PathBuf> {
    let finish = Finish {
        source: "",
        run: |_| Ok(()),
    };
    unpacked_and_finished(bed, name, packages, closure, &finish)
}

/// What is done to the unpacked files before anybody sees them.
pub(crate) struct Finish {
    /// Whatever decides what `run` does; part of the key.
    pub(crate) source: &'static str,
    /// Called with the directory that holds the files.
    pub(crate) run: fn(&Path) -> Result<()>,
}

/// As [`unpacked`], with a step between unpacking and the directory's appearance.
pub(crate) fn unpacked_and_finished(
    bed: &Path,
    name: &str,
    packages: &[&str],
    closure: Closure,
    finish: &Finish,
) -> Result<PathBuf> {
    let mirror = mirror();
    let key = key(&mirror, packages, closure, finish.source);
    let tree = bed.join("debian").join(format!("{name}-{key}"));
    if tree.is_dir() {
        return Ok(tree);
    }
    let apt = Apt::lock(bed, mirror)?;
    if !tree.is_dir() {
        apt.fill(&tree, packages, closure, finish.run)?;
    }
    Ok(tree)
}

/// The first 16 hex digits of a hash over all that decides what is unpacked.
fn key(mirror: &str, packages: &[&str], closure: Closure, finish: &str) -> String {
    let mut hash = Sha256::new();
    let closure = format!("{closure:?}");
    let parts = [include_str!("apt.rs"), mirror, finish, &closure];
    for part in parts.iter().chain(packages) {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    crate::hex(&hash.finalize()[..8])
}

fn mirror() -> String {
    std::env::var(MIRROR_VARIABLE).unwrap_or_else(|_| DEFAULT_MIRROR.to_owned())
}

/// The bed's own apt root, locked for as long as this value lives.
struct Apt {
    root: PathBuf,
    mirror: String,
    _lock: File,
}

impl Apt {
    /// Waits for other users of the apt root and writes its settings.
    fn lock(bed: &Path, mirror: String) -> Result<Self> {
        let root = std::path::absolute(bed.join("apt"))?;
        for directory in ["keys", "lists/partial", "cache/archives/partial"] {
            let path = root.join(directory);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        let lock = File::create(root.join("lock"))?;
        lock.lock().context("cannot lock the bed's apt root")?;
        let apt = Self {
            root,
            mirror,
            _lock: lock,
        };
        apt.write_settings()?;
        Ok(apt)
    }

    fn write_settings(&self) -> Result<()> {
        for (name, key) in KEYS {
            fs::write(self.root.join("keys").join(name), key)?;
        }
        fs::write(self.root.join("status"), "")?;
        fs::write(
            self.root.join("sources.list"),
            format!("deb {} {SUITE} main\n", self.mirror),
        )?;
        fs::write(self.root.join("apt.conf"), settings(&self.root))?;
        Ok(())
    }

    fn fill(
        &self,
        tree: &Path,
        packages: &[&str],
        closure: Closure,
        finish: fn(&Path) -> Result<()>,
    ) -> Result<()> {
        eprintln!(
            "bed: fetching Debian {SUITE} packages from {}: {}",
            self.mirror,
            packages.join(" ")
        );
        self.run(&["update"], &self.root)?;
        let part = tree.with_extension("part");
        let debs = part.join("debs");
        if part.exists() {
            fs::remove_dir_all(&part)?;
        }
        fs::create_dir_all(&debs)?;
        self.download(&debs, packages, closure)?;
        let root = part.join("root");
        let count = extract_all(&debs, &root)?;
        finish(&root)?;
        fs::rename(&root, tree)?;
        fs::remove_dir_all(&part)?;
        eprintln!("bed: unpacked {count} packages into {}", tree.display());
        Ok(())
    }

    fn download(&self, debs: &Path, packages: &[&str], closure: Closure) -> Result<()> {
        let archives = format!("Dir::Cache::archives={}", debs.display());
        let mut arguments = match closure {
            Closure::Named => vec!["download"],
            Closure::Dependencies => {
                fs::create_dir_all(debs.join("partial"))?;
                let mut install = vec!["install", "--download-only", "--yes", "-o"];
                install.extend([archives.as_str(), "--no-install-recommends"]);
                install
            }
        };
        arguments.extend(packages);
        self.run(&arguments, debs)
    }

    /// Runs apt-get on the bed's root; its error becomes one line.
    fn run(&self, arguments: &[&str], directory: &Path) -> Result<()> {
        let output = Command::new("timeout")
            .args([DEADLINE, "apt-get", "--quiet", "--config-file"])
            .arg(self.root.join("apt.conf"))
            .args(arguments)
            .env("LC_ALL", "C")
            .current_dir(directory)
            .output()
            .context("cannot run timeout(1), which Debian's coreutils has")?;
        match output.status.code() {
            Some(0) => Ok(()),
            Some(127) => bail!(
                "apt-get is missing: the bed unpacks Debian packages, so it needs a Debian or Ubuntu machine"
            ),
            Some(124) => bail!("apt-get took longer than {DEADLINE} s; try again"),
            _ => bail!(
                "apt-get {} failed for {}: {}; check the network, or name another mirror in {MIRROR_VARIABLE}",
                arguments.first().unwrap_or(&""),
                self.mirror,
                complaint(&output)
            ),
        }
    }
}

/// apt's settings for a root of its own. Hooks of the machine are cleared:
/// they are about the machine's own packages.
fn settings(root: &Path) -> String {
    let root = root.display();
    format!(
        r#"#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Default-Release;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Post-Invoke;
Dir::State "{root}";
Dir::State::Lists "lists";
Dir::State::status "{root}/status";
Dir::Cache "{root}/cache";
Dir::Etc::sourcelist "{root}/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "{root}/keys";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::CNF::DefaultEnabled "false";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
"#
    )
}

/// What a failed command said: its first error line, without apt's `E:`.
fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let error = text.lines().find_map(|line| line.strip_prefix("E: "));
    let last = || text.lines().rfind(|line| !line.trim().is_empty());
    error
        .or_else(last)
        .unwrap_or("it did not say why")
        .trim()
        .to_owned()
}

/// Unpacks every `.deb` of a directory; returns how many there were.
fn extract_all(debs: &Path, root: &Path) -> Result<usize> {
    let mut packages: Vec<PathBuf> = fs::read_dir(debs)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    packages.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    // base-files comes first: it holds the links (/bin -> usr/bin) through
    // which other packages may unpack.
    packages.sort_by_key(|path| !is_base_files(path));
    for package in &packages {
        extract(package, root)?;
    }
    Ok(packages.len())
}

fn is_base_files(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with("base-files_"))
}

fn extract(package: &Path, root: &Path) -> Result<()> {
    let output = Command::new("dpkg-deb")
        .arg("--extract")
        .args([package, root])
        .output()
        .context("cannot run dpkg-deb: the bed needs a Debian or Ubuntu machine")?;
    if !output.status.success() {
        bail!(
            "cannot unpack {}: {}",
            package.display(),
            complaint(&output)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    fn said(stderr: &str) -> String {
        complaint(&Output {
            status: ExitStatus::from_raw(100 << 8),
            stdout: Vec::new(),
            stderr: stderr.as_bytes().to_vec(),
        })
    }

    #[test]
    fn the_key_changes_with_all_that_decides_the_contents() {
        let base = key("m", &["a", "b"], Closure::Named, "");
        assert_eq!(base, key("m", &["a", "b"], Closure::Named, ""));
        assert_eq!(base.len(), 16);
        for other in [
            key("n", &["a", "b"], Closure::Named, ""),
            key("m", &["ab"], Closure::Named, ""),
            key("m", &["a"], Closure::Named, ""),
            key("m", &["a", "b"], Closure::Dependencies, ""),
            key("m", &["a", "b"], Closure::Named, "x"),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_complaint_is_apts_first_error_or_the_last_line() {
        assert_eq!(
            said("W: noise\nE: Unable to locate package x\nE: more\n"),
            "Unable to locate package x"
        );
        assert_eq!(said("first\nlast\n\n"), "last");
        assert_eq!(said(""), "it did not say why");
    }

    #[test]
    fn base_files_is_unpacked_first() {
        assert!(is_base_files(Path::new("/x/base-files_13.8_amd64.deb")));
        assert!(!is_base_files(Path::new("/x/base-passwd_3.6_amd64.deb")));
    }
}
