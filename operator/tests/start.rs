//! The program's first words with an API server, and its exit code.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
};

/// Answers every request with this, each connection once.
fn serve(body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), body);
        }
    });
    format!("http://{address}")
}

fn answer(mut stream: TcpStream, body: &str) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    // Up to the empty line that ends the request's head.
    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
        line.clear();
    }
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
    let _gone = write!(
        stream,
        "{head}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
}

#[test]
fn an_api_server_that_is_too_old_is_refused_with_the_version_needed() {
    let server = serve(r#"{"major": "1", "minor": "30", "gitVersion": "v1.30.4"}"#);
    let kubeconfig = Path::new(env!("CARGO_TARGET_TMPDIR")).join("too-old-kubeconfig");
    let text = format!(
        "{{\"apiVersion\": \"v1\", \"kind\": \"Config\", \"current-context\": \"c\",
           \"clusters\": [{{\"name\": \"c\", \"cluster\": {{\"server\": \"{server}\"}}}}],
           \"contexts\": [{{\"name\": \"c\", \"context\": {{\"cluster\": \"c\", \"user\": \"u\"}}}}],
           \"users\": [{{\"name\": \"u\", \"user\": {{}}}}]}}"
    );
    std::fs::write(&kubeconfig, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_bootc-operator"))
        .args(["--health-probe-bind-address=0", "--leader-elect"])
        .env("KUBECONFIG", kubeconfig)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("Kubernetes 1.30") && said.contains("needs 1.34 or later"),
        "{said}"
    );
}
