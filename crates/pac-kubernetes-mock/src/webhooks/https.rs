//! One request over TLS, without a runtime.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio::runtime::{Handle, RuntimeFlavor};

/// Where a request goes.
pub(super) struct Target {
    pub(super) address: SocketAddr,
    /// The name that the certificate has to be for.
    pub(super) server: String,
    pub(super) path: String,
    /// The authorities that are trusted, as PEM.
    pub(super) authorities: Vec<u8>,
    pub(super) timeout: Duration,
}

/// The body of the answer. The thread waits for it; on a runtime with several of them, its other
/// tasks go on.
///
/// # Errors
/// In words, for no connection, a certificate that is not trusted, or a status other than 200.
pub(super) fn post(target: &Target, body: &str) -> Result<String, String> {
    let exchange = || exchange(target, body);
    let answer = match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(exchange),
        _ => exchange(),
    };
    let answer = answer.map_err(|error| {
        format!(
            "Post \"https://{}:443{}\": {error}",
            target.server, target.path
        )
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(format!("an error on the server: {}", body.trim())),
    }
}

fn exchange(target: &Target, body: &str) -> Result<String, String> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(&target.authorities) {
        let authority = authority.map_err(|_| "the caBundle is not PEM".to_owned())?;
        roots.add(authority).map_err(|error| error.to_string())?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerName::try_from(target.server.clone()).map_err(|error| error.to_string())?;
    let connection =
        ClientConnection::new(Arc::new(config), server).map_err(|error| error.to_string())?;
    let failed = |error: std::io::Error| error.to_string();
    let stream = TcpStream::connect_timeout(&target.address, target.timeout).map_err(failed)?;
    for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        set(&stream, Some(target.timeout)).map_err(failed)?;
    }
    let mut stream = StreamOwned::new(connection, stream);
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        target.path,
        target.server,
        body.len()
    );
    stream.write_all(head.as_bytes()).map_err(failed)?;
    stream.write_all(body.as_bytes()).map_err(failed)?;
    stream.flush().map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    Ok(answer)
}
