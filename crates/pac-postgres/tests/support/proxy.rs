//! A line between driver and server that can be cut.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Passes bytes on, counts requests, and can swallow an answer.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The next request with this text gets no answer: its connection is cut instead.
    swallow: std::sync::Mutex<Option<String>>,
    swallowed: AtomicUsize,
    /// The texts of the requests so far.
    log: std::sync::Mutex<Vec<String>>,
}

impl Proxy {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            shared: Arc::default(),
        };
        let shared = Arc::clone(&proxy.shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                tokio::spawn(pass(client, server, Arc::clone(&shared)));
            }
        });
        proxy
    }

    /// The next request that holds this text reaches the server, and its answer does not come.
    pub(crate) fn swallow_answer_to(&self, text: &str) {
        *self.shared.swallow.lock().unwrap() = Some(text.to_owned());
    }

    pub(crate) fn swallowed(&self) -> usize {
        self.shared.swallowed.load(Ordering::SeqCst)
    }

    /// Round trips so far that held this text.
    pub(crate) fn requests_with(&self, text: &str) -> usize {
        let log = self.shared.log.lock().unwrap();
        log.iter().filter(|request| request.contains(text)).count()
    }

    /// The requests so far that hold none of these texts.
    pub(crate) fn requests_without(&self, texts: &[&str]) -> Vec<String> {
        let log = self.shared.log.lock().unwrap();
        let is_other = |request: &&String| !texts.iter().any(|text| request.contains(text));
        log.iter().filter(is_other).cloned().collect()
    }

    pub(crate) fn clear(&self) {
        self.shared.log.lock().unwrap().clear();
    }
}

/// The statements that have a name on a connection.
#[derive(Debug, Default)]
struct Names(HashMap<String, String>);

impl Names {
    /// The text of a request, followed by that of the statement that it names; `None` if all that
    /// it does is to give a statement its name. A request is one packet, which begins with a
    /// message.
    fn request(&mut self, packet: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(packet).into_owned();
        // A message begins with its kind, one byte, and its length, four bytes.
        let body = packet.get(5..).unwrap_or_default();
        let mut strings = body.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let (first, second) = (strings.next()?, strings.next().unwrap_or_default());
        match packet.first() {
            Some(b'P') if !first.is_empty() => {
                self.0.insert(first.into_owned(), second.into_owned());
                None
            }
            // This message names the portal before the statement.
            Some(b'B') => {
                let named = self.0.get(second.as_ref()).map(String::as_str);
                Some(text + named.unwrap_or_default())
            }
            _ => Some(text),
        }
    }
}

async fn pass(client: TcpStream, server: TcpStream, shared: Arc<Shared>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let cut = Arc::new(tokio::sync::Notify::new());
    let (cut_there, requests) = (Arc::clone(&cut), Arc::clone(&shared));
    let forth = tokio::spawn(async move {
        let mut buffer = vec![0; 1 << 16];
        let mut names = Names::default();
        loop {
            let n = from_client.read(&mut buffer).await.unwrap_or(0);
            if n == 0 {
                return;
            }
            let text = names.request(&buffer[..n]);
            let swallow = {
                let mut swallow = requests.swallow.lock().unwrap();
                let holds = |word: &str| text.as_deref().is_some_and(|text| text.contains(word));
                let hit = swallow.as_deref().is_some_and(holds);
                if hit {
                    *swallow = None;
                }
                hit
            };
            requests.log.lock().unwrap().extend(text);
            if swallow {
                cut_there.notify_one();
            }
            if to_server.write_all(&buffer[..n]).await.is_err() {
                return;
            }
            if swallow {
                // No later request may reach the server on this connection.
                std::future::pending::<()>().await;
            }
        }
    });
    let mut buffer = vec![0; 1 << 16];
    let mut deaf = false;
    loop {
        tokio::select! {
            () = cut.notified() => deaf = true,
            read = from_server.read(&mut buffer) => {
                let n = read.unwrap_or(0);
                if n == 0 || deaf {
                    if deaf {
                        // The answer has come, so the request has been carried out.
                        shared.swallowed.fetch_add(1, Ordering::SeqCst);
                    }
                    break;
                }
                if to_client.write_all(&buffer[..n]).await.is_err() {
                    break;
                }
            }
        }
    }
    forth.abort();
}
