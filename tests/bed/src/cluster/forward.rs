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
use tokio::sync::watch;

/// How long to wait after a failed accept: the process may be out of files.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether connections are let through. While it is false new ones are closed,
/// and when it becomes so those that are open break off.
pub(super) type Gate = watch::Receiver<bool>;

/// A gate that is always open.
pub(super) fn open() -> Gate {
    watch::channel(true).1
}

/// Passes on what `listener` accepts to the address that `target` says for
/// each connection. One that cannot be passed on is closed.
pub(super) async fn forward(
    listener: TcpListener,
    target: impl Fn() -> Option<SocketAddrV4>,
    gate: Gate,
) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                if let Some(target) = target().filter(|_| *gate.borrow()) {
                    tokio::spawn(pass(client, target, gate.clone()));
                }
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn pass(mut client: TcpStream, target: SocketAddrV4, mut gate: Gate) {
    let Ok(mut server) = TcpStream::connect(target).await else {
        return;
    };
    tokio::select! {
        // Either side may end as it likes; the other one sees it.
        _bytes = copy_bidirectional(&mut client, &mut server) => {}
        () = closed(&mut gate) => {}
    }
}

async fn closed(gate: &mut Gate) {
    if gate.wait_for(|open| !open).await.is_err() {
        std::future::pending::<()>().await;
    }
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn listener() -> (TcpListener, SocketAddrV4) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
    }

    #[tokio::test]
    async fn a_closed_gate_breaks_what_is_open_and_lets_nothing_in() {
        let (server, behind) = listener().await;
        let (front, address) = listener().await;
        let (gate, passes) = watch::channel(true);
        tokio::spawn(forward(front, move || Some(behind), passes));

        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"x").await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        assert_eq!(served.read_u8().await.unwrap(), b'x');
        gate.send_replace(false);
        assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
        let mut refused = TcpStream::connect(address).await.unwrap();
        assert_eq!(refused.read(&mut [0]).await.unwrap_or(0), 0);

        gate.send_replace(true);
        let mut again = TcpStream::connect(address).await.unwrap();
        again.write_all(b"y").await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        assert_eq!(served.read_u8().await.unwrap(), b'y');
    }
}
