//! Who may read `/metrics`: whoever the API server knows by the bearer token, and lets `get` the
//! path `/metrics`. Its answers hold for a minute, and it is asked one question at a time, so that no
//! storm of scrapes becomes one of reviews.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{
    StatusCode,
    header::{AUTHORIZATION, HeaderMap},
};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use sha2::{Digest as _, Sha256};
use tokio::{sync::Mutex, time::timeout};
use tracing::warn;

use crate::words;

/// How long a yes holds: for so long a token that was taken back still reads.
const YES: Duration = Duration::from_secs(60);
/// How long a no holds.
const NO: Duration = Duration::from_secs(10);
/// How long the two reviews may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// Tokens remembered; a cluster has one or two scrapers.
const TOKENS: usize = 64;
/// No token is longer.
const LONGEST: usize = 16 * 1024;

/// What a request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The metrics.
    Allowed,
    /// No, it says not who it is.
    Unknown,
    /// No, its user may not.
    Denied,
    /// Nothing, the API server does not answer.
    Unsure,
}

impl Verdict {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Allowed => StatusCode::OK,
            Self::Unknown => StatusCode::UNAUTHORIZED,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::Unsure => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Allowed => "",
            Self::Unknown => "a bearer token of this cluster is needed",
            Self::Denied => {
                "this user may not get /metrics; bind it to the ClusterRole bootc-metrics-reader"
            }
            Self::Unsure => "the API server does not say who this is",
        }
    }
}

/// Asks the API server. All clones share what they know.
#[derive(Clone)]
pub(super) struct Access {
    client: Client,
    known: Arc<Mutex<Known>>,
}

/// What was answered, by the hash of the token.
#[derive(Debug, Default)]
struct Known(HashMap<[u8; 32], (Verdict, Instant)>);

impl Known {
    fn get(&self, token: [u8; 32], now: Instant) -> Option<Verdict> {
        let (verdict, until) = self.0.get(&token)?;
        (*until > now).then_some(*verdict)
    }

    fn put(&mut self, token: [u8; 32], verdict: Verdict, now: Instant) {
        let holds = match verdict {
            Verdict::Allowed => YES,
            Verdict::Unknown | Verdict::Denied => NO,
            Verdict::Unsure => return,
        };
        self.0.retain(|_, (_, until)| *until > now);
        if self.0.len() >= TOKENS {
            self.0
                .retain(|_, (verdict, _)| *verdict == Verdict::Allowed);
        }
        if self.0.len() < TOKENS {
            self.0.insert(token, (verdict, now + holds));
        }
    }
}

impl Access {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            known: Arc::default(),
        }
    }

    /// The verdict on a request with these headers.
    pub(super) async fn of(&self, headers: &HeaderMap) -> Verdict {
        let Some(token) = bearer(headers) else {
            return Verdict::Unknown;
        };
        let key = Sha256::digest(token).into();
        let mut known = self.known.lock().await;
        if let Some(verdict) = known.get(key, Instant::now()) {
            return verdict;
        }
        let verdict = match timeout(DEADLINE, self.review(token)).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(error)) => {
                let error = words::request(&error);
                warn!(error, "cannot ask who reads /metrics");
                Verdict::Unsure
            }
            Err(_) => Verdict::Unsure,
        };
        known.put(key, verdict, Instant::now());
        verdict
    }

    async fn review(&self, token: &str) -> Result<Verdict, kube::Error> {
        let who = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: None,
            },
            ..TokenReview::default()
        };
        let post = PostParams::default();
        let reviews = Api::<TokenReview>::all(self.client.clone());
        let who = reviews
            .create(&post, &who)
            .await?
            .status
            .unwrap_or_default();
        let user = who.user.filter(|_| who.authenticated == Some(true));
        let Some(user) = user else {
            return Ok(Verdict::Unknown);
        };
        let may = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username,
                uid: user.uid,
                groups: user.groups,
                extra: user.extra,
                non_resource_attributes: Some(NonResourceAttributes {
                    path: Some("/metrics".to_owned()),
                    verb: Some("get".to_owned()),
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews = Api::<SubjectAccessReview>::all(self.client.clone());
        let answer = reviews.create(&post, &may).await?.status;
        let allowed = answer.is_some_and(|status| status.allowed);
        Ok(if allowed {
            Verdict::Allowed
        } else {
            Verdict::Denied
        })
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    let plausible = !token.is_empty() && token.len() <= LONGEST;
    (scheme.eq_ignore_ascii_case("bearer") && plausible).then_some(token)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use hyper::header::HeaderValue;
    use kube::client::Body;
    use serde_json::json;

    /// An API server that knows the token `good` and `other`, and lets `good` read.
    fn cluster() -> (Client, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let service = tower::service_fn(move |request: http::Request<Body>| {
            count.fetch_add(1, Ordering::SeqCst);
            async move {
                let body = request.into_body().collect_bytes().await?;
                let review: serde_json::Value = serde_json::from_slice(&body)?;
                let status = if let Some(token) = review["spec"]["token"].as_str() {
                    json!({
                        "authenticated": token == "good" || token == "other",
                        "user": { "username": token },
                    })
                } else {
                    let wanted = json!({ "path": "/metrics", "verb": "get" });
                    assert_eq!(review["spec"]["nonResourceAttributes"], wanted);
                    json!({ "allowed": review["spec"]["user"] == "good" })
                };
                let mut answer = review;
                answer["status"] = status;
                let answer = Body::from(answer.to_string().into_bytes());
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(http::Response::new(answer))
            }
        });
        (Client::new(service, "default"), asked)
    }

    fn with(value: &str) -> HeaderMap {
        let value = HeaderValue::from_str(value).unwrap();
        [(AUTHORIZATION, value)].into_iter().collect()
    }

    #[tokio::test]
    async fn the_api_server_says_who_may_read() {
        let (client, asked) = cluster();
        let access = Access::new(client);
        for (header, wanted) in [
            ("Bearer good", Verdict::Allowed),
            ("bearer good", Verdict::Allowed),
            ("Bearer other", Verdict::Denied),
            ("Bearer bad", Verdict::Unknown),
            ("Basic good", Verdict::Unknown),
            ("Bearer ", Verdict::Unknown),
            ("good", Verdict::Unknown),
        ] {
            assert_eq!(access.of(&with(header)).await, wanted, "{header}");
        }
        assert_eq!(access.of(&HeaderMap::new()).await, Verdict::Unknown);
        // Two questions each of the users, one of the stranger, none of who says nothing.
        assert_eq!(asked.load(Ordering::SeqCst), 5);
    }

    #[tokio::test]
    async fn a_storm_of_scrapes_asks_once() {
        let (client, asked) = cluster();
        let access = Access::new(client);
        let header = with("Bearer good");
        let scrapes = (0..50).map(|_| access.of(&header));
        let verdicts = futures::future::join_all(scrapes).await;
        assert!(verdicts.iter().all(|it| *it == Verdict::Allowed));
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn what_is_known_is_bounded_and_grows_old() {
        let mut known = Known::default();
        let now = Instant::now();
        known.put([0; 32], Verdict::Allowed, now);
        for n in 1..=200 {
            known.put([n; 32], Verdict::Unknown, now);
        }
        assert!(known.0.len() <= TOKENS);
        assert_eq!(
            known.get([0; 32], now),
            Some(Verdict::Allowed),
            "not pushed out"
        );
        assert_eq!(known.get([0; 32], now + YES), None);
        known.put([1; 32], Verdict::Unsure, now);
        assert_eq!(known.get([1; 32], now), None, "asked again at once");
    }
}
