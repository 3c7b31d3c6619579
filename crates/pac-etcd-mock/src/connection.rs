//! Connections that can be cut.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, watch};
use tonic::codegen::http::Extensions;
use tonic::transport::server::{Connected, TlsConnectInfo};

/// What a request knows of its connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Line(Option<Arc<Notify>>);

impl Line {
    /// The connection of a request.
    pub(crate) fn of(request: &Extensions) -> Self {
        let plain = request.get::<Self>();
        let tls = || Some(request.get::<TlsConnectInfo<Self>>()?.get_ref());
        plain.or_else(tls).cloned().unwrap_or_default()
    }

    /// Cuts it. Returns only where there is no connection to cut.
    pub(crate) async fn cut(&self) {
        if let Some(cut) = &self.0 {
            cut.notify_one();
            // The request ends with its connection.
            std::future::pending::<()>().await;
        }
    }
}

/// One connection. It ends when its server does, and when it or all connections are cut.
pub(crate) struct Connection<S> {
    inner: S,
    line: Line,
    cut: BoxFuture<'static, ()>,
    is_cut: bool,
}

impl<S> Connection<S> {
    /// `cuts` changes when all connections are to be cut.
    pub(crate) fn new(inner: S, mut cuts: watch::Receiver<u64>) -> Self {
        cuts.mark_unchanged();
        let own = Arc::new(Notify::new());
        let line = Line(Some(Arc::clone(&own)));
        let cut = Box::pin(async move {
            tokio::select! {
                // An error means that the server has ended.
                _ = cuts.changed() => {}
                () = own.notified() => {}
            }
        });
        Self {
            inner,
            line,
            cut,
            is_cut: false,
        }
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        self.is_cut = self.is_cut || self.cut.as_mut().poll(context).is_ready();
        if self.is_cut {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl<S> fmt::Debug for Connection<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("is_cut", &self.is_cut)
            .finish_non_exhaustive()
    }
}

impl<S> Connected for Connection<S> {
    type ConnectInfo = Line;

    fn connect_info(&self) -> Line {
        self.line.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // Reading notices the cut: a connection is read as long as it lasts.
        if self.is_cut {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_cut {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.inner).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
