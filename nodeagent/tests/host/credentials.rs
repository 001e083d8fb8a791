//! The registry's credentials on the host.

use std::fs;

use fsm::host::Auth;
use nodeagent::auth;
use serde_json::{Value, json};

use super::{host, played::PlayedHost};

fn auths(host: &PlayedHost) -> Value {
    let text = host.get("run/ostree/auth.json");
    serde_json::from_str::<Value>(&text).unwrap()["auths"].clone()
}

#[test]
fn credentials_lie_over_the_hosts_own() {
    use std::os::unix::fs::PermissionsExt as _;
    let played = host();
    let host = played.host();
    played.set(
        "etc/ostree/auth.json",
        r#"{"auths":{"a":1,"b":1},"credHelpers":{"c":"h"}}"#,
    );
    assert_eq!(auth::present(&host), Auth::Absent);
    auth::write(&host, br#"{"auths":{"b":2}}"#, "one").unwrap();
    assert_eq!(auth::present(&host), Auth::Written("one".into()));
    assert_eq!(auths(&played), json!({ "a": 1, "b": 2 }));
    assert!(played.get("run/ostree/auth.json").contains("credHelpers"));
    let mode = fs::metadata(played.path("run/ostree/auth.json"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    // A changed Secret replaces the old one's entries.
    auth::write(&host, br#"{"auths":{"d":3}}"#, "two").unwrap();
    assert_eq!(auths(&played), json!({ "a": 1, "b": 1, "d": 3 }));
    auth::remove(&host).unwrap();
    assert_eq!(auth::present(&host), Auth::Absent);
    assert!(!played.path("run/ostree/auth.json").exists());
    auth::remove(&host).unwrap();
}

#[test]
fn a_login_without_auth_gets_one() {
    let played = host();
    let host = played.host();
    let secret =
        br#"{"auths":{"r":{"username":"u","password":"p"},"s":{"auth":"x","username":"u"}}}"#;
    auth::write(&host, secret, "one").unwrap();
    let auths = auths(&played);
    assert_eq!(auths["r"]["auth"], "dTpw");
    assert_eq!(auths["s"]["auth"], "x");
}

#[test]
fn somebody_elses_credentials_come_back() {
    let played = host();
    let host = played.host();
    let theirs = r#"{"auths":{"theirs":1}}"#;
    played.set("run/ostree/auth.json", theirs);
    auth::write(&host, br#"{"auths":{"ours":2}}"#, "one").unwrap();
    auth::write(&host, br#"{"auths":{"ours":3}}"#, "two").unwrap();
    assert_eq!(auths(&played), json!({ "theirs": 1, "ours": 3 }));
    auth::remove(&host).unwrap();
    assert_eq!(played.get("run/ostree/auth.json"), theirs);
}

#[test]
fn malformed_credentials_are_refused_and_not_shown() {
    let played = host();
    let host = played.host();
    for bad in ["hunter2", "[]", "{}", r#"{"auths":"hunter2"}"#] {
        let error = auth::write(&host, bad.as_bytes(), "h")
            .unwrap_err()
            .to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
    played.set("etc/ostree/auth.json", "garbage");
    let error = auth::write(&host, br#"{"auths":{}}"#, "h").unwrap_err();
    assert!(
        error.to_string().contains("etc/ostree/auth.json"),
        "{error}"
    );
    assert_eq!(auth::present(&host), Auth::Absent);
}
