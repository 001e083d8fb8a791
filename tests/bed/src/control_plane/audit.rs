//! What the API server's audit log says.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// The log's name in the control plane's directory: one event a line.
pub(crate) const LOG: &str = "audit.log";

/// An event of `audit.k8s.io/v1`: the fields that tests look at.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    /// `RequestReceived`, `ResponseStarted`, `ResponseComplete` or `Panic`.
    pub stage: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, …
    pub verb: String,
    /// The path with its query.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// Who asked.
    pub user: AuditUser,
    /// The client's own name.
    #[serde(default)]
    pub user_agent: String,
    /// What was asked for; absent for paths that are no resource.
    pub object_ref: Option<ObjectRef>,
    /// When it came in.
    #[serde(rename = "requestReceivedTimestamp")]
    pub request_received: k8s_openapi::jiff::Timestamp,
    /// The answer; absent in the first stage.
    pub response_status: Option<AuditStatus>,
    /// What authorizers and admission say of it, such as `authorization.k8s.io/decision`.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The body of the request, by the policy's level.
    #[serde(default)]
    pub request_object: serde_json::Value,
}

/// Who asked.
#[derive(Debug, Clone, Deserialize)]
pub struct AuditUser {
    /// Such as `system:serviceaccount:ns:name`.
    pub username: String,
}

/// What was asked for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectRef {
    /// Plural name.
    pub resource: String,
    /// Such as `status` or `eviction`.
    pub subresource: String,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    /// Empty for lists.
    pub name: String,
    /// Empty for the core group.
    pub api_group: String,
}

impl AuditEvent {
    /// The HTTP status of the answer, if there was one.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        self.response_status.as_ref()?.code
    }
}

/// The answer.
#[derive(Debug, Clone, Deserialize)]
pub struct AuditStatus {
    /// The HTTP status.
    pub code: Option<u16>,
}

/// Reads a log, in order; empty if there is none. A line that is being written has no end yet and is
/// left out.
pub fn read(log: &Path) -> Result<Vec<AuditEvent>> {
    let text = match fs::read_to_string(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.context("cannot read the audit log")?,
    };
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("no audit event: {line}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_an_end_waits() {
        let event = r#"{"stage":"ResponseComplete","verb":"get","requestURI":"/readyz","requestReceivedTimestamp":"2026-01-01T00:00:00.000001Z","user":{"username":"u"},"responseStatus":{"code":200}}"#;
        let log = tempfile::NamedTempFile::new().unwrap();
        fs::write(log.path(), format!("{event}\n{}", &event[..20])).unwrap();
        let events = read(log.path()).unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].code(), Some(200));
        assert!(read(Path::new("/nonexistent")).unwrap().is_empty());
    }
}
