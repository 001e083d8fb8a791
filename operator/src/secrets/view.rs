//! A pull secret on the wire: the one key in use, and nothing that prints it.

use std::fmt;

use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Resource;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{DockerConfig, Problem, SecretHash};

/// The type of a pull secret.
const TYPE: &str = "kubernetes.io/dockerconfigjson";

/// A Secret, as far as it is a pull secret.
#[derive(Resource, Clone, Deserialize)]
#[resource(inherit = Secret)]
pub(super) struct SecretView {
    metadata: ObjectMeta,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    data: DataView,
}

#[derive(Clone, Default, Deserialize)]
struct DataView {
    #[serde(rename = ".dockerconfigjson")]
    docker_config: Option<ByteString>,
}

/// Without its metadata too: the annotation of `kubectl apply` holds the whole content.
impl fmt::Debug for SecretView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretView").finish_non_exhaustive()
    }
}

impl SecretView {
    /// Its hash and content, or what is wrong with it.
    pub(super) fn read(&self) -> Result<(SecretHash, DockerConfig), Problem> {
        let kind = self.kind.as_deref().unwrap_or("Opaque");
        if kind != TYPE {
            return Err(Problem::WrongType {
                found: kind.to_owned(),
            });
        }
        let content = self.data.docker_config.as_ref();
        let content = content.ok_or_else(|| Problem::Malformed("it is missing".to_owned()))?;
        let config = DockerConfig::parse(&content.0).map_err(Problem::Malformed)?;
        Ok((hash(&content.0), config))
    }
}

fn hash(content: &[u8]) -> SecretHash {
    let halves = Sha256::digest(content)
        .into_iter()
        .flat_map(|byte| [byte >> 4, byte & 0xf]);
    SecretHash(
        halves
            .filter_map(|half| char::from_digit(half.into(), 16))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(kind: &str, content: Option<&[u8]>) -> Result<SecretHash, Problem> {
        view(kind, content).read().map(|(hash, _)| hash)
    }

    fn view(kind: &str, content: Option<&[u8]>) -> SecretView {
        let data: Value = match content {
            Some(bytes) => {
                json!({".dockerconfigjson": ByteString(bytes.to_vec()), "other": "eA=="})
            }
            None => json!({"other": "eA=="}),
        };
        let annotations = json!({"kubectl.kubernetes.io/last-applied-configuration": "hunter2"});
        let metadata = json!({"name": "a", "annotations": annotations});
        serde_json::from_value(json!({"metadata": metadata, "type": kind, "data": data})).unwrap()
    }

    #[test]
    fn the_hash_is_that_of_the_content() {
        let hash = read(TYPE, Some(br#"{"auths":{}}"#)).unwrap();
        let wanted = "ec21c035eccb78eb5ca20ec95628eb351633621e09a130ac8d7e663714d40c7a";
        assert_eq!(hash.0, wanted);
        assert_ne!(hash, read(TYPE, Some(br#"{"auths": {}}"#)).unwrap());
    }

    #[test]
    fn what_is_wrong_with_a_secret() {
        let other = read("Opaque", Some(br#"{"auths":{}}"#)).unwrap_err();
        assert_eq!(
            other,
            Problem::WrongType {
                found: "Opaque".to_owned()
            }
        );
        assert_eq!(
            read(TYPE, None).unwrap_err(),
            Problem::Malformed("it is missing".to_owned())
        );
        assert!(matches!(
            read(TYPE, Some(b"{")).unwrap_err(),
            Problem::Malformed(_)
        ));
    }

    #[test]
    fn debug_shows_nothing() {
        let view = view(
            TYPE,
            Some(br#"{"auths":{"q.io":{"username":"hunter2","password":"x"}}}"#),
        );
        assert_eq!(format!("{view:?}"), "SecretView { .. }");
    }
}
