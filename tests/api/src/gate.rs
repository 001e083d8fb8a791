//! A client whose writes can be held back, as by a network that is slow for one of two.

use std::sync::{Arc, Mutex, PoisonError};

use kube::{Client, client::Body};
use tokio::sync::watch;

/// Writes, each with the API server's answer if there is one yet.
type Writes = Vec<(String, Option<u16>)>;

/// Lets a client's writes through, or holds them back.
#[derive(Clone, Debug)]
pub struct Gate {
    open: watch::Sender<bool>,
    held: Arc<Mutex<Writes>>,
}

impl Gate {
    /// From now on writes wait.
    pub fn close(&self) {
        self.open.send_replace(false);
    }

    /// Lets all that wait through, and whatever follows.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// The writes that had to wait, each with the API server's answer if there is one yet.
    #[must_use]
    pub fn held(&self) -> Writes {
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn hold(&self, line: String) -> usize {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.push((line, None));
        held.len() - 1
    }

    fn answered(&self, number: usize, code: u16) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, answer)) = held.get_mut(number) {
            *answer = Some(code);
        }
    }

    async fn wait(&self) {
        let mut open = self.open.subscribe();
        // The sender is part of the gate, so it cannot be gone.
        let _open = open.wait_for(|open| *open).await;
    }
}

/// The same client behind a gate, which is open at first.
#[must_use]
pub fn gated(client: &Client) -> (Client, Gate) {
    let gate = Gate {
        open: watch::Sender::new(true),
        held: Arc::default(),
    };
    let (inner, outer) = (client.clone(), gate.clone());
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (inner, gate) = (inner.clone(), outer.clone());
        async move {
            let waits = request.method() != http::Method::GET && !*gate.open.borrow();
            if !waits {
                return inner.send(request).await;
            }
            let number = gate.hold(format!("{} {}", request.method(), request.uri().path()));
            gate.wait().await;
            let answer = inner.send(request).await?;
            gate.answered(number, answer.status().as_u16());
            Ok(answer)
        }
    });
    (Client::new(service, client.default_namespace()), gate)
}
