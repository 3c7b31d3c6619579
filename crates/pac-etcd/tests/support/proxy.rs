//! A connection with faults between a driver and its server.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// Everything passes.
    Sound,
    /// What the server answers is lost, and what is asked arrives.
    AnswersLost,
    /// Nothing passes, and nobody is told.
    Silent,
    /// Connections are closed, and no new ones taken.
    Cut,
}

/// Passes on what comes to its port.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) endpoint: String,
    line: Arc<watch::Sender<Line>>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn before(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let line = Arc::new(watch::Sender::new(Line::Sound));
        let state = Arc::clone(&line);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(client, server.clone(), state.subscribe()));
            }
        });
        Self {
            endpoint,
            line,
            task,
        }
    }

    pub(crate) fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connect(client: TcpStream, server: String, mut line: watch::Receiver<Line>) {
    if *line.borrow() == Line::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let asked = pass(from_client, to_server, line.clone(), &[Line::Silent]);
    let lost = [Line::Silent, Line::AnswersLost];
    let answered = pass(from_server, to_client, line.clone(), &lost);
    tokio::select! {
        () = asked => {}
        () = answered => {}
        _ = line.wait_for(|line| *line == Line::Cut) => {}
    }
}

/// What comes while the line swallows it is gone for good, and the connection with it as soon as
/// the line is sound again.
async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut line: watch::Receiver<Line>,
    swallowing: &[Line],
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(read) = from.read(&mut buffer).await else {
            return;
        };
        if read == 0 {
            return;
        }
        if swallowing.contains(&line.borrow()) {
            let _ = line.wait_for(|line| !swallowing.contains(line)).await;
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
