//! Connections passed on between the machine's network and the cluster's.
//!
//! A socket belongs to the network namespace of the thread that made it. So the
//! listening end is made in one namespace and handed over, and the connecting
//! end is made by the thread that passes the connection on.

use std::future::Future;
use std::net::SocketAddrV4;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

/// How long to wait after a failed accept: the process may be out of files.
const PAUSE: Duration = Duration::from_millis(100);

/// Passes on what `listener` accepts to the address that `target` says for
/// each connection. One that cannot be passed on is closed.
pub(super) async fn forward(listener: TcpListener, target: impl Fn() -> Option<SocketAddrV4>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                if let Some(target) = target() {
                    tokio::spawn(pass(client, target));
                }
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn pass(mut client: TcpStream, target: SocketAddrV4) {
    let Ok(mut server) = TcpStream::connect(target).await else {
        return;
    };
    // Either side may end as it likes; the other one sees it.
    let _bytes = copy_bidirectional(&mut client, &mut server).await;
}

/// A thread that stays in the network namespace of the one that made it, when
/// that moves to another, and runs what it is given later.
#[derive(Debug)]
pub(super) struct Stay<T> {
    jobs: std::sync::mpsc::Sender<T>,
}

impl<T: Send + 'static> Stay<T> {
    /// `work` gets what [`Stay::give`] gives, once.
    pub(super) fn here<F: Future<Output = ()>>(
        work: impl FnOnce(T) -> F + Send + 'static,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (jobs, given) = std::sync::mpsc::channel();
        thread::Builder::new()
            .name("machine-network".to_owned())
            .spawn(move || {
                if let Ok(job) = given.recv() {
                    runtime.block_on(work(job));
                }
            })
            .context("cannot start a thread")?;
        Ok(Self { jobs })
    }

    /// Hands over what to work on.
    pub(super) fn give(&self, job: T) -> Result<()> {
        self.jobs
            .send(job)
            .ok()
            .context("the thread in the machine's network has ended")
    }
}
