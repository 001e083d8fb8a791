//! What can go wrong with one request, and the layer of the client that lets it go wrong.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, future::pending, stream};
use http::{HeaderValue, Request, Response, StatusCode, header::RETRY_AFTER};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Bytes;
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::{sync::Notify, time::sleep};

use crate::call;

/// The client's own patience with a silent API server. In a cluster it is longer; every request but
/// a watch has a deadline of its own before that.
const SILENCE: Duration = Duration::from_secs(21);
/// A watch that is cut ends after this.
const CUT_AFTER: Duration = Duration::from_millis(500);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// The process dies before the request is sent.
    CrashBefore,
    /// The process dies once it was carried out, before its answer comes.
    CrashAfter,
    /// No answer, and it is not carried out.
    Silence,
    /// It is carried out, and the answer is lost.
    Lost,
    /// 409
    Conflict,
    /// 429 with Retry-After.
    Busy,
    /// 500
    Error,
    /// The connection is reset before it was sent.
    Reset,
    /// A watch begins, and is cut.
    Cut,
    /// 410
    Expired,
}

impl How {
    pub(crate) const ALL: [Self; 10] = [
        Self::CrashBefore,
        Self::CrashAfter,
        Self::Silence,
        Self::Lost,
        Self::Conflict,
        Self::Busy,
        Self::Error,
        Self::Reset,
        Self::Cut,
        Self::Expired,
    ];

    /// Can it happen to this request?
    pub(crate) fn fits(self, call: &str) -> bool {
        match self {
            Self::CrashBefore | Self::CrashAfter => call::is_write(call),
            Self::Cut => call::is_watch(call),
            Self::Expired => call::is_watch(call) || call::is_list(call),
            _ => true,
        }
    }
}

/// One fault at most, and all requests of a run.
#[derive(Debug)]
pub(crate) struct Script {
    fault: Option<(String, How)>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    counts: BTreeMap<String, usize>,
    calls: Vec<String>,
    struck: bool,
    ended: bool,
}

impl Script {
    /// This goes wrong with the request of that name and number, and nothing else.
    pub(crate) fn new(fault: Option<(String, How)>) -> Arc<Self> {
        Arc::new(Self {
            fault,
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request; answers what goes wrong with it.
    fn next(&self, name: &str) -> Option<How> {
        let mut state = self.state();
        if state.ended {
            return None;
        }
        let count = state.counts.entry(name.to_owned()).or_default();
        *count += 1;
        let call = format!("{name} #{count}");
        let how = self.fault.as_ref().filter(|(struck, _)| *struck == call);
        state.struck |= how.is_some();
        state.calls.push(call);
        how.map(|(_, how)| *how)
    }

    /// From now on nothing is noted and nothing goes wrong; answers what was.
    pub(crate) fn end(&self) -> Vec<String> {
        let mut state = self.state();
        state.ended = true;
        state.calls.clone()
    }

    /// Did the fault strike?
    pub(crate) fn struck(&self) -> bool {
        self.state().struck
    }
}

/// One of the processes of a run, as its client sees it.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// `operator`, or the agent of a node.
    pub(crate) actor: String,
    /// What the names of the run's own objects begin with.
    pub(crate) run: String,
    pub(crate) script: Arc<Script>,
    /// Told when it is to die; the request that it dies with is never answered.
    pub(crate) crash: Arc<Notify>,
}

impl Process {
    /// The process's client: `inner`, and what goes wrong.
    pub(crate) fn client(&self, inner: &Client) -> Client {
        let (process, sender) = (self.clone(), inner.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (process, sender) = (process.clone(), sender.clone());
            async move {
                let name = call::name(&process.actor, &process.run, &request);
                let how = process.script.next(&name);
                process.carry_out(how, &sender, request).await
            }
        });
        Client::new(service, inner.default_namespace())
    }

    async fn carry_out(
        &self,
        how: Option<How>,
        inner: &Client,
        request: Request<Body>,
    ) -> Result<Answer, BoxError> {
        let is_watch = request
            .uri()
            .query()
            .is_some_and(|it| it.contains("watch=true"));
        match how {
            None => Ok(whole(inner.send(request).await?)),
            Some(How::CrashBefore) => self.die().await,
            Some(How::CrashAfter) => {
                let _carried_out = inner.send(request).await;
                self.die().await
            }
            Some(How::Silence) => {
                sleep(SILENCE).await;
                Err(io::Error::from(io::ErrorKind::TimedOut).into())
            }
            Some(How::Lost) => {
                let _answer = inner.send(request).await?;
                Err(io::Error::from(io::ErrorKind::ConnectionReset).into())
            }
            Some(How::Reset) => Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
            Some(How::Conflict) => {
                let message =
                    "the object has been modified; please apply your changes to the latest version";
                Ok(refusal(409, "Conflict", message))
            }
            Some(How::Busy) => Ok(refusal(429, "TooManyRequests", "the server is busy")),
            Some(How::Error) => Ok(refusal(
                500,
                "InternalError",
                "etcdserver: request timed out",
            )),
            Some(How::Cut) => Ok(cut(inner.send(request).await?)),
            // A watch learns it from an event.
            Some(How::Expired) if is_watch => {
                let event = json!({ "type": "ERROR", "object": status(410, "Expired", EXPIRED) });
                Ok(Response::new(full(format!("{event}\n"))))
            }
            Some(How::Expired) => Ok(refusal(410, "Expired", EXPIRED)),
        }
    }

    async fn die(&self) -> Result<Answer, BoxError> {
        self.crash.notify_one();
        pending().await
    }
}

const EXPIRED: &str = "too old resource version";

fn whole(answer: Response<Body>) -> Answer {
    answer.map(|body| body.map_err(Into::into).boxed_unsync())
}

fn full(text: String) -> UnsyncBoxBody<Bytes, BoxError> {
    let body = Full::new(Bytes::from(text));
    body.map_err(|never| match never {}).boxed_unsync()
}

/// What comes within a moment, and then the end of the connection.
fn cut(answer: Response<Body>) -> Answer {
    answer.map(|body| {
        let frames = stream::unfold(body, |mut body| async {
            let frame = body.frame().await?;
            Some((frame.map_err(BoxError::from), body))
        });
        let reset = async { Err(io::Error::from(io::ErrorKind::ConnectionReset).into()) };
        let frames = frames.take_until(Box::pin(sleep(CUT_AFTER)));
        StreamBody::new(frames.chain(stream::once(reset))).boxed_unsync()
    })
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": message,
    })
}

fn refusal(code: u16, reason: &str, message: &str) -> Answer {
    let mut answer = Response::new(full(status(code, reason, message).to_string()));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or_default();
    if code == 429 {
        let second = HeaderValue::from_static("1");
        answer.headers_mut().insert(RETRY_AFTER, second);
    }
    answer
}
