//! A client that writes down what it asks for, and that can be cut off.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use kube::{Client, client::Body};

/// The requests of a client so far, in order: `METHOD /path?query`.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    all: Arc<Mutex<Vec<String>>>,
    cut_off: Arc<AtomicBool>,
}

impl Requests {
    /// Those that contain all of these texts.
    #[must_use]
    pub fn with(&self, texts: &[&str]) -> Vec<String> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |request: &&String| texts.iter().all(|text| request.contains(text));
        all.iter().filter(fits).cloned().collect()
    }

    /// Lets no further request through to the API server, or lets them through again.
    pub fn cut_off(&self, cut_off: bool) {
        self.cut_off.store(cut_off, Ordering::SeqCst);
    }
}

/// The same client, and what it asks for from now on.
#[must_use]
pub fn counted(client: &Client) -> (Client, Requests) {
    let (inner, requests) = (client.clone(), Requests::default());
    let log = requests.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let line = format!("{} {}", request.method(), request.uri());
        log.all
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
        let (inner, cut_off) = (inner.clone(), log.cut_off.load(Ordering::SeqCst));
        async move {
            if cut_off {
                let refused = io::Error::new(io::ErrorKind::ConnectionRefused, "the line is cut");
                return Err(kube::Error::Service(refused.into()));
            }
            inner.send(request).await
        }
    });
    (Client::new(service, client.default_namespace()), requests)
}
