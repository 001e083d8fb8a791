//! A Kubernetes cluster of bootc hosts in namespaces, for tests.
//!
//! The parts are real: etcd and Kubernetes, a registry, containerd, runc and the
//! network plugins, all built from Go modules into `<target>/bed` ([`parts`]).

pub mod bink;
pub mod cargo;
pub mod cluster;
pub mod collector;
pub mod control_plane;
pub mod detached;
pub mod image;
pub mod owner;
pub mod parts;
pub mod paths;
pub mod preflight;
pub mod process;
pub mod progress;
pub mod prometheus;
pub mod registry;
pub mod run_dir;
pub mod wait;
