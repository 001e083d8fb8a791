//! `BootcNodePool` and `BootcNode` as stored: types, limits, names. No decisions.
//!
//! The group, kinds and fields are those of the Go bootc-operator, so its manifests and
//! clients work unchanged; fields of ours are additions and marked as such. What the schema
//! can refuse, the API server refuses (see [`schema`]); a stored object that predates the
//! schema must still decode, so odd values become `Unknown` or a string and never an error
//! where that can be avoided.

pub mod amount;
pub mod api_server;
pub mod image;
pub mod names;
mod node;
mod pool;
pub mod schema;

pub use amount::{Amount, AmountError};
pub use image::{ImageRef, ImageRefError};
pub use node::{
    BootcNode, BootcNodeSpec, BootcNodeStatus, DeploymentId, DesiredImageState, ImageInfo,
    LastAttempt, Step,
};
pub use pool::{
    BootcNodePool, BootcNodePoolSpec, BootcNodePoolStatus, Disruption, PoolImage, RebootPolicy,
    Rollout, SecretRef,
};

use kube::CustomResourceExt as _;

/// Both CRDs as one YAML stream: what `cargo run -p crd` prints and `deploy/crd/crds.yaml` holds.
///
/// # Errors
/// Only if the serialiser fails, which would be a defect of this crate.
pub fn yaml() -> Result<String, serde_saphyr::ser::Error> {
    let mut stream = String::new();
    for crd in [BootcNodePool::crd(), BootcNode::crd()] {
        stream.push_str("---\n");
        stream.push_str(&serde_saphyr::to_string(&crd)?);
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    #[test]
    fn committed_yaml_is_the_printed_one() {
        let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/crd/crds.yaml");
        let on_disk = std::fs::read_to_string(committed).unwrap_or_default();
        assert!(
            on_disk == super::yaml().unwrap(),
            "deploy/crd/crds.yaml is stale; regenerate it: cargo run -p crd > deploy/crd/crds.yaml"
        );
    }
}
