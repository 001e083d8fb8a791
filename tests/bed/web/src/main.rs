//! The smallest web server that can be a workload: every request to :8080 is
//! answered with the pod's name. Standard library only, so that its image is
//! one static file.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// How long a client may take for its request.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);

fn main() -> io::Result<()> {
    let pod = std::env::var("HOSTNAME").unwrap_or_default();
    let listener = TcpListener::bind("0.0.0.0:8080")?;
    for stream in listener.incoming() {
        if let Err(error) = stream.and_then(|stream| answer(stream, &pod)) {
            eprintln!("a request failed: {error}");
        }
    }
    Ok(())
}

/// Reads the request's head and answers it; the body, if any, does not matter.
fn answer(mut stream: TcpStream, pod: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(REQUEST_DEADLINE))?;
    stream.set_write_timeout(Some(REQUEST_DEADLINE))?;
    for line in BufReader::new(&stream).lines() {
        if line?.is_empty() {
            break;
        }
    }
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{pod}\n",
        pod.len() + 1
    )
}
