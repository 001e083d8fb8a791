//! The content of a pull secret: which login a registry gets.
//!
//! Pure. Nothing here prints a login: neither `Debug` nor an error says more than host names, and
//! the words of the JSON parser, which quote what they could not read, are not passed on.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use oci_distribution::{Reference, secrets::RegistryAuth};
use serde::Deserialize;

/// Docker Hub under the names that logins are kept under.
const DOCKER_HUB: [&str; 3] = ["index.docker.io", "registry-1.docker.io", "docker.io"];

/// The logins of a `.dockerconfigjson`.
#[derive(Clone, PartialEq)]
pub struct DockerConfig {
    /// By `host[:port][/path]`.
    logins: BTreeMap<String, RegistryAuth>,
}

impl fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.logins.keys()).finish()
    }
}

#[derive(Deserialize)]
struct File {
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

impl DockerConfig {
    /// Reads the bytes of a `.dockerconfigjson`; the error says where it is broken.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let file: File = serde_json::from_slice(bytes).map_err(|error| {
            let kind = if error.is_data() {
                "has not the shape {\"auths\": {HOST: …}}"
            } else {
                "is not JSON"
            };
            format!(
                "it {kind} (line {}, column {})",
                error.line(),
                error.column()
            )
        })?;
        let login = |(host, entry): (String, Entry)| {
            let login = entry
                .login()
                .map_err(|error| format!("the login of {host} {error}"))?;
            Ok((scope(&host), login))
        };
        let logins = file
            .auths
            .into_iter()
            .map(login)
            .collect::<Result<_, String>>()?;
        Ok(Self { logins })
    }

    /// The login for an image: that of the longest `host/path` that it is under, as the hosts' own
    /// tools choose it; anonymous if there is none.
    #[must_use]
    pub fn login(&self, image: &Reference) -> RegistryAuth {
        let host = image.registry();
        let mut scope = scope(&format!("{host}/{}", image.repository()));
        loop {
            if let Some(login) = self.logins.get(&scope) {
                return login.clone();
            }
            match scope.rsplit_once('/') {
                Some((shorter, _)) => scope = shorter.to_owned(),
                None => return RegistryAuth::Anonymous,
            }
        }
    }
}

impl Entry {
    fn login(self) -> Result<RegistryAuth, &'static str> {
        let nonempty = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(auth) = nonempty(self.auth) {
            return basic(&auth).ok_or("is not the base64 of USER:PASSWORD");
        }
        match (nonempty(self.username), nonempty(self.password)) {
            (Some(user), Some(password)) => Ok(RegistryAuth::Basic(user, password)),
            (None, None) => Err("has neither `auth` nor `username` and `password`"),
            _ => Err("lacks its `username` or its `password`"),
        }
    }
}

fn basic(auth: &str) -> Option<RegistryAuth> {
    let bytes = STANDARD.decode(auth.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(RegistryAuth::Basic(
        user.to_owned(),
        password.trim_matches('\0').to_owned(),
    ))
}

/// `host[:port][/path]` of a key such as `https://index.docker.io/v1/`.
fn scope(key: &str) -> String {
    let bare = key
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .trim_end_matches('/');
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let host = if DOCKER_HUB.contains(&host) {
        "docker.io"
    } else {
        host
    };
    match path {
        "" | "v1" | "v2" => host.to_owned(),
        path => format!("{host}/{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(auths: &serde_json::Value) -> Result<DockerConfig, String> {
        DockerConfig::parse(json!({ "auths": auths }).to_string().as_bytes())
    }

    fn user(config: &DockerConfig, image: &str) -> Option<String> {
        match config.login(&image.parse().unwrap()) {
            RegistryAuth::Basic(user, password) => Some(format!("{user}:{password}")),
            _ => None,
        }
    }

    #[test]
    fn the_most_specific_login_is_taken() {
        let login = |name: &str| json!({"username": name, "password": "p:w"});
        let config = config(&json!({
            "quay.io": login("all"), "quay.io/fleet": login("fleet"), "quay.io/fleet/os": login("os"),
            "https://index.docker.io/v1/": login("hub"), "r.local:5000": login("local"),
            "http://plain.local/v2/": login("plain"),
        }))
        .unwrap();
        for (image, wanted) in [
            ("quay.io/fleet/os:v1", Some("os:p:w")),
            ("quay.io/fleet/os/arm:v1", Some("os:p:w")),
            ("quay.io/fleet/other:v1", Some("fleet:p:w")),
            ("quay.io/fleeting/os:v1", Some("all:p:w")),
            ("docker.io/library/x:v1", Some("hub:p:w")),
            ("r.local:5000/os:v1", Some("local:p:w")),
            ("r.local/os:v1", None),
            ("plain.local/os:v1", Some("plain:p:w")),
            ("ghcr.io/fleet/os:v1", None),
        ] {
            assert_eq!(user(&config, image).as_deref(), wanted, "{image}");
        }
    }

    #[test]
    fn a_login_is_read_from_its_base64() {
        let auth = STANDARD.encode("me:pass:word");
        let config = config(&json!({"quay.io": {"auth": auth, "email": "x"}})).unwrap();
        assert_eq!(
            user(&config, "quay.io/os:v1").as_deref(),
            Some("me:pass:word")
        );
    }

    #[test]
    fn errors_say_where_and_never_what() {
        let secret = "hunter2";
        let rows = [
            (
                format!("{{\"auths\": {secret}"),
                "it is not JSON (line 1, column 11)",
            ),
            (
                json!({"auths": secret}).to_string(),
                "it has not the shape {\"auths\": {HOST: …}} (line 1, column 18)",
            ),
            (
                json!({ secret: {} }).to_string(),
                "it has not the shape {\"auths\": {HOST: …}} (line 1, column 14)",
            ),
            (
                json!({"auths": {"q.io": {"auth": secret}}}).to_string(),
                "the login of q.io is not the base64 of USER:PASSWORD",
            ),
            (
                json!({"auths": {"q.io": {"auth": STANDARD.encode(secret)}}}).to_string(),
                "the login of q.io is not the base64 of USER:PASSWORD",
            ),
            (
                json!({"auths": {"q.io": {"password": secret}}}).to_string(),
                "the login of q.io lacks its `username` or its `password`",
            ),
            (
                json!({"auths": {"q.io": {"identitytoken": secret}}}).to_string(),
                "the login of q.io has neither `auth` nor `username` and `password`",
            ),
        ];
        for (text, wanted) in rows {
            let error = DockerConfig::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error, wanted);
            assert!(!error.contains(secret));
        }
    }

    #[test]
    fn debug_prints_hosts_alone() {
        let config =
            config(&json!({"q.io": {"username": "hunter1", "password": "hunter2"}})).unwrap();
        assert_eq!(format!("{config:?}"), "{\"q.io\"}");
    }
}
