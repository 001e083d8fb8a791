//! The registry credentials on the host: `/run/ostree/auth.json`.
//!
//! bootc reads only the first file that exists, so ours would hide the host's own
//! `/etc/ostree/auth.json`: the Secret's entries are laid over it. A file of somebody else's at our
//! place is kept aside and comes back when ours goes. A marker beside it says which Secret ours was
//! made of; both are in `/run` and gone after a reboot.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use fsm::host::Auth;
use serde_json::{Map, Value};

use crate::host::Host;

const FILE: &str = "run/ostree/auth.json";
/// The files that bootc would read without ours, in its order.
const HOSTS_OWN: [&str; 2] = ["etc/ostree/auth.json", "usr/lib/ostree/auth.json"];
/// Which Secret our file was made of.
const MARKER: &str = "run/bootc-operator/auth-of";
/// What was at our place before.
const ASIDE: &str = "run/bootc-operator/auth-before.json";

/// Why credentials could not be put on the host. Never shows their content.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The Secret's content is not what a registry client understands.
    #[error("its .dockerconfigjson is not a JSON object with auths")]
    Malformed,
    /// The host's own file is not.
    #[error("the host's own {0} is not a JSON object; correct or remove it")]
    HostsOwn(&'static str),
    /// Reading or writing failed.
    #[error("{path} on the host: {cause}")]
    File {
        /// Which file.
        path: &'static str,
        /// What went wrong.
        cause: io::Error,
    },
}

/// Which credentials of ours are there?
#[must_use]
pub fn present(host: &Host) -> Auth {
    match fs::read_to_string(host.path(MARKER)) {
        Ok(hash) if host.path(FILE).exists() => Auth::Written(hash.trim().to_owned()),
        _ => Auth::Absent,
    }
}

/// Puts the Secret's credentials on the host.
///
/// # Errors
/// If they or the host's own are malformed, or a file cannot be written.
pub fn write(host: &Host, dockerconfigjson: &[u8], hash: &str) -> Result<(), AuthError> {
    let secret = object(dockerconfigjson).ok_or(AuthError::Malformed)?;
    let auths = secret.get("auths").and_then(Value::as_object);
    let mut auths = auths.ok_or(AuthError::Malformed)?.clone();
    auths.values_mut().for_each(complete);
    if present(host) == Auth::Absent && host.path(FILE).exists() {
        put_aside(host)?;
    }
    let mut merged = beneath(host)?;
    let entries = merged
        .entry("auths")
        .or_insert_with(|| Value::Object(Map::new()));
    match entries.as_object_mut() {
        Some(entries) => entries.extend(auths),
        None => *entries = Value::Object(auths),
    }
    let text = Value::Object(merged).to_string();
    // The marker first: a crash between the two must not leave a file of ours that looks foreign.
    replace(host, MARKER, hash.as_bytes())?;
    replace(host, FILE, text.as_bytes())
}

/// A Secret may hold a login as `username` and `password` alone; the tools of the host read only
/// `auth`.
fn complete(login: &mut Value) {
    let Some(login) = login.as_object_mut().filter(|it| !it.contains_key("auth")) else {
        return;
    };
    let text = |key: &str| login.get(key).and_then(Value::as_str);
    if let (Some(user), Some(password)) = (text("username"), text("password")) {
        let auth = BASE64_STANDARD.encode(format!("{user}:{password}"));
        login.insert("auth".to_owned(), Value::String(auth));
    }
}

/// Takes ours off again.
///
/// # Errors
/// If a file cannot be moved or removed.
pub fn remove(host: &Host) -> Result<(), AuthError> {
    let back = fs::rename(host.path(ASIDE), host.path(FILE));
    if back.is_err() {
        remove_file(host, FILE)?;
    }
    remove_file(host, MARKER)
}

/// What lies beneath ours: somebody's file that was there before, else the host's own.
fn beneath(host: &Host) -> Result<Map<String, Value>, AuthError> {
    for path in [ASIDE].into_iter().chain(HOSTS_OWN) {
        match fs::read(host.path(path)) {
            Ok(text) => return object(&text).ok_or(AuthError::HostsOwn(path)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(AuthError::File { path, cause }),
        }
    }
    Ok(Map::new())
}

fn object(text: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice(text) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}

fn put_aside(host: &Host) -> Result<(), AuthError> {
    let failed = |cause| AuthError::File { path: FILE, cause };
    let text = fs::read(host.path(FILE)).map_err(failed)?;
    replace(host, ASIDE, &text)
}

fn remove_file(host: &Host, path: &'static str) -> Result<(), AuthError> {
    match fs::remove_file(host.path(path)) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(AuthError::File { path, cause })
        }
        _ => Ok(()),
    }
}

/// Replaces a file as a whole; only root may read it.
fn replace(host: &Host, path: &'static str, text: &[u8]) -> Result<(), AuthError> {
    let write = |target: &Path| {
        if let Some(folder) = target.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(folder)?;
        }
        let temporary = target.with_extension("bootc-operator-new");
        remove_stale(&temporary)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(text)?;
        fs::rename(&temporary, target)
    };
    write(&host.path(path)).map_err(|cause| AuthError::File { path, cause })
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}
