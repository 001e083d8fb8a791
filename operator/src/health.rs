//! `/healthz` and `/readyz` for the kubelet, over plain HTTP.
//!
//! Healthy means that the one task that decides still answers; ready means that it is on duty: it
//! has the whole cluster in view, or stands by for another replica to end.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};
use tracing::{debug, info};

use crate::args::ProbeAddress;

/// How long the deciding task may take to answer before it counts as stuck.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a client may take with its request's head, and a whole connection at most.
const CONNECTION: Duration = Duration::from_secs(15);
/// Connections at once; the kubelet needs two.
const CONNECTIONS: usize = 32;

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

    async fn healthy(&self) -> bool {
        if !self.on_duty.load(Ordering::Relaxed) {
            return true;
        }
        let (answer, answered) = oneshot::channel();
        let asked = async { self.pings.send(answer).await.is_ok() && answered.await.is_ok() };
        timeout(ANSWER, asked).await.unwrap_or(false)
    }

    async fn answer(&self, path: &str) -> (StatusCode, &'static str) {
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
pub async fn bind(address: &ProbeAddress) -> anyhow::Result<Option<TcpListener>> {
    let ProbeAddress::At { host, port } = address else {
        return Ok(None);
    };
    let bound = if host.is_empty() {
        // The IPv6 socket takes both families; a host without IPv6 has only the other.
        match TcpListener::bind(("::", *port)).await {
            Ok(listener) => Ok(listener),
            Err(_) => TcpListener::bind(("0.0.0.0", *port)).await,
        }
    } else {
        TcpListener::bind((host.as_str(), *port)).await
    };
    let listener = bound.with_context(|| {
        format!(
            "cannot serve the probes on {host}:{port}; choose another address with \
             --health-probe-bind-address, or 0 for none"
        )
    })?;
    info!(address = %listener.local_addr()?, "serving /healthz and /readyz");
    Ok(Some(listener))
}

/// Serves the probes until it is dropped.
pub async fn serve(listener: TcpListener, health: Health) {
    let mut connections = JoinSet::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let health = health.clone();
                connections.spawn(async move {
                    let _ = timeout(CONNECTION, connection(stream, health)).await;
                    drop(slot);
                });
            }
            Err(error) => {
                debug!(%error, "cannot accept a probe's connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, health: Health) {
    let service = service_fn(|request: Request<Incoming>| {
        let health = health.clone();
        async move {
            let (status, text) = health.answer(request.uri().path()).await;
            let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
            *response.status_mut() = status;
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "a probe's connection broke off");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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
        let address = ProbeAddress::At {
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

    #[tokio::test]
    async fn off_means_no_socket() {
        assert!(bind(&ProbeAddress::Off).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_taken_port_says_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let address = ProbeAddress::At {
            host: "127.0.0.1".to_owned(),
            port,
        };
        let error = bind(&address).await.unwrap_err().to_string();
        assert!(error.contains("--health-probe-bind-address"), "{error}");
    }
}
