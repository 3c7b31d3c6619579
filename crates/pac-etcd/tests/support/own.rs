//! Servers that belong to one test, which kills, pauses and restarts them.

#[path = "../../../pac-postgres/tests/support/port.rs"]
mod port;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) use port::free_port;

use super::proxy::Lines;
use super::variable;

/// One member, on loopback, with its data in a temporary directory.
pub(crate) struct Member {
    program: PathBuf,
    args: Vec<String>,
    port: u16,
    scheme: &'static str,
    directory: tempfile::TempDir,
    child: Option<Child>,
}

/// The variable with the program of the oldest version.
pub(crate) const OLDEST: &str = "PAC_TEST_ETCD_BIN";

impl Member {
    /// A single member that runs.
    pub(crate) fn single(args: &[&str]) -> Self {
        let mut member = Self::new("http", free_port());
        let peer = format!("http://127.0.0.1:{}", free_port());
        member.join("default", (&peer, &peer), &format!("default={peer}"));
        member.args.extend(args.iter().map(ToString::to_string));
        member.start();
        member.wait_until_healthy();
        member
    }

    /// A single member that speaks TLS alone, with these flags for its certificates.
    pub(crate) fn with_tls(args: &[String]) -> Self {
        let mut member = Self::new("https", free_port());
        let peer = format!("http://127.0.0.1:{}", free_port());
        member.join("default", (&peer, &peer), &format!("default={peer}"));
        member.args.extend(args.iter().cloned());
        member.start();
        member.wait_until_open();
        member
    }

    fn new(scheme: &'static str, port: u16) -> Self {
        Self {
            program: variable(OLDEST).into(),
            args: Vec::new(),
            port,
            scheme,
            directory: tempfile::tempdir().unwrap(),
            child: None,
        }
    }

    /// Sets the flags of a member, with the addresses at which it listens for the other members and
    /// at which they reach it.
    fn join(&mut self, name: &str, (listens, found): (&str, &str), cluster: &str) {
        let client = format!("{}://127.0.0.1:{}", self.scheme, self.port);
        let data = self.directory.path().join("data");
        for (flag, value) in [
            ("--name", name),
            ("--data-dir", &data.to_string_lossy()),
            ("--listen-client-urls", &client),
            ("--advertise-client-urls", &client),
            ("--listen-peer-urls", listens),
            ("--initial-advertise-peer-urls", found),
            ("--initial-cluster", cluster),
        ] {
            self.args.extend([flag.to_owned(), value.to_owned()]);
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it, or starts it again with the data that it had.
    pub(crate) fn start(&mut self) {
        let child = Command::new(&self.program)
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap());
    }

    /// As by `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &id]).status();
        assert!(sent.unwrap().success());
    }

    pub(crate) fn wait_until_healthy(&self) {
        self.wait(Self::is_healthy);
    }

    /// Whether the member says that it is healthy, for which it needs a majority.
    pub(crate) fn is_healthy(&self) -> bool {
        self.get("/health")
            .is_some_and(|answer| answer.contains("\"health\":\"true\""))
    }

    fn wait_until_open(&self) {
        self.wait(|member| TcpStream::connect(member.endpoint()).is_ok());
    }

    fn wait(&self, ready: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !ready(self) {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "it does not start"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// How many requests of a method it has answered.
    pub(crate) fn answered(&self, method: &str) -> u64 {
        self.counted("grpc_server_handled_total", method)
    }

    /// How many messages of a method's streams it has received.
    pub(crate) fn received(&self, method: &str) -> u64 {
        self.counted("grpc_server_msg_received_total", method)
    }

    fn counted(&self, metric: &str, method: &str) -> u64 {
        let metrics = self.get("/metrics").unwrap();
        let method = format!("grpc_method=\"{method}\"");
        let lines = metrics.lines();
        let lines = lines.filter(|line| line.starts_with(metric) && line.contains(&method));
        let counts = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        counts.sum::<f64>() as u64
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.endpoint()).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Three members.
pub(crate) struct Cluster(pub(crate) Vec<Member>);

impl Cluster {
    pub(crate) fn start() -> Self {
        let ports: Vec<_> = (0..3).map(|_| free_port()).collect();
        Self::on(&ports, &ports)
    }

    /// Starts three members with connections between them that can be cut.
    pub(crate) async fn with_lines() -> (Self, Lines) {
        let listen: Vec<_> = (0..3).map(|_| free_port()).collect();
        let (lines, found) = Lines::before(&listen).await;
        (Self::on(&listen, &found), lines)
    }

    fn on(listen: &[u16], found: &[u16]) -> Self {
        let url = |port: &u16| format!("http://127.0.0.1:{port}");
        let peers: Vec<String> = found.iter().map(url).collect();
        let names = peers.iter().enumerate();
        let cluster: Vec<String> = names.map(|(n, peer)| format!("m{n}={peer}")).collect();
        let mut members = Vec::new();
        for (n, peer) in peers.iter().enumerate() {
            let mut member = Member::new("http", free_port());
            let listens = url(&listen[n]);
            member.join(&format!("m{n}"), (&listens, peer), &cluster.join(","));
            member.start();
            members.push(member);
        }
        for member in &members {
            member.wait_until_healthy();
        }
        Self(members)
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.0.iter().map(Member::endpoint).collect()
    }

    /// The id by which the other members know this one.
    pub(crate) async fn id(&self, member: usize) -> String {
        let client = super::raw(&self.0[member].endpoint()).await;
        let status = client.maintenance_client().status().await.unwrap();
        format!("{:x}", status.header().unwrap().member_id())
    }

    /// The number of the member that leads.
    pub(crate) async fn leader(&self) -> usize {
        for (n, member) in self.0.iter().enumerate() {
            let client = super::raw(&member.endpoint()).await;
            if let Ok(status) = client.maintenance_client().status().await
                && status.header().unwrap().member_id() == status.leader()
            {
                return n;
            }
        }
        panic!("nobody leads");
    }
}
