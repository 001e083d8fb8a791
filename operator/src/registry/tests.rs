//! Against a registry of canned answers on the loopback address: what real ones rarely do.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;

const TAG_HEAD: &str = "HEAD /v2/fleet/os/manifests/v1";
const TAG_GET: &str = "GET /v2/fleet/os/manifests/v1";

/// A registry that answers a request line with what is written down for it, and 404 otherwise.
struct Canned {
    host: String,
    seen: Arc<Mutex<Vec<String>>>,
}

/// An answer without a body: its status line and headers.
fn head(status: &str, headers: &[&str]) -> String {
    let lines = [
        &[status],
        headers,
        &["content-length: 0", "connection: close", "", ""],
    ]
    .concat();
    format!("HTTP/1.1 {}", lines.join("\r\n"))
}

fn body(status: &str, text: &str) -> String {
    let length = text.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}")
}

fn digest(digit: char) -> String {
    format!("sha256:{}", String::from(digit).repeat(64))
}

impl Canned {
    async fn start(answers: Vec<(&'static str, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, own) = (seen.clone(), host.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answers.clone(), log.clone(), own.clone()));
            }
        });
        Self { host, seen }
    }

    /// The requests so far, without those of TLS.
    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    async fn resolve(
        &self,
        resolver: &Resolver,
        logins: Option<&DockerConfig>,
    ) -> Result<String, ResolveError> {
        resolver
            .resolve(&format!("{}/fleet/os:v1", self.host), logins)
            .await
    }

    fn login(&self, user: &str, password: &str) -> DockerConfig {
        let text =
            serde_json::json!({"auths": {&self.host: {"username": user, "password": password}}});
        DockerConfig::parse(text.to_string().as_bytes()).unwrap()
    }
}

async fn serve(
    mut stream: TcpStream,
    answers: Vec<(&'static str, String)>,
    log: Arc<Mutex<Vec<String>>>,
    host: String,
) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) if request.is_empty() && byte == 0x16 => return, // a TLS handshake: hang up
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let line = request
        .split(" HTTP/")
        .next()
        .unwrap_or_default()
        .to_owned();
    let basic = request
        .lines()
        .find(|line| line.to_lowercase().starts_with("authorization:"));
    log.lock().unwrap().push(match basic {
        Some(login) => format!("{line} {}", login.split_once(' ').unwrap().1),
        None => line.clone(),
    });
    let answer = answers
        .iter()
        .find(|(start, _)| line.starts_with(start))
        .map(|(_, answer)| answer.as_str());
    let answer = answer.map_or_else(
        || head("404 Not Found", &[]),
        |answer| answer.replace("HOST", &host),
    );
    if answer == "hang" {
        std::future::pending::<()>().await;
    }
    let _client_may_be_gone = stream.write_all(answer.as_bytes()).await;
}

fn plain_http() -> Resolver {
    Resolver::new(true)
}

fn ok(digest: &str) -> String {
    head("200 OK", &[&format!("Docker-Content-Digest: {digest}")])
}

#[tokio::test]
async fn the_head_of_the_tag_is_all_that_is_asked_for() {
    let registry = Canned::start(vec![
        ("GET /v2/", head("200 OK", &[])),
        (TAG_HEAD, ok(&digest('a'))),
    ])
    .await;
    assert_eq!(registry.resolve(&plain_http(), None).await, Ok(digest('a')));
    assert_eq!(registry.seen(), ["GET /v2/", TAG_HEAD]);
}

#[tokio::test]
async fn a_registry_without_head_is_asked_for_the_manifest() {
    let manifest = body("200 OK", "{}");
    for refusal in [head("405 Method Not Allowed", &[]), head("200 OK", &[])] {
        let registry = Canned::start(vec![(TAG_HEAD, refusal), (TAG_GET, manifest.clone())]).await;
        let wanted = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        assert_eq!(
            registry.resolve(&plain_http(), None).await.as_deref(),
            Ok(wanted)
        );
    }
}

#[tokio::test]
async fn a_login_is_sent_where_the_registry_asks_for_one() {
    let challenge = head("401 Unauthorized", &["WWW-Authenticate: Basic realm=\"r\""]);
    let registry = Canned::start(vec![("GET /v2/", challenge), (TAG_HEAD, ok(&digest('a')))]).await;
    let answer = registry
        .resolve(&plain_http(), Some(&registry.login("me", "pw")))
        .await;
    assert_eq!(answer, Ok(digest('a')));
    assert_eq!(
        registry.seen(),
        ["GET /v2/".to_owned(), format!("{TAG_HEAD} Basic bWU6cHc=")]
    );
}

#[tokio::test]
async fn a_token_is_fetched_with_the_login() {
    let challenge = "WWW-Authenticate: Bearer realm=\"http://HOST/token\",service=\"s\"";
    let registry = Canned::start(vec![
        ("GET /v2/", head("401 Unauthorized", &[challenge])),
        ("GET /token", body("200 OK", r#"{"token":"t0k3n"}"#)),
        (TAG_HEAD, ok(&digest('a'))),
    ])
    .await;
    let answer = registry
        .resolve(&plain_http(), Some(&registry.login("me", "pw")))
        .await;
    assert_eq!(answer, Ok(digest('a')));
    let seen = registry.seen();
    assert!(
        seen[1].starts_with("GET /token?scope=repository%3Afleet%2Fos%3Apull&service=s Basic"),
        "{seen:?}"
    );
    assert_eq!(seen[2], format!("{TAG_HEAD} Bearer t0k3n"));
}

#[tokio::test]
async fn a_hostile_token_is_an_error() {
    let challenge = "WWW-Authenticate: Bearer realm=\"http://HOST/token\",service=\"s\"";
    for token in [r#"{"token":"a\nb"}"#, r#"{"token":7}"#, "<html>"] {
        let registry = Canned::start(vec![
            ("GET /v2/", head("401 Unauthorized", &[challenge])),
            ("GET /token", body("200 OK", token)),
            (TAG_HEAD, ok(&digest('a'))),
        ])
        .await;
        assert!(
            registry.resolve(&plain_http(), None).await.is_err(),
            "{token}"
        );
    }
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let rows = [
        (
            "401 Unauthorized",
            "does not let anonymous users read fleet/os",
        ),
        (
            "403 Forbidden",
            "does not let anonymous users read fleet/os",
        ),
        ("404 Not Found", "has no fleet/os:v1"),
        ("429 Too Many Requests", "limits the rate of requests"),
        ("500 Internal Server Error", "answered HTTP 500"),
        ("302 Found", "answered HTTP 302"),
    ];
    for (status, wanted) in rows {
        let registry = Canned::start(vec![
            ("GET /v2/", head("200 OK", &[])),
            (TAG_HEAD, head(status, &[])),
        ])
        .await;
        let error = registry
            .resolve(&plain_http(), None)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(wanted) && error.contains(&registry.host),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_refused_login_names_the_user_and_never_the_password() {
    let challenge = head("401 Unauthorized", &["WWW-Authenticate: Basic realm=\"r\""]);
    let refusal = head("401 Unauthorized", &[]);
    let registry = Canned::start(vec![("GET /v2/", challenge), (TAG_HEAD, refusal)]).await;
    let error = registry
        .resolve(&plain_http(), Some(&registry.login("me", "hunter2")))
        .await
        .unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(
        text.contains("\"me\"") && text.contains("pullSecretRef"),
        "{text}"
    );
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn a_registry_that_asks_to_wait_is_not_asked_before() {
    let busy = head("429 Too Many Requests", &["Retry-After: 120"]);
    let registry = Canned::start(vec![("GET /v2/", head("200 OK", &[])), (TAG_HEAD, busy)]).await;
    let resolver = plain_http();
    let first = registry.resolve(&resolver, None).await.unwrap_err();
    let until = first.until().unwrap();
    let wait = until.as_second() - Timestamp::now().as_second();
    assert!((100..=120).contains(&wait), "{wait}");
    let asked = registry.seen().len();
    let second = registry.resolve(&resolver, None).await.unwrap_err();
    assert_eq!(second.to_string(), first.to_string(), "no news");
    assert_eq!(registry.seen().len(), asked);
    let logged_in = registry
        .resolve(&resolver, Some(&registry.login("me", "pw")))
        .await;
    assert!(logged_in.is_err());
    assert!(
        registry.seen().len() > asked,
        "another user has a limit of its own"
    );
}

#[tokio::test]
async fn a_registry_that_does_not_answer_has_a_deadline() {
    let registry = Canned::start(vec![("GET /v2/", "hang".to_owned())]).await;
    let resolver = plain_http().with_deadline(Duration::from_millis(300));
    let error = registry.resolve(&resolver, None).await.unwrap_err();
    assert!(matches!(error, ResolveError::TimedOut { .. }), "{error}");
}

#[tokio::test]
async fn a_registry_that_is_down_cannot_be_reached() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap();
    drop(listener);
    let error = plain_http()
        .resolve(&format!("{host}/fleet/os:v1"), None)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cannot be reached") && error.contains("refused"),
        "{error}"
    );
}

#[tokio::test]
async fn without_the_flag_nothing_is_asked_in_the_clear() {
    let registry = Canned::start(vec![
        ("GET /v2/", head("200 OK", &[])),
        (TAG_HEAD, ok(&digest('a'))),
    ])
    .await;
    let error = registry
        .resolve(&Resolver::new(false), None)
        .await
        .unwrap_err();
    assert!(matches!(error, ResolveError::Unreachable { .. }), "{error}");
    assert!(registry.seen().is_empty());
}

#[tokio::test]
async fn a_digest_of_another_form_is_refused() {
    for wrong in [
        "sha256:abc",
        "md5:00",
        &digest('G'),
        &format!("{}\u{20}x", digest('a')),
    ] {
        let registry = Canned::start(vec![
            ("GET /v2/", head("200 OK", &[])),
            (TAG_HEAD, ok(wrong)),
        ])
        .await;
        let error = registry
            .resolve(&plain_http(), None)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("no sha256 digest"), "{error}");
    }
}

#[tokio::test]
async fn what_is_no_reference_is_said_so() {
    let error = plain_http()
        .resolve("Not A Reference", None)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("write host/repository:tag"), "{error}");
}
