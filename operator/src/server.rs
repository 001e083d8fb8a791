//! A small HTTP/1 server for the few questions that the operator answers: bounded in connections and
//! in time, with or without TLS.

use std::{convert::Infallible, sync::Arc, time::Duration};

use anyhow::Context as _;
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    rt::{Read, Write},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use crate::args::BindAddress;

/// How long a client may take with its request's head, and a whole connection at most.
const CONNECTION: Duration = Duration::from_secs(15);
/// Connections at once.
const CONNECTIONS: usize = 32;

/// Who answers requests.
pub(crate) trait Answers: Clone + Send + Sync + 'static {
    /// The answer to one request, within the time that a connection has.
    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send;
}

/// An answer of a few words.
pub(crate) fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}

/// Opens the socket for `address`, which `flag` has set; nothing where that is off.
pub(crate) async fn bind(address: &BindAddress, flag: &str) -> anyhow::Result<Option<TcpListener>> {
    let BindAddress::At { host, port } = address else {
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
        format!("cannot listen on {host}:{port}; choose another address with {flag}, or 0 for none")
    })?;
    Ok(Some(listener))
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, who: impl Answers) {
    let mut connections = JoinSet::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (who, tls) = (who.clone(), tls.clone());
                connections.spawn(async move {
                    let _ = timeout(CONNECTION, connection(stream, tls, who)).await;
                    drop(slot);
                });
            }
            Err(error) => {
                debug!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, who: impl Answers) {
    let Some(tls) = tls else {
        return requests(TokioIo::new(stream), who).await;
    };
    match tls.accept(stream).await {
        Ok(stream) => requests(TokioIo::new(stream), who).await,
        Err(error) => debug!(%error, "no TLS with a client"),
    }
}

async fn requests(stream: impl Read + Write + Unpin, who: impl Answers) {
    let service = service_fn(|request: Request<Incoming>| {
        let who = who.clone();
        async move { Ok::<_, Infallible>(who.answer(request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION)
        .keep_alive(false)
        .serve_connection(stream, service)
        .await;
    if let Err(error) = served {
        debug!(%error, "a client's connection broke off");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn off_means_no_socket() {
        assert!(bind(&BindAddress::Off, "--x").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_taken_port_says_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let address = BindAddress::At {
            host: "127.0.0.1".to_owned(),
            port,
        };
        let error = bind(&address, "--this-flag").await.unwrap_err().to_string();
        assert!(error.contains("--this-flag"), "{error}");
    }
}
