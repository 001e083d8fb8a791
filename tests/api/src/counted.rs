//! A client that writes down what it asks for.

use std::sync::{Arc, Mutex, PoisonError};

use kube::{Client, client::Body};

/// The requests of a client so far, in order: `METHOD /path?query`.
#[derive(Clone, Debug, Default)]
pub struct Requests(Arc<Mutex<Vec<String>>>);

impl Requests {
    /// Those that contain all of these texts.
    #[must_use]
    pub fn with(&self, texts: &[&str]) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |request: &&String| texts.iter().all(|text| request.contains(text));
        all.iter().filter(fits).cloned().collect()
    }
}

/// The same client, and what it asks for from now on.
#[must_use]
pub fn counted(client: &Client) -> (Client, Requests) {
    let (inner, requests) = (client.clone(), Requests::default());
    let log = requests.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let line = format!("{} {}", request.method(), request.uri());
        log.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
        let inner = inner.clone();
        async move { inner.send(request).await }
    });
    (Client::new(service, client.default_namespace()), requests)
}
