//! An etcd that belongs to one test, which kills and restarts it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::own::free_port;
use super::{eventually, variable};

/// A single member with its data in a temporary directory. Dropping it kills it and deletes the
/// directory.
#[derive(Debug)]
pub(crate) struct OwnEtcd {
    client: u16,
    peer: u16,
    directory: tempfile::TempDir,
    server: Option<Child>,
}

impl OwnEtcd {
    /// Starts a member, and waits until it is healthy.
    pub(crate) fn start() -> Self {
        let mut etcd = Self {
            client: free_port(),
            peer: free_port(),
            directory: tempfile::tempdir().unwrap(),
            server: None,
        };
        etcd.start_again();
        etcd
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client)
    }

    /// Starts the member, which does not run, with the data that it had, and waits until it is
    /// healthy.
    pub(crate) fn start_again(&mut self) {
        let (client, peer) = (
            format!("http://127.0.0.1:{}", self.client),
            format!("http://127.0.0.1:{}", self.peer),
        );
        let mut server = Command::new(variable("PAC_TEST_ETCD_BIN"));
        server.arg("--data-dir").arg(self.directory.path());
        server.args(["--listen-client-urls", &client]);
        server.args(["--advertise-client-urls", &client]);
        server.args(["--listen-peer-urls", &peer]);
        server.args(["--initial-advertise-peer-urls", &peer]);
        server.args(["--initial-cluster", &format!("default={peer}")]);
        server.stdin(Stdio::null());
        server.stdout(Stdio::null()).stderr(Stdio::null());
        self.server = Some(server.spawn().unwrap());
        eventually("etcd", || self.is_healthy().unwrap_or(false));
    }

    pub(crate) fn kill_9(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    fn is_healthy(&self) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(self.endpoint())?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET /health HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.contains("\"health\":\"true\""))
    }
}

impl Drop for OwnEtcd {
    fn drop(&mut self) {
        self.kill_9();
    }
}
