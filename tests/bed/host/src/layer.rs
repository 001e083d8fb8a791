//! The bed's layer: what every host of a cluster has on top of the base tree.
//!
//! The stand-in for bootc, containerd and the kubelet with their settings, and
//! masks over units that would reach out of the host. It is one directory per
//! cluster, a lower layer of every host's root; it must not change while a host runs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use bed_bootc::files::{Content, FILES};
use serde_json::{Value, json};

const MASKED: &str = include_str!("../files/masked-units");
const UNITS: [(&str, &str); 2] = [
    (
        "bed-shared-mounts.service",
        include_str!("../files/units/bed-shared-mounts.service"),
    ),
    ("var.mount", include_str!("../files/units/var.mount")),
];
const KUBERNETES_UNITS: [(&str, &str); 2] = [
    (
        "containerd.service",
        include_str!("../files/units/containerd.service"),
    ),
    (
        "kubelet.service",
        include_str!("../files/units/kubelet.service"),
    ),
];
/// Mounts of the root that were there before systemd.
const EXTRINSIC: [&str; 2] = ["sysroot", r"sysroot-ostree-bed\x2dbase"];
/// Binaries in the bed's `bin` directory and where a host has them.
const BINARIES: [(&str, &str); 5] = [
    ("containerd", "usr/bin/containerd"),
    ("containerd-shim-runc-v2", "usr/bin/containerd-shim-runc-v2"),
    ("ctr", "usr/bin/ctr"),
    ("kube", "usr/bin/kubelet"),
    ("runc", "usr/bin/runc"),
];

/// What a layer is made of.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    /// The binary that hosts get as `/usr/bin/bootc`, with what belongs to
    /// it; without it a host boots but cannot update.
    pub bootc: Option<PathBuf>,
    /// Registries that speak plain HTTP, as image references name them: `host:port`.
    pub registries: Vec<String>,
    /// What makes hosts nodes of a cluster; without it they are only hosts.
    pub kubernetes: Option<Kubernetes>,
}

/// The parts of Kubernetes that run on a host.
#[derive(Clone, Debug)]
pub struct Kubernetes {
    /// Directory with `kube`, `containerd`, `containerd-shim-runc-v2`, `ctr`,
    /// `runc` and `cni/`, all linked statically.
    pub bin: PathBuf,
    /// Reference of the image that holds a pod's namespaces.
    pub pause: String,
}

impl Layer {
    /// Writes the layer into `directory`, which must not exist yet.
    pub fn write(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let tree = Tree { root: directory };
        tree.system()?;
        if let Some(bootc) = &self.bootc {
            tree.bootc(bootc)?;
        }
        tree.registries(&self.registries)?;
        if let Some(kubernetes) = &self.kubernetes {
            tree.kubernetes(kubernetes)?;
        }
        Ok(())
    }
}

/// Writes below one directory as if it were the root.
pub(crate) struct Tree<'a> {
    pub(crate) root: &'a Path,
}

impl Tree<'_> {
    fn system(&self) -> Result<()> {
        for unit in masked_units() {
            self.link(
                &format!("etc/systemd/system/{unit}"),
                Path::new("/dev/null"),
            )?;
        }
        for (name, text) in UNITS {
            self.unit(name, text)?;
        }
        for mount in EXTRINSIC {
            self.file(
                &format!("etc/systemd/system/{mount}.mount.d/bed.conf"),
                include_str!("../files/extrinsic-mount.conf"),
            )?;
        }
        self.link(
            "etc/systemd/system/default.target",
            Path::new("/usr/lib/systemd/system/multi-user.target"),
        )?;
        self.file(
            "etc/systemd/system.conf.d/bed.conf",
            include_str!("../files/system.conf"),
        )?;
        self.file(
            "etc/systemd/journald.conf.d/bed.conf",
            include_str!("../files/journald.conf"),
        )?;
        Ok(())
    }

    fn bootc(&self, binary: &Path) -> Result<()> {
        let target = self.parent("usr/bin/bootc")?;
        // A copy, as the next build may write into the file.
        fs::copy(binary, &target).with_context(|| format!("cannot copy {}", binary.display()))?;
        for (path, content) in FILES {
            match content {
                Content::Text(text) => self.file(path, text)?,
                Content::Link(to) => self.link(path, Path::new(to))?,
            }
        }
        Ok(())
    }

    /// Lets containerd and bootc do without TLS for these registries.
    fn registries(&self, registries: &[String]) -> Result<()> {
        let insecure: Vec<String> = registries
            .iter()
            .map(|registry| format!("[[registry]]\nlocation = \"{registry}\"\ninsecure = true\n"))
            .collect();
        for registry in registries {
            self.file(
                &format!("etc/containerd/certs.d/{registry}/hosts.toml"),
                &format!(
                    "server = \"http://{registry}\"\n\n[host.\"http://{registry}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
                ),
            )?;
        }
        self.file(
            "etc/containers/registries.conf.d/bed.conf",
            &insecure.concat(),
        )
    }

    fn kubernetes(&self, parts: &Kubernetes) -> Result<()> {
        for (name, target) in BINARIES {
            self.binary(&parts.bin.join(name), target)?;
        }
        let plugins = parts.bin.join("cni");
        for entry in
            fs::read_dir(&plugins).with_context(|| format!("cannot list {}", plugins.display()))?
        {
            let name = entry?.file_name();
            let target = format!("usr/libexec/cni/{}", name.to_string_lossy());
            self.binary(&plugins.join(&name), &target)?;
        }
        self.script(
            "usr/libexec/bed/with-cgroups",
            include_str!("../files/with-cgroups"),
        )?;
        self.script(
            "usr/libexec/bed/clear-cgroups",
            include_str!("../files/clear-cgroups"),
        )?;
        self.script(
            "usr/libexec/bed/boot-id-hook",
            include_str!("../files/boot-id-hook"),
        )?;
        for (name, text) in KUBERNETES_UNITS {
            self.unit(name, text)?;
        }
        self.file(
            "etc/kubernetes/kubelet.yaml",
            include_str!("../files/kubernetes/kubelet.yaml"),
        )?;
        self.containerd(parts)
    }

    fn containerd(&self, parts: &Kubernetes) -> Result<()> {
        let settings =
            include_str!("../files/kubernetes/containerd.toml").replace("@PAUSE@", &parts.pause);
        self.file("etc/containerd/config.toml", &settings)?;
        let spec = base_spec(&parts.bin.join("ctr"))?;
        self.file("etc/containerd/base-spec.json", &spec.to_string())
    }

    /// Writes a unit and the links by which its `[Install]` section enables it.
    fn unit(&self, name: &str, text: &str) -> Result<()> {
        self.file(&format!("usr/lib/systemd/system/{name}"), text)?;
        for (kind, target) in wanted_by(text) {
            self.link(
                &format!("etc/systemd/system/{target}.{kind}/{name}"),
                &Path::new("/usr/lib/systemd/system").join(name),
            )?;
        }
        Ok(())
    }

    /// Links a file that is never written to, or copies it from another file system.
    fn binary(&self, source: &Path, target: &str) -> Result<()> {
        let source = fs::canonicalize(source).with_context(|| {
            format!(
                "{} is missing: build the bed's parts first",
                source.display()
            )
        })?;
        let target = self.parent(target)?;
        fs::hard_link(&source, &target)
            .or_else(|_| fs::copy(&source, &target).map(|_| ()))
            .with_context(|| format!("cannot link {}", source.display()))
    }

    fn script(&self, path: &str, text: &str) -> Result<()> {
        self.file(path, text)?;
        fs::set_permissions(self.root.join(path), fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    pub(crate) fn file(&self, path: &str, text: &str) -> Result<()> {
        let target = self.parent(path)?;
        fs::write(&target, text).with_context(|| format!("cannot write {}", target.display()))
    }

    fn link(&self, path: &str, target: &Path) -> Result<()> {
        let link = self.parent(path)?;
        symlink(target, &link).with_context(|| format!("cannot make {}", link.display()))
    }

    /// The place of a file, with its directory made.
    fn parent(&self, path: &str) -> Result<PathBuf> {
        let target = self.root.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("cannot make {}", parent.display()))?;
        }
        Ok(target)
    }
}

fn masked_units() -> impl Iterator<Item = &'static str> {
    MASKED
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// `("wants", target)` or `("requires", target)` for each that an `[Install]` section names.
fn wanted_by(unit: &str) -> Vec<(&'static str, &str)> {
    let mut links = Vec::new();
    for line in unit.lines().map(str::trim) {
        for (key, kind) in [("WantedBy=", "wants"), ("RequiredBy=", "requires")] {
            if let Some(targets) = line.strip_prefix(key) {
                links.extend(targets.split_whitespace().map(|target| (kind, target)));
            }
        }
    }
    links
}

/// What containers of pods start from: containerd's own default, without its
/// limit on open files, and with the hook that shows them the host's boot id.
fn base_spec(ctr: &Path) -> Result<Value> {
    let output = Command::new(ctr)
        .args(["oci", "spec"])
        .output()
        .with_context(|| format!("cannot run {}", ctr.display()))?;
    if !output.status.success() {
        bail!(
            "{} oci spec failed: {}",
            ctr.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let mut spec: Value =
        serde_json::from_slice(&output.stdout).context("ctr oci spec printed no JSON")?;
    add_hook(&mut spec);
    Ok(spec)
}

fn add_hook(spec: &mut Value) {
    if let Some(process) = spec.get_mut("process").and_then(Value::as_object_mut) {
        process.remove("rlimits");
    }
    if let Some(spec) = spec.as_object_mut() {
        let hook = json!({"path": "/usr/libexec/bed/boot-id-hook", "args": ["boot-id-hook"]});
        spec.insert("hooks".to_owned(), json!({"createContainer": [hook]}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_enabled_as_their_install_section_says() {
        let unit =
            "[Unit]\nAfter=x.target\n[Install]\nWantedBy=a.target b.target\nRequiredBy=c.target\n";
        assert_eq!(
            wanted_by(unit),
            [
                ("wants", "a.target"),
                ("wants", "b.target"),
                ("requires", "c.target")
            ]
        );
    }

    #[test]
    fn a_layer_masks_what_reaches_out_of_the_host() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("layer");
        let layer = Layer {
            registries: vec!["registry:5000".to_owned()],
            ..Layer::default()
        };
        layer.write(&root).unwrap();
        for unit in [
            "systemd-sysctl.service",
            "getty@.service",
            "sys-kernel-debug.mount",
        ] {
            let link = root.join("etc/systemd/system").join(unit);
            assert_eq!(fs::read_link(link).unwrap(), Path::new("/dev/null"));
        }
        assert!(
            root.join("etc/systemd/system/sysinit.target.wants/bed-shared-mounts.service")
                .is_symlink()
        );
        assert!(!root.join("usr/lib/systemd/system/kubelet.service").exists());
        assert!(
            root.join("etc/containerd/certs.d/registry:5000/hosts.toml")
                .exists()
        );
    }

    #[test]
    fn missing_parts_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let layer = Layer {
            kubernetes: Some(Kubernetes {
                bin: directory.path().join("bin"),
                pause: "registry:5000/pause:1".to_owned(),
            }),
            ..Layer::default()
        };
        let error = layer.write(&directory.path().join("layer")).unwrap_err();
        assert!(
            error.to_string().contains("bin/containerd is missing"),
            "{error}"
        );
    }

    #[test]
    fn the_base_spec_gets_the_hook_and_loses_the_limits() {
        let mut spec = json!({"process": {"rlimits": [1], "cwd": "/"}});
        add_hook(&mut spec);
        assert_eq!(spec["process"], json!({"cwd": "/"}));
        assert_eq!(
            spec["hooks"]["createContainer"][0]["path"],
            "/usr/libexec/bed/boot-id-hook"
        );
    }
}
