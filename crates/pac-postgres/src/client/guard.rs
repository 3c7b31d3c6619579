//! Between the client library and a server: TLS or none, and a look at what the server says until it
//! has let this process in.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::startup::Startup;
use crate::options::Authentication;

type Tls = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
type Handshake = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;

/// Makes the streams of connections. Without TLS, too: the client library hands a socket to it in
/// either case.
#[derive(Clone)]
pub(super) struct Guard {
    tls: Option<MakeRustlsConnect>,
    demanded: Authentication,
}

impl Guard {
    pub(super) fn new(tls: Option<rustls::ClientConfig>, demanded: Authentication) -> Self {
        Self {
            tls: tls.map(MakeRustlsConnect::new),
            demanded,
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Guard");
        shown.field("tls", &self.tls.is_some());
        shown.field("demanded", &self.demanded);
        shown.finish()
    }
}

impl MakeTlsConnect<Socket> for Guard {
    type Stream = Guarded;
    type TlsConnect = Opening;
    type Error = Infallible;

    fn make_tls_connect(&mut self, host: &str) -> Result<Opening, Infallible> {
        let handshake = |tls| MakeTlsConnect::<Socket>::make_tls_connect(tls, host);
        let tls = self.tls.as_mut().map(handshake);
        Ok(Opening {
            tls: tls.transpose()?,
            demanded: self.demanded,
        })
    }
}

/// Makes the stream of one connection.
pub(super) struct Opening {
    tls: Option<Handshake>,
    demanded: Authentication,
}

impl TlsConnect<Socket> for Opening {
    type Stream = Guarded;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Guarded>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        let startup = Some(Startup::new(self.demanded));
        Box::pin(async move {
            let stream = match self.tls {
                Some(tls) => Stream::Tls(Box::new(tls.connect(socket).await?)),
                None => Stream::Plain(socket),
            };
            Ok(Guarded { stream, startup })
        })
    }
}

/// The bytes of a connection, as the client library sends and gets them.
pub(super) struct Guarded {
    stream: Stream,
    /// `None` once the server has let this process in.
    startup: Option<Startup>,
}

enum Stream {
    Plain(Socket),
    Tls(Box<Tls>),
}

impl TlsStream for Guarded {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.stream {
            Stream::Plain(_) => ChannelBinding::none(),
            Stream::Tls(tls) => tls.channel_binding(),
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(match &mut self.stream {
            Stream::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Stream::Tls(tls) => Pin::new(tls).poll_read(cx, buffer),
        })?;
        if let Some(startup) = &mut self.startup {
            let received = buffer.filled().get(before..).unwrap_or_default();
            if let Err(refusal) = startup.receive(received) {
                // The library gets none of it, and no more.
                buffer.set_filled(before);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refusal)));
            }
            if startup.is_over() {
                self.startup = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Stream::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
