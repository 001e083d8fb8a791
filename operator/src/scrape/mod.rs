//! `/metrics`: who may read it, and how it is served.

mod access;
mod tls;

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
};
use kube::Client;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tracing::info;

use crate::{Config, health::Health, report::Metrics, server};
use access::{Access, Verdict};

/// The format's own media type.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves `/metrics`.
pub(crate) struct Scrape {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    page: Page,
}

impl std::fmt::Debug for Scrape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scrape")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

impl Scrape {
    /// Opens the socket; nothing where metrics are off.
    pub(crate) async fn open(
        config: &Config,
        client: &Client,
        metrics: Metrics,
        health: Health,
    ) -> anyhow::Result<Option<Self>> {
        let flag = "--metrics-bind-address";
        let Some(listener) = server::bind(&config.metrics, flag).await? else {
            return Ok(None);
        };
        let tls = config.metrics_secure.then(tls::acceptor).transpose()?;
        let access = config.metrics_secure.then(|| Access::new(client.clone()));
        let (address, secure) = (listener.local_addr()?, config.metrics_secure);
        info!(%address, secure, "serving /metrics");
        let page = Page {
            access,
            metrics,
            health,
        };
        Ok(Some(Self {
            listener,
            tls,
            page,
        }))
    }

    /// Serves until it is dropped.
    pub(crate) async fn serve(self) {
        server::serve(self.listener, self.tls, self.page).await;
    }
}

#[derive(Clone)]
struct Page {
    access: Option<Access>,
    metrics: Metrics,
    health: Health,
}

impl server::Answers for Page {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() != "/metrics" {
            return server::plain(StatusCode::NOT_FOUND, "there is /metrics");
        }
        if let Some(access) = &self.access {
            match access.of(request.headers()).await {
                Verdict::Allowed => {}
                verdict => return server::plain(verdict.status(), verdict.text()),
            }
        }
        let Some(text) = self.metrics.text(self.health.is_on_duty()).await else {
            let busy = "the deciding task does not answer";
            return server::plain(StatusCode::SERVICE_UNAVAILABLE, busy);
        };
        let mut response = server::plain(StatusCode::OK, text);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
        response
    }
}
