//! What each part is made of.

use std::fs;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use walkdir::WalkDir;

use crate::paths;

/// A part that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// etcd, the control plane, kubelet and kubectl: one program, linked under
    /// each name.
    Kubernetes,
    /// The image registry.
    Registry,
    /// containerd with its shim and `ctr`.
    Containerd,
    /// The container runtime.
    Runc,
    /// The network plugins: bridge, loopback, host-local.
    Cni,
    /// What runs in pods: `pause` and `web`.
    Workload,
    /// The OpenTelemetry Collector, writing what it gets to files.
    Collector,
    /// Linters of workflows and manifests: `actionlint` and `kube-score`.
    Lint,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 8] = [
        Self::Workload,
        Self::Lint,
        Self::Collector,
        Self::Registry,
        Self::Cni,
        Self::Runc,
        Self::Containerd,
        Self::Kubernetes,
    ];

    /// Those that a cluster with hosts is made of.
    pub const CLUSTER: [Self; 6] = [
        Self::Workload,
        Self::Registry,
        Self::Cni,
        Self::Runc,
        Self::Containerd,
        Self::Kubernetes,
    ];

    pub(super) const fn recipe(self) -> &'static Recipe {
        match self {
            Self::Kubernetes => &KUBERNETES,
            Self::Registry => &REGISTRY,
            Self::Containerd => &CONTAINERD,
            Self::Runc => &RUNC,
            Self::Cni => &CNI,
            Self::Workload => &WORKLOAD,
            Self::Collector => &COLLECTOR,
            Self::Lint => &LINT,
        }
    }
}

/// How a part is built.
#[derive(Debug)]
pub(super) struct Recipe {
    /// Its folder below `parts/`.
    pub(super) source: &'static str,
    /// The packages to build.
    pub(super) packages: &'static [&'static str],
    /// What comes out, below `bin`; all in one folder.
    pub(super) outputs: &'static [&'static str],
    /// Further names of the first output, which tells by its name what to be.
    pub(super) links: &'static [&'static str],
    /// Go's build tags.
    pub(super) tags: &'static str,
    /// The linker's flags.
    pub(super) ldflags: &'static str,
    /// Whether it needs the C compiler and libseccomp.
    pub(super) cgo: bool,
}

/// The versions in the linker's flags are those of the `go.mod` files: without
/// them the programs do not know their own.
const KUBERNETES: Recipe = Recipe {
    source: "kubernetes",
    packages: &["."],
    outputs: &["kube"],
    links: &[
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kubectl",
    ],
    tags: "",
    ldflags: "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3",
    cgo: false,
};

const REGISTRY: Recipe = Recipe {
    source: "registry",
    packages: &["."],
    outputs: &["registry"],
    links: &[],
    tags: "",
    ldflags: "-s -w",
    cgo: false,
};

const CONTAINERD: Recipe = Recipe {
    source: "containerd",
    packages: &[
        "github.com/containerd/containerd/v2/cmd/containerd",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        "github.com/containerd/containerd/v2/cmd/ctr",
    ],
    outputs: &["containerd", "containerd-shim-runc-v2", "ctr"],
    links: &[],
    tags: "no_btrfs no_devmapper no_zfs",
    ldflags: "-s -w -X github.com/containerd/containerd/v2/version.Version=2.3.7",
    cgo: false,
};

const RUNC: Recipe = Recipe {
    source: "runc",
    packages: &["github.com/opencontainers/runc"],
    outputs: &["runc"],
    links: &[],
    tags: "seccomp netgo osusergo",
    ldflags: "-s -w -extldflags -static",
    cgo: true,
};

const CNI: Recipe = Recipe {
    source: "cni",
    packages: &[
        "github.com/containernetworking/plugins/plugins/main/bridge",
        "github.com/containernetworking/plugins/plugins/main/loopback",
        "github.com/containernetworking/plugins/plugins/ipam/host-local",
    ],
    outputs: &["cni/bridge", "cni/loopback", "cni/host-local"],
    links: &[],
    tags: "",
    ldflags: "-s -w",
    cgo: false,
};

const WORKLOAD: Recipe = Recipe {
    source: "workload",
    packages: &["./pause", "./web"],
    outputs: &["workload/pause", "workload/web"],
    links: &[],
    tags: "",
    ldflags: "-s -w",
    cgo: false,
};

const COLLECTOR: Recipe = Recipe {
    source: "collector",
    packages: &["."],
    outputs: &["collector"],
    links: &[],
    tags: "",
    ldflags: "-s -w -X main.version=0.128.0",
    cgo: false,
};

const LINT: Recipe = Recipe {
    source: "lint",
    packages: &[
        "github.com/rhysd/actionlint/cmd/actionlint",
        "github.com/zegl/kube-score/cmd/kube-score",
    ],
    outputs: &["lint/actionlint", "lint/kube-score"],
    links: &[],
    tags: "",
    ldflags: "-s -w",
    cgo: false,
};

impl Recipe {
    /// Every name that must be in `bin`.
    pub(super) fn programs(&self) -> impl Iterator<Item = &'static str> {
        self.outputs.iter().chain(self.links).copied()
    }

    /// What must be the same for a build to be the same.
    pub(super) fn key(&self, compiler: &str) -> Result<String> {
        let mut key = Sha256::new();
        for text in [compiler, self.tags, self.ldflags, std::env::consts::ARCH]
            .iter()
            .chain(self.packages)
        {
            key.update(text);
            key.update([0]);
        }
        let root = paths::part_sources().join(self.source);
        for entry in WalkDir::new(&root).sort_by_file_name() {
            let entry = entry.context("cannot read the sources of a part")?;
            if entry.file_type().is_file() {
                let content = fs::read(entry.path())?;
                key.update(
                    entry
                        .path()
                        .strip_prefix(&root)?
                        .as_os_str()
                        .as_encoded_bytes(),
                );
                key.update(u64::try_from(content.len())?.to_le_bytes());
                key.update(content);
            }
        }
        Ok(base16ct::lower::encode_string(&key.finalize()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_the_compiler_and_the_part() {
        let key = |part: Part, compiler| part.recipe().key(compiler).unwrap();
        assert_eq!(key(Part::Cni, "go1"), key(Part::Cni, "go1"));
        assert_ne!(key(Part::Cni, "go1"), key(Part::Cni, "go2"));
        assert_ne!(key(Part::Cni, "go1"), key(Part::Runc, "go1"));
    }

    #[test]
    fn the_versions_in_the_flags_are_those_of_the_modules() {
        let module = |part: Part| {
            fs::read_to_string(
                paths::part_sources()
                    .join(part.recipe().source)
                    .join("go.mod"),
            )
            .unwrap()
        };
        let version = |part: Part| part.recipe().ldflags.rsplit_once('=').unwrap().1;
        for (part, wanted) in [
            (
                Part::Kubernetes,
                format!("k8s.io/kubernetes {}\n", version(Part::Kubernetes)),
            ),
            (
                Part::Containerd,
                format!("containerd/v2 v{}\n", version(Part::Containerd)),
            ),
            (
                Part::Collector,
                format!("collector/otelcol v{}\n", version(Part::Collector)),
            ),
        ] {
            assert!(
                module(part).contains(&wanted),
                "{part:?}: no `{wanted}` in go.mod"
            );
        }
    }
}
