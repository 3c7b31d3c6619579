//! The way to an API server for tests, and the probes of a controller.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use tempfile::NamedTempFile;

/// A kubeconfig for a server, with a token that nobody may see.
pub(crate) fn kubeconfig(url: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    let text = pac_kubernetes_mock::kubeconfig(url);
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// An address that a program of this test can listen at.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// The status line and the text of a probe; `None` while nothing answers.
pub(crate) fn probe(probes: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(probes).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: pac\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
