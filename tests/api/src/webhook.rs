//! An admission webhook of this process: it refuses, or allows after a while.

use std::{
    io::{BufReader, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use k8s_openapi::ByteString;
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::{Value, json};

/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(30);

/// What a webhook does with a request.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Refuses, in these words.
    Refuse(String),
    /// Allows after so long.
    AllowAfter(Duration),
}

/// A webhook at work. Dropped, it hangs up on every caller.
#[derive(Debug)]
pub struct Webhook {
    url: String,
    certificate: Vec<u8>,
    verdict: Arc<Mutex<Verdict>>,
    ended: Arc<AtomicBool>,
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}

impl Webhook {
    /// Listens on a free port of the loopback address, with a certificate of its own.
    pub fn start(verdict: Verdict) -> Result<Self> {
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let webhook = Self {
            url: format!("https://{}/", listener.local_addr()?),
            certificate: own.cert.pem().into_bytes(),
            verdict: Arc::new(Mutex::new(verdict)),
            ended: Arc::default(),
        };
        let (tls, verdict, ended) = (
            Arc::new(tls),
            webhook.verdict.clone(),
            webhook.ended.clone(),
        );
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (tls, verdict) = (tls.clone(), verdict.clone());
                // A caller that hangs up in between is none of the webhook's business.
                thread::spawn(move || serve(stream, tls, &verdict).ok());
            }
        });
        Ok(webhook)
    }

    /// From now on it does this.
    pub fn turn(&self, verdict: Verdict) {
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = verdict;
    }

    /// The `clientConfig` by which the API server finds it.
    #[must_use]
    pub fn client_config(&self) -> Value {
        json!({ "url": self.url, "caBundle": ByteString(self.certificate.clone()) })
    }
}

/// Answers the requests of one connection.
fn serve(stream: TcpStream, tls: Arc<ServerConfig>, verdict: &Mutex<Verdict>) -> Result<()> {
    stream.set_read_timeout(Some(SILENCE))?;
    let mut stream = BufReader::new(StreamOwned::new(ServerConnection::new(tls)?, stream));
    while let Some(body) = request(&mut stream)? {
        let review: Value = serde_json::from_slice(&body)?;
        let verdict = verdict
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let (allowed, message) = match verdict {
            Verdict::Refuse(message) => (false, message),
            Verdict::AllowAfter(wait) => {
                thread::sleep(wait);
                (true, String::new())
            }
        };
        let answer = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "response": { "uid": review["request"]["uid"], "allowed": allowed, "status": { "message": message } },
        });
        let answer = answer.to_string();
        let length = answer.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        let stream = stream.get_mut();
        stream.write_all(format!("{head}{answer}").as_bytes())?;
        stream.flush()?;
    }
    Ok(())
}

/// The body of the next request; nothing once the caller has hung up.
fn request(stream: &mut impl std::io::BufRead) -> Result<Option<Vec<u8>>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().context("no length")?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some(body))
}
