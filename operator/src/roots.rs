//! Certificate authorities for an image that has none, such as one `FROM scratch`: Mozilla's.
//!
//! The HTTP library looks for the system's authorities wherever it makes a client, and panics in
//! some of these places where there are none. So they are given to the whole process, in the way
//! that is common to all TLS programs, before anything else: by `SSL_CERT_FILE`. A process cannot
//! safely change its own environment, hence it starts itself once more; the file is in memory, as
//! the image is read-only.

use std::{
    convert::Infallible,
    env,
    fs::File,
    io::{self, Write as _},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    process::Command,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustix::fs::{MemfdFlags, memfd_create};

/// Where TLS programs look for the file with the authorities.
const VARIABLE: &str = "SSL_CERT_FILE";

/// Sees to it that there are authorities. To be called first: it may start the program anew.
///
/// # Errors
/// If there are none and they cannot be given.
pub fn ensure() -> io::Result<()> {
    // Fails when the process has one already, which is as good.
    let _there_already = rustls::crypto::ring::default_provider().install_default();
    let there_are = reqwest::Client::builder().build().is_ok();
    if there_are || env::var_os(VARIABLE).is_some() {
        return Ok(());
    }
    start_again().map(|never| match never {})
}

fn start_again() -> io::Result<Infallible> {
    // Not closed on exec: it is for the program that follows.
    let mut file = File::from(memfd_create("mozilla-roots.pem", MemfdFlags::empty())?);
    file.write_all(mozilla().as_bytes())?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // By its own path: the kernel names a process after the file, and nobody looks for `exe`.
    let mut command = Command::new(env::current_exe()?);
    let mut args = env::args_os();
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    Err(command.args(args).env(VARIABLE, path).exec())
}

/// All of them, as PEM.
fn mozilla() -> String {
    let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter();
    let certificates: Vec<String> = roots
        .map(|root| {
            let body = STANDARD.encode(root);
            format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
        })
        .collect();
    certificates.concat()
}

#[cfg(test)]
mod tests {
    use super::mozilla;

    #[test]
    fn every_authority_is_read_back() {
        let read = reqwest::Certificate::from_pem_bundle(mozilla().as_bytes()).unwrap();
        assert_eq!(read.len(), webpki_root_certs::TLS_SERVER_ROOT_CERTS.len());
        reqwest::Client::builder()
            .tls_certs_only(read)
            .build()
            .unwrap();
    }
}
