//! `/healthz` and `/readyz` for the kubelet, over plain HTTP.
//!
//! Healthy means that the one task that decides still answers; ready means that it is on duty: it
//! has the whole cluster in view, or stands by for another replica to end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::info;

use crate::{args::BindAddress, server};

/// How long the deciding task may take to answer before it counts as stuck.
const ANSWER: Duration = Duration::from_secs(5);

/// What the probes ask. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Health {
    ready: Arc<AtomicBool>,
    pings: mpsc::Sender<oneshot::Sender<()>>,
    on_duty: Arc<AtomicBool>,
}

/// The deciding task's end: each ping received is to be answered at once.
pub type Pings = mpsc::Receiver<oneshot::Sender<()>>;

impl Health {
    /// Neither ready nor on duty yet.
    #[must_use]
    pub fn new() -> (Self, Pings) {
        let (pings, receiver) = mpsc::channel(4);
        (
            Self {
                ready: Arc::default(),
                pings,
                on_duty: Arc::default(),
            },
            receiver,
        )
    }

    /// Says whether `/readyz` succeeds.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// From now on the deciding task runs and must answer pings.
    pub fn set_on_duty(&self) {
        self.on_duty.store(true, Ordering::Relaxed);
    }

    /// Whether the deciding task runs.
    pub(crate) fn is_on_duty(&self) -> bool {
        self.on_duty.load(Ordering::Relaxed)
    }

    async fn healthy(&self) -> bool {
        if !self.is_on_duty() {
            return true;
        }
        let (answer, answered) = oneshot::channel();
        let asked = async { self.pings.send(answer).await.is_ok() && answered.await.is_ok() };
        timeout(ANSWER, asked).await.unwrap_or(false)
    }

    async fn say(&self, path: &str) -> (StatusCode, &'static str) {
        match path {
            "/healthz" if self.healthy().await => (StatusCode::OK, "ok"),
            "/healthz" => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "the deciding task does not answer",
            ),
            "/readyz" if self.ready.load(Ordering::Relaxed) => (StatusCode::OK, "ok"),
            "/readyz" => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the cluster is not in view yet",
            ),
            _ => (StatusCode::NOT_FOUND, "there is /healthz and /readyz"),
        }
    }
}

/// Opens the socket for `address`; nothing where the probes are off.
pub async fn bind(address: &BindAddress) -> anyhow::Result<Option<TcpListener>> {
    let listener = server::bind(address, "--health-probe-bind-address").await?;
    if let Some(listener) = &listener {
        info!(address = %listener.local_addr()?, "serving /healthz and /readyz");
    }
    Ok(listener)
}

/// Serves the probes until it is dropped.
pub async fn serve(listener: TcpListener, health: Health) {
    server::serve(listener, None, health).await;
}

impl server::Answers for Health {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, text) = self.say(request.uri().path()).await;
        server::plain(status, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    async fn get(port: u16, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: probe\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn probes_follow_the_deciding_task() {
        let address = BindAddress::At {
            host: "127.0.0.1".to_owned(),
            port: 0,
        };
        let listener = bind(&address).await.unwrap().unwrap();
        let port = listener.local_addr().unwrap().port();
        let (health, mut pings) = Health::new();
        let server = tokio::spawn(serve(listener, health.clone()));

        assert!(
            get(port, "/healthz").await.contains("200"),
            "nothing decides yet"
        );
        assert!(get(port, "/readyz").await.contains("503"));
        assert!(get(port, "/metrics").await.contains("404"));

        health.set_ready(true);
        health.set_on_duty();
        let answers = tokio::spawn(async move {
            let ping = pings.recv().await;
            ping.is_some_and(|ping| ping.send(()).is_ok())
        });
        assert!(get(port, "/readyz").await.contains("200"));
        assert!(get(port, "/healthz").await.contains("200"));
        assert!(answers.await.unwrap(), "the task was asked");
        assert!(
            get(port, "/healthz").await.contains("500"),
            "the task has ended"
        );
        server.abort();
    }
}
