//! A server that speaks the first messages of PostgreSQL's protocol, and has nothing behind them.

use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

/// What it does with a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Asks for the password in clear text.
    ClearText,
    /// Asks for the password as MD5.
    Md5,
    /// Goes through SCRAM, with channel binding where there is TLS, but does not know the password.
    Unproven,
    /// Goes through SCRAM without channel binding, and does not know the password.
    Unbound,
    /// Lets everybody in.
    Trusting,
    /// Announces an error message of 2 GB.
    Huge,
    /// Lets everybody in, and tells of its settings without an end.
    Endless,
    /// Says nothing.
    Silent,
}

impl Kind {
    pub(crate) const ALL: [Self; 8] = [
        Self::ClearText,
        Self::Md5,
        Self::Unproven,
        Self::Unbound,
        Self::Trusting,
        Self::Huge,
        Self::Endless,
        Self::Silent,
    ];
}

/// The impostor. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Impostor {
    pub(crate) port: u16,
    got: Arc<Mutex<Vec<u8>>>,
    task: AbortHandle,
}

impl Impostor {
    /// Starts it on a free port of 127.0.0.1. It has a certificate that it made itself.
    pub(crate) async fn start(kind: Kind) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let got = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&got);
        let tls = acceptor();
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (tls, heard) = (tls.clone(), Arc::clone(&heard));
                // A client that goes away is what is wanted of it.
                tokio::spawn(async move { drop(greet(client, tls, kind, heard).await) });
            }
        });
        Self {
            port,
            got,
            task: task.abort_handle(),
        }
    }

    /// All that clients have sent after the names of role and database, without the headers.
    pub(crate) fn got(&self) -> Vec<u8> {
        self.got.lock().unwrap().clone()
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn acceptor() -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth();
    TlsAcceptor::from(Arc::new(config.with_single_cert(chain, key).unwrap()))
}

type Heard = Arc<Mutex<Vec<u8>>>;

async fn greet(
    mut client: TcpStream,
    tls: TlsAcceptor,
    kind: Kind,
    heard: Heard,
) -> std::io::Result<()> {
    if kind == Kind::Silent {
        return std::future::pending().await;
    }
    let mut first = [0; 8];
    client.peek(&mut first).await?;
    // A request for TLS has no parameters.
    if first == [0, 0, 0, 8, 4, 210, 22, 47] {
        client.read_exact(&mut first).await?;
        client.write_all(b"S").await?;
        return converse(tls.accept(client).await?, true, kind, heard).await;
    }
    converse(client, false, kind, heard).await
}

async fn converse(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    tls: bool,
    kind: Kind,
    heard: Heard,
) -> std::io::Result<()> {
    // Role and database.
    body(&mut client).await?;
    match kind {
        Kind::ClearText => client.write_all(&asks(3, b"")).await?,
        Kind::Md5 => client.write_all(&asks(5, b"salt")).await?,
        Kind::Trusting => client.write_all(&asks(0, b"")).await?,
        Kind::Huge => {
            client.write_all(&[b'E', 0x7f, 0xff, 0xff, 0xff]).await?;
            loop {
                client.write_all(&[b'x'; 4_096]).await?;
            }
        }
        Kind::Endless => {
            client.write_all(&asks(0, b"")).await?;
            let setting = format!("setting\0{}\0", "x".repeat(4_096));
            loop {
                client.write_all(&message(b'S', setting.as_bytes())).await?;
            }
        }
        Kind::Unbound => client.write_all(&asks(10, b"SCRAM-SHA-256\0\0")).await?,
        Kind::Unproven if tls => {
            let both = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
            client.write_all(&asks(10, both)).await?;
        }
        Kind::Unproven => client.write_all(&asks(10, b"SCRAM-SHA-256\0\0")).await?,
        Kind::Silent => {}
    }
    client.flush().await?;
    let answer = told(&mut client, &heard).await?;
    if kind == Kind::ClearText || kind == Kind::Md5 {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    if let Some((_, nonce)) = text.split_once("r=") {
        let first = format!("r={nonce}more,s=c2FsdHNhbHQ=,i=4096");
        client.write_all(&asks(11, first.as_bytes())).await?;
        client.flush().await?;
        told(&mut client, &heard).await?;
        let last = format!("v={}=", "A".repeat(43));
        client.write_all(&asks(12, last.as_bytes())).await?;
        client.write_all(&asks(0, b"")).await?;
        client.flush().await?;
    }
    loop {
        told(&mut client, &heard).await?;
    }
}

/// The next message of a client, which is noted.
async fn told(client: &mut (impl AsyncRead + Unpin), heard: &Heard) -> std::io::Result<Vec<u8>> {
    client.read_u8().await?;
    let told = body(client).await?;
    heard.lock().unwrap().extend(&told);
    Ok(told)
}

async fn body(client: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let length = client.read_u32().await?;
    let mut body = vec![0; usize::try_from(length).unwrap().saturating_sub(4)];
    client.read_exact(&mut body).await?;
    Ok(body)
}

fn asks(way: u32, more: &[u8]) -> Vec<u8> {
    message(b'R', &[&way.to_be_bytes()[..], more].concat())
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap() + 4;
    [&[kind][..], &length.to_be_bytes(), body].concat()
}
