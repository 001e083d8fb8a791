//! A Kubernetes cluster of bootc hosts in namespaces, for tests.
//!
//! The parts are real: etcd and Kubernetes, a registry, containerd, runc and the
//! network plugins, all built from Go modules into `<target>/bed` ([`parts`]).

pub mod control_plane;
pub mod image;
pub mod parts;
pub mod paths;
pub mod process;
pub mod progress;
pub mod run_dir;
