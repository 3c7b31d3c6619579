//! Connections that the server can cut.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// All open connections of a server, and whether it takes new ones.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: Mutex<Vec<Weak<Switch>>>,
    away: AtomicBool,
}

impl Connections {
    /// Whether new connections are closed as soon as they are accepted.
    pub(crate) fn away(&self) -> bool {
        self.away.load(Ordering::SeqCst)
    }

    /// Takes new connections, or cuts all that are open and closes new ones at once.
    pub(crate) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
        if away {
            self.cut(|_| true);
        }
    }

    /// Cuts the connections that carry a watch; returns how many.
    pub(crate) fn cut_watches(&self) -> usize {
        self.cut(|switch| switch.watching.load(Ordering::SeqCst))
    }

    fn cut(&self, chosen: impl Fn(&Switch) -> bool) -> usize {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|switch| switch.strong_count() > 0);
        let open = open.iter().filter_map(Weak::upgrade);
        open.filter(|switch| chosen(switch))
            .map(|switch| switch.cut())
            .count()
    }

    fn admit(&self) -> Arc<Switch> {
        let switch = Arc::new(Switch::default());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|switch| switch.strong_count() > 0);
        open.push(Arc::downgrade(&switch));
        switch
    }
}

/// Cuts one connection: both its ends see an error, and nothing more is sent.
#[derive(Debug, Default)]
pub(crate) struct Switch {
    cut: AtomicBool,
    watching: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Switch {
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        self.reader.wake();
        self.writer.wake();
    }

    /// Says whether the connection carries a watch.
    pub(crate) fn set_watching(&self, watching: bool) {
        self.watching.store(watching, Ordering::SeqCst);
    }

    fn check(&self) -> io::Result<()> {
        if self.cut.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

/// What a request knows of its connection.
#[derive(Debug, Clone)]
pub(crate) struct Connection(pub(crate) Arc<Switch>);

impl Connected<IncomingStream<'_, Door>> for Connection {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        Self(Arc::clone(&stream.io().switch))
    }
}

/// Accepts connections, while the server is not away.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) listener: TcpListener,
    pub(crate) connections: Arc<Connections>,
}

impl Listener for Door {
    type Io = Wire;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Wire, SocketAddr) {
        loop {
            let Ok((stream, peer)) = self.listener.accept().await else {
                // Out of file descriptors, say: there may be some soon.
                sleep(Duration::from_millis(10)).await;
                continue;
            };
            // Without this, small answers wait for the peer's delayed acknowledgement.
            let _ = stream.set_nodelay(true);
            // Looked at after the connection counts as open, so that it cannot be missed by both.
            let switch = self.connections.admit();
            if !self.connections.away() {
                return (Wire { stream, switch }, peer);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection with its switch.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    switch: Arc<Switch>,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.switch.reader.register(context.waker());
        self.switch.check()?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.switch.writer.register(context.waker());
        self.switch.check()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
