//! The host's own settings for registries: credentials, insecure registries,
//! certificates and the signature policy, read as containers/image reads them.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use oci_spec::distribution::Reference;
use serde::Deserialize;
use serde_json::Value;

use crate::host::Host;
use crate::origin::{ImageRef, Signature};
use crate::registry::Access;

/// bootc's own auth files; the first that exists wins whole.
const AUTH_FILES: [&str; 3] = [
    "run/ostree/auth.json",
    "etc/ostree/auth.json",
    "usr/lib/ostree/auth.json",
];

const POLICY_FILES: [&str; 2] = [
    "root/.config/containers/policy.json",
    "etc/containers/policy.json",
];

#[derive(Debug, Default, Deserialize)]
struct RegistriesConf {
    #[serde(default)]
    registry: Vec<RegistryConf>,
}

#[derive(Debug, Deserialize)]
struct RegistryConf {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
}

/// How this host may reach the registry of `reference`.
pub(crate) fn access(host: &Host, reference: &Reference) -> Result<Access> {
    Ok(Access {
        endpoint: None,
        insecure: is_insecure(host, reference)?,
        authorization: authorization(host, reference)?,
        roots: certificates(host, reference.registry()),
    })
}

/// Whether the host's policy lets `image` in at all.
pub(crate) fn check_policy(host: &Host, image: &ImageRef) -> Result<()> {
    let Some(path) = POLICY_FILES
        .map(|f| host.path(f))
        .into_iter()
        .find(|p| p.exists())
    else {
        bail!(
            "failed to invoke method OpenImage: no policy.json file found at any of the following: \
             \"/root/.config/containers/policy.json\", \"/etc/containers/policy.json\""
        );
    };
    let policy: Value = read_json(&path)?;
    let default = policy
        .pointer("/default")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let kinds: Vec<_> = default
        .iter()
        .filter_map(|r| r.get("type").and_then(Value::as_str))
        .collect();
    if image.signature == Some(Signature::ContainerPolicy) && kinds == ["insecureAcceptAnything"] {
        bail!(
            "containers-policy.json specifies a default of `insecureAcceptAnything`; refusing usage"
        );
    }
    let scopes = policy
        .pointer("/transports/docker")
        .and_then(Value::as_object);
    let rule_of_scope =
        scopes.and_then(|s| s.iter().find(|(scope, _)| within(&image.image, scope)));
    let kinds = match rule_of_scope.and_then(|(_, rules)| rules.as_array()) {
        Some(rules) => rules
            .iter()
            .filter_map(|r| r.get("type").and_then(Value::as_str))
            .collect(),
        None => kinds,
    };
    if kinds.contains(&"reject") {
        bail!(
            "failed to invoke method OpenImage: Running image docker://{} is rejected by policy.",
            image.image
        );
    }
    Ok(())
}

fn authorization(host: &Host, reference: &Reference) -> Result<Option<String>> {
    let Some(path) = AUTH_FILES
        .map(|f| host.path(f))
        .into_iter()
        .find(|p| p.exists())
    else {
        return Ok(None);
    };
    // skopeo gets the file's content through a descriptor and names that in its errors.
    let file: Value = read_json(&path).map_err(|e| {
        let cause = e.root_cause();
        anyhow!(
            "failed to invoke method OpenImage: getting username and password: reading JSON file \
             \"/proc/self/fd/100\": unmarshaling JSON at \"/proc/self/fd/100\": {cause}"
        )
    })?;
    let auths = file.get("auths").and_then(Value::as_object);
    let name = format!("{}/{}", reference.registry(), reference.repository());
    let mut fitting: Vec<_> = auths
        .into_iter()
        .flatten()
        .filter(|(scope, _)| within(&name, scope))
        .collect();
    fitting.sort_by_key(|(scope, _)| scope.len());
    let auth = fitting
        .last()
        .and_then(|(_, entry)| entry.get("auth"))
        .and_then(Value::as_str);
    let Some(auth) = auth.filter(|a| !a.is_empty()) else {
        return Ok(None);
    };
    STANDARD
        .decode(auth)
        .context("failed to invoke method OpenImage: getting username and password")?;
    Ok(Some(format!("Basic {auth}")))
}

fn is_insecure(host: &Host, reference: &Reference) -> Result<bool> {
    let name = format!("{}/{}", reference.registry(), reference.repository());
    let mut insecure = false;
    for path in registries_files(host)? {
        let text =
            fs::read_to_string(&path).with_context(|| format!("Reading {}", path.display()))?;
        let conf: RegistriesConf =
            toml::from_str(&text).with_context(|| format!("loading {}", path.display()))?;
        for registry in conf.registry {
            let scope = registry.prefix.or(registry.location);
            if scope.is_some_and(|s| within(&name, &s)) {
                insecure = registry.insecure;
            }
        }
    }
    Ok(insecure)
}

/// The main file, then the drop-ins in the order of their names.
fn registries_files(host: &Host) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if let Ok(dir) = fs::read_dir(host.path("etc/containers/registries.conf.d")) {
        for entry in dir {
            files.push(entry?.path());
        }
    }
    files.retain(|p| p.extension().is_some_and(|e| e == "conf"));
    files.sort();
    files.insert(0, host.path("etc/containers/registries.conf"));
    files.retain(|p| p.exists());
    Ok(files)
}

/// The system's certificates and those that the host trusts for this registry only.
fn certificates(host: &Host, registry: &str) -> Vec<u8> {
    let mut pem = fs::read(host.path("etc/ssl/certs/ca-certificates.crt")).unwrap_or_default();
    let own = host.path(&format!("etc/containers/certs.d/{registry}"));
    for entry in fs::read_dir(own).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|e| e == "crt") {
            pem.extend(fs::read(entry.path()).unwrap_or_default());
            pem.push(b'\n');
        }
    }
    pem
}

fn read_json(path: &std::path::Path) -> Result<Value> {
    let text = fs::read(path).with_context(|| format!("Reading {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("Parsing {}", path.display()))
}

/// Whether `scope` (a host, or a host and a path) covers the image `name`.
fn within(name: &str, scope: &str) -> bool {
    let rest = name.strip_prefix(scope);
    rest.is_some_and(|r| r.is_empty() || r.starts_with(['/', ':', '@']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pull::parse;

    fn host() -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path().to_owned());
        (dir, host)
    }

    fn write(host: &Host, path: &str, text: &str) {
        let path = host.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_first_auth_file_wins_whole() {
        let (_dir, host) = host();
        let os = parse("r:5000/os:a").unwrap();
        assert_eq!(authorization(&host, &os).unwrap(), None);
        write(
            &host,
            "etc/ostree/auth.json",
            r#"{"auths":{"r:5000":{"auth":"YTpi"}}}"#,
        );
        assert_eq!(
            authorization(&host, &os).unwrap().as_deref(),
            Some("Basic YTpi")
        );
        write(&host, "run/ostree/auth.json", "{}");
        assert_eq!(authorization(&host, &os).unwrap(), None);
        write(
            &host,
            "run/ostree/auth.json",
            r#"{"auths":{"r:5000":{"auth":"YTpi"},"r:5000/os":{"auth":"Yzpk"}}}"#,
        );
        assert_eq!(
            authorization(&host, &os).unwrap().as_deref(),
            Some("Basic Yzpk")
        );
        write(&host, "run/ostree/auth.json", "garbage");
        let error = format!("{:#}", authorization(&host, &os).unwrap_err());
        assert!(
            error.contains("unmarshaling JSON at \"/proc/self/fd/100\""),
            "{error}"
        );
    }

    #[test]
    fn only_marked_registries_are_insecure() {
        let (_dir, host) = host();
        write(
            &host,
            "etc/containers/registries.conf.d/50-bed.conf",
            "[[registry]]\nlocation = \"r:5000\"\ninsecure = true\n",
        );
        assert!(is_insecure(&host, &parse("r:5000/os:a").unwrap()).unwrap());
        assert!(!is_insecure(&host, &parse("r:50001/os:a").unwrap()).unwrap());
        write(
            &host,
            "etc/containers/registries.conf.d/60-own.conf",
            "[[registry]]\nprefix = \"r:5000/os\"\nlocation = \"r:5000/os\"\n",
        );
        assert!(!is_insecure(&host, &parse("r:5000/os:a").unwrap()).unwrap());
        assert!(is_insecure(&host, &parse("r:5000/other:a").unwrap()).unwrap());
    }

    #[test]
    fn policy_rejects_by_default_or_scope() {
        let (_dir, host) = host();
        let image = ImageRef::registry("r:5000/os:a");
        let signed = ImageRef {
            signature: Some(Signature::ContainerPolicy),
            ..image.clone()
        };
        let refusal = |image: &ImageRef| format!("{:#}", check_policy(&host, image).unwrap_err());
        assert!(refusal(&image).contains("no policy.json file found"));
        write(
            &host,
            "etc/containers/policy.json",
            r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
        );
        check_policy(&host, &image).unwrap();
        assert!(refusal(&signed).contains("refusing usage"));
        write(
            &host,
            "etc/containers/policy.json",
            r#"{"default":[{"type":"reject"}]}"#,
        );
        assert!(
            refusal(&image).ends_with("Running image docker://r:5000/os:a is rejected by policy.")
        );
        write(
            &host,
            "etc/containers/policy.json",
            r#"{"default":[{"type":"reject"}],"transports":{"docker":{"r:5000":[{"type":"insecureAcceptAnything"}]}}}"#,
        );
        check_policy(&host, &image).unwrap();
        check_policy(&host, &signed).unwrap();
    }
}
