//! A client over TLS, as the API server is one.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The name of the server in the default namespace.
pub(crate) const SERVER: &str = "pac-concurrency-webhook.pac-concurrency.svc";

/// The authorities in a configuration, as PEM; empty where none are.
pub(crate) fn authorities(configuration: &Value) -> String {
    let bundle = configuration["webhooks"][0]["clientConfig"]["caBundle"].as_str();
    String::from_utf8(STANDARD.decode(bundle.unwrap_or_default()).unwrap()).unwrap()
}

/// A new connection that trusts these authorities alone.
pub(crate) async fn connect(
    address: SocketAddr,
    authorities: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        roots.add(authority.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(address).await?;
    let server = ServerName::try_from(SERVER).unwrap();
    connector.connect(server, stream).await
}

/// The certificate that a new connection is shown.
pub(crate) async fn shown(address: SocketAddr, authorities: &str) -> std::io::Result<Vec<u8>> {
    let stream = connect(address, authorities).await?;
    let (_, session) = stream.get_ref();
    Ok(session.peer_certificates().unwrap()[0].to_vec())
}

/// The status and the body of the answer to one request on its own connection.
pub(crate) async fn ask(
    address: SocketAddr,
    authorities: &str,
    head: &str,
    body: &[u8],
) -> (u16, String) {
    let mut stream = connect(address, authorities).await.unwrap();
    let head = format!("{head}\r\nHost: {SERVER}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // A server that refuses a body does not read all of it.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.unwrap_or_default(), body.to_owned())
}

/// The answer to a review.
pub(crate) async fn post(
    address: SocketAddr,
    authorities: &str,
    path: &str,
    body: &[u8],
) -> (u16, String) {
    let head = format!("POST {path} HTTP/1.1\r\nContent-Length: {}", body.len());
    ask(address, authorities, &head, body).await
}
