//! A connection with faults between a driver and its server.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What the connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// Everything passes.
    Sound,
    /// Requests arrive, and their answers are lost.
    AnswersLost,
    /// Nothing passes, and connections stay open.
    Silent,
    /// Connections are closed, new ones at once.
    Cut,
}

/// Passes on connections to its port.
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

/// The lines between the members of a cluster, of which one can be cut off from the others.
#[derive(Debug)]
pub(crate) struct Lines {
    /// The number and the id of the member that is cut off.
    cut_off: Arc<watch::Sender<Option<(usize, String)>>>,
    tasks: JoinSet<()>,
}

impl Lines {
    /// Stands before members that listen on these ports. Returns the ports at which the other
    /// members reach them.
    pub(crate) async fn before(members: &[u16]) -> (Self, Vec<u16>) {
        let cut_off = Arc::new(watch::Sender::new(None));
        let (mut tasks, mut found) = (JoinSet::new(), Vec::new());
        for (n, server) in members.iter().copied().enumerate() {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            found.push(listener.local_addr().unwrap().port());
            let state = Arc::clone(&cut_off);
            tasks.spawn(async move {
                while let Ok((peer, _)) = listener.accept().await {
                    tokio::spawn(connect_peer(peer, (n, server), state.subscribe()));
                }
            });
        }
        (Self { cut_off, tasks }, found)
    }

    /// Lets nothing pass from and to this member, until another one is cut off or none.
    pub(crate) fn cut_off(&self, member: Option<(usize, String)>) {
        self.cut_off.send_replace(member);
    }
}

/// Passes on what other members send to the member `n`. All of them reach it at the same address;
/// the first request says which of them is sending.
async fn connect_peer(
    mut peer: TcpStream,
    (n, server): (usize, u16),
    mut cut_off: watch::Receiver<Option<(usize, String)>>,
) {
    let mut first = vec![0; 4 * 1024];
    let Ok(read) = peer.read(&mut first).await else {
        return;
    };
    let head = String::from_utf8_lossy(&first[..read]).into_owned();
    let from = head
        .lines()
        .find_map(|line| line.strip_prefix("X-Server-From: "));
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await else {
        return;
    };
    let passes = async {
        server.write_all(&first[..read]).await?;
        tokio::io::copy_bidirectional(&mut peer, &mut server).await
    };
    let is_cut = |cut: &Option<(usize, String)>| {
        let concerned = |(number, id): &(usize, String)| *number == n || from == Some(id.as_str());
        cut.as_ref().is_some_and(concerned)
    };
    tokio::select! {
        biased;
        _ = cut_off.wait_for(is_cut) => {}
        _ = passes => {}
    }
}

/// What arrives while the line swallows it is lost. The connection is closed as soon as the line no
/// longer swallows.
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
