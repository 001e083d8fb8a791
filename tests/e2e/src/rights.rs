//! Least privilege, judged by the API server's audit log: what operator and agent asked for in the
//! clusters of this run, beside what `deploy/` grants them.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use bed::control_plane::{AuditEvent, audit};
use crd::names;
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};
use serde::Deserialize;

/// The answer to a request that no right allows, or that a policy denies.
const FORBIDDEN: u16 = 403;
/// In the audit log, what the authorizers have made of a request.
const DECISION: &str = "authorization.k8s.io/decision";

/// All that the clusters of this process have logged so far.
static NOTED: Mutex<Noted> = Mutex::new(Noted::new());

/// A request for something, without what was asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    user: String,
    verb: String,
    group: String,
    /// `resource` or `resource/subresource`
    resource: String,
    namespace: String,
    name: String,
}

/// What was logged.
#[derive(Debug, Default)]
pub struct Noted {
    asked: BTreeSet<Asked>,
    refused: BTreeSet<Refused>,
}

/// A request that was refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Refused {
    asked: Asked,
    uri: String,
    /// For want of a right, and not by a policy.
    unauthorized: bool,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Asked { user, verb, .. } = &self.asked;
        write!(f, "{user} may not {verb} {}", self.uri)
    }
}

/// A right that a role grants: one verb on one resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// The service account that has it.
    pub account: String,
    /// `get`, `list`, …
    pub verb: String,
    /// Empty: the core group.
    pub group: String,
    /// `resource` or `resource/subresource`
    pub resource: String,
    /// Where; `None`: everywhere.
    pub namespace: Option<String>,
    /// On which objects; empty: on all.
    pub names: Vec<String>,
}

impl Right {
    fn allows(&self, asked: &Asked) -> bool {
        let there = self.namespace.as_ref();
        asked.user == self.account
            && asked.verb == self.verb
            && asked.group == self.group
            && asked.resource == self.resource
            && there.is_none_or(|it| *it == asked.namespace)
            && (self.names.is_empty() || self.names.contains(&asked.name))
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let account = self.account.rsplit(':').next().unwrap_or_default();
        write!(f, "{account}: {} {}", self.verb, self.resource)
    }
}

/// An object of `install.yaml`, as far as it is about rights.
#[derive(Deserialize)]
struct Manifest {
    kind: String,
    metadata: Metadata,
    #[serde(default)]
    rules: Vec<PolicyRule>,
    #[serde(rename = "roleRef")]
    role: Option<RoleRef>,
    #[serde(default)]
    subjects: Vec<Subject>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    namespace: Option<String>,
}

impl Noted {
    const fn new() -> Self {
        Self {
            asked: BTreeSet::new(),
            refused: BTreeSet::new(),
        }
    }

    fn add(&mut self, event: &AuditEvent) {
        let Some(object) = &event.object_ref else {
            return;
        };
        let parts = [object.resource.as_str(), object.subresource.as_str()];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        let asked = Asked {
            user: event.user.username.clone(),
            verb: event.verb.clone(),
            group: object.api_group.clone(),
            resource: parts.collect::<Vec<_>>().join("/"),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
        };
        let code = event.code();
        if code == Some(FORBIDDEN) {
            self.refused.insert(Refused {
                asked,
                uri: event.request_uri.clone(),
                unauthorized: event
                    .annotations
                    .get(DECISION)
                    .is_some_and(|it| it == "forbid"),
            });
        } else {
            self.asked.insert(asked);
        }
    }

    fn uses(&self, right: &Right) -> bool {
        self.asked.iter().any(|asked| right.allows(asked))
    }

    /// Complains of what was refused, of rights that nothing used but for the `exceptions` (each as
    /// [`Right`] is shown, with its reason), and of exceptions that are granted to nobody.
    pub fn check(&self, rights: &[Right], exceptions: &[(&str, &str)]) -> Result<()> {
        // An API server that has just started refuses what it has not read the roles of yet.
        let too_early = |refused: &&Refused| {
            refused.unauthorized && rights.iter().any(|right| right.allows(&refused.asked))
        };
        let missed = self.refused.iter().filter(|it| !too_early(it));
        let missed: BTreeSet<String> = missed.map(ToString::to_string).collect();
        ensure!(
            missed.is_empty(),
            "refused: {missed:#?}; grant it in deploy/ or do not ask for it",
        );
        let excepted = |right: &Right| exceptions.iter().any(|(it, _)| *it == right.to_string());
        let idle: BTreeSet<String> = rights
            .iter()
            .filter(|right| !self.uses(right) && !excepted(right))
            .map(ToString::to_string)
            .collect();
        ensure!(
            idle.is_empty(),
            "granted and never used: {idle:#?}; take them out of deploy/"
        );
        for (exception, _) in exceptions {
            let granted = rights.iter().any(|right| right.to_string() == *exception);
            ensure!(
                granted,
                "`{exception}` is granted to nobody: no exception is needed"
            );
        }
        Ok(())
    }
}

/// Adds the audit log of a cluster that is about to go.
pub(crate) fn note(log: &Path) -> Result<()> {
    let events = audit::read(log)?;
    let ours = [
        user(names::NAMESPACE_OPERATOR, names::SERVICE_ACCOUNT_OPERATOR),
        user(names::NAMESPACE_AGENT, names::SERVICE_ACCOUNT_AGENT),
    ];
    let mut noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner);
    for event in events {
        if ours.contains(&event.user.username) {
            noted.add(&event);
        }
    }
    Ok(())
}

/// Compares all that was noted with the rights in a rendered manifest.
pub fn check(install_yaml: &str, exceptions: &[(&str, &str)]) -> Result<()> {
    let rights = granted(install_yaml)?;
    let noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner);
    noted.check(&rights, exceptions)
}

/// Every right that the roles in a rendered manifest grant, one by one.
pub fn granted(install_yaml: &str) -> Result<Vec<Right>> {
    let all: Vec<serde_json::Value> =
        serde_saphyr::from_multiple(install_yaml).context("install.yaml is no YAML")?;
    let is_rbac = |kind: &str| kind.ends_with("Role") || kind.ends_with("RoleBinding");
    let manifests = all
        .into_iter()
        .filter(|object| object["kind"].as_str().is_some_and(is_rbac))
        .map(|object| serde_json::from_value(object).context("no role or binding"))
        .collect::<Result<Vec<Manifest>>>()?;
    let mut rights = BTreeSet::new();
    for binding in &manifests {
        let Some(reference) = &binding.role else {
            continue;
        };
        let found = manifests.iter().find(|role| {
            role.kind == reference.kind
                && role.metadata.name == reference.name
                && (role.kind == "ClusterRole"
                    || role.metadata.namespace == binding.metadata.namespace)
        });
        let role =
            found.with_context(|| format!("{} {} is bound", reference.kind, reference.name))?;
        for subject in &binding.subjects {
            let namespace = subject.namespace.as_deref().unwrap_or_default();
            let account = user(namespace, &subject.name);
            rights.extend(expand(role, &account, binding.metadata.namespace.as_ref()));
        }
    }
    Ok(rights.into_iter().collect())
}

fn expand(role: &Manifest, account: &str, namespace: Option<&String>) -> Vec<Right> {
    let mut rights = Vec::new();
    for rule in &role.rules {
        let groups = rule.api_groups.iter().flatten();
        for group in groups {
            for resource in rule.resources.iter().flatten() {
                rights.extend(rule.verbs.iter().map(|verb| Right {
                    account: account.to_owned(),
                    verb: verb.clone(),
                    group: group.clone(),
                    resource: resource.clone(),
                    namespace: namespace.cloned(),
                    names: rule.resource_names.clone().unwrap_or_default(),
                }));
            }
        }
    }
    rights
}

fn user(namespace: &str, account: &str) -> String {
    format!("system:serviceaccount:{namespace}:{account}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const YAML: &str = "
kind: ClusterRole
metadata: { name: all }
rules:
- { apiGroups: [''], resources: [nodes], verbs: [list, patch] }
---
kind: ClusterRoleBinding
metadata: { name: all }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: all }
subjects: [{ kind: ServiceAccount, name: one, namespace: here }]
---
kind: Role
metadata: { name: lease, namespace: here }
rules:
- { apiGroups: [coordination.k8s.io], resources: [leases], resourceNames: [ours], verbs: [get] }
---
kind: RoleBinding
metadata: { name: lease, namespace: here }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: lease }
subjects: [{ kind: ServiceAccount, name: one, namespace: here }]
---
kind: Namespace
metadata: { name: here }
";

    fn noted(requests: &[(&str, &str, &str, &str, &str, u16)]) -> Noted {
        let mut noted = Noted::default();
        for (verb, group, resource, namespace, name, code) in requests {
            let event = json!({
                "stage": "ResponseComplete", "verb": verb, "requestURI": format!("/{resource}/{name}"),
                "requestReceivedTimestamp": "2026-01-01T00:00:00Z",
                "user": { "username": "system:serviceaccount:here:one" },
                "objectRef": { "resource": resource, "namespace": namespace, "name": name, "apiGroup": group },
                "responseStatus": { "code": code },
            });
            noted.add(&serde_json::from_value(event).unwrap());
        }
        noted
    }

    const LIST: (&str, &str, &str, &str, &str, u16) = ("list", "", "nodes", "", "", 200);
    const PATCH: (&str, &str, &str, &str, &str, u16) = ("patch", "", "nodes", "", "n1", 409);
    const LEASE: (&str, &str, &str, &str, &str, u16) =
        ("get", "coordination.k8s.io", "leases", "here", "ours", 200);

    #[test]
    fn a_run_that_uses_every_right_is_content() {
        let rights = granted(YAML).unwrap();
        assert_eq!(rights.len(), 3);
        noted(&[LIST, PATCH, LEASE]).check(&rights, &[]).unwrap();
    }

    #[test]
    fn a_right_that_nothing_uses_is_told() {
        let rights = granted(YAML).unwrap();
        let other = ("get", "coordination.k8s.io", "leases", "there", "ours", 200);
        let told = noted(&[LIST, PATCH, other]).check(&rights, &[]);
        assert!(told.unwrap_err().to_string().contains("one: get leases"));
        let excepted = [("one: get leases", "for a reason")];
        noted(&[LIST, PATCH]).check(&rights, &excepted).unwrap();
        let nobodys = [("one: delete leases", "for no reason")];
        let told = noted(&[LIST, PATCH, LEASE]).check(&rights, &nobodys);
        assert!(told.unwrap_err().to_string().contains("no exception"));
    }

    #[test]
    fn an_api_server_that_has_not_read_its_roles_yet_refuses_what_is_granted() {
        let rights = granted(YAML).unwrap();
        let refused = ("patch", "", "nodes", "", "n2", 403);
        let mut noted = noted(&[LIST, PATCH, LEASE, refused]);
        let told = noted.check(&rights, &[]).unwrap_err().to_string();
        assert!(told.contains("may not patch"), "by a policy: {told}");
        let all = std::mem::take(&mut noted.refused).into_iter();
        noted.refused = all
            .map(|it| Refused {
                unauthorized: true,
                ..it
            })
            .collect();
        noted.check(&rights, &[]).unwrap();
    }

    #[test]
    fn a_refusal_is_told() {
        let refused = ("delete", "", "nodes", "", "n1", 403);
        let told = noted(&[LIST, PATCH, LEASE, refused]).check(&granted(YAML).unwrap(), &[]);
        let told = told.unwrap_err().to_string();
        assert!(told.contains("may not delete /nodes/n1"), "{told}");
    }
}
