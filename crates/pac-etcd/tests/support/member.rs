//! A server that belongs to one test, which kills, pauses and restarts it.

#[path = "../../../pac-postgres/tests/support/port.rs"]
mod port;

use std::env;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) use port::free_port;

/// The value of a variable that `cargo xtask test` sets.
pub(crate) fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: this test needs etcd; run it with `cargo xtask test --driver etcd`"
        )
    })
}

/// One member, on loopback, with its data in a temporary directory.
pub(crate) struct Member {
    program: PathBuf,
    args: Vec<String>,
    /// The variables that are set for it.
    env: Vec<(&'static str, &'static str)>,
    port: u16,
    scheme: &'static str,
    directory: tempfile::TempDir,
    child: Option<Child>,
}

/// The variable with the program of the oldest version.
pub(crate) const OLDEST: &str = "PAC_TEST_ETCD_BIN";

impl Member {
    /// A single member of the oldest version that runs.
    pub(crate) fn single(args: &[&str]) -> Self {
        let mut member = Self::new("http", free_port());
        member.run_alone(args);
        member
    }

    /// A single member that runs, of the program that a variable names, on one core.
    pub(crate) fn single_of(program: &str, args: &[&str]) -> Self {
        let mut member = Self::of(program, "http", free_port());
        // With more, it spends its time handing requests from one to the other.
        member.env.push(("GOMAXPROCS", "1"));
        member.run_alone(args);
        member
    }

    fn run_alone(&mut self, args: &[&str]) {
        let peer = format!("http://127.0.0.1:{}", free_port());
        self.join("default", (&peer, &peer), &format!("default={peer}"));
        self.args.extend(args.iter().map(ToString::to_string));
        self.start();
        self.wait_until_healthy();
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

    pub(crate) fn new(scheme: &'static str, port: u16) -> Self {
        Self::of(OLDEST, scheme, port)
    }

    fn of(program: &str, scheme: &'static str, port: u16) -> Self {
        Self {
            program: variable(program).into(),
            args: Vec::new(),
            env: Vec::new(),
            port,
            scheme,
            directory: tempfile::tempdir().unwrap(),
            child: None,
        }
    }

    /// Sets the flags of a member, with the addresses at which it listens for the other members and
    /// at which they reach it.
    pub(crate) fn join(&mut self, name: &str, (listens, found): (&str, &str), cluster: &str) {
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
            .envs(self.env.iter().copied())
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

    /// A copy of its data, while it does not run: what a snapshot of it holds.
    pub(crate) fn copy_of_data(&self) -> tempfile::TempDir {
        assert!(self.child.is_none());
        let copy = tempfile::tempdir().unwrap();
        copy_all(
            &self.directory.path().join("data"),
            &copy.path().join("data"),
        );
        copy
    }

    /// Puts a copy in the place of its data, while it does not run.
    pub(crate) fn put_back(&self, copy: &tempfile::TempDir) {
        assert!(self.child.is_none());
        let data = self.directory.path().join("data");
        std::fs::remove_dir_all(&data).unwrap();
        copy_all(&copy.path().join("data"), &data);
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

    /// How many bytes it has sent to clients.
    pub(crate) fn sent_bytes(&self) -> u64 {
        let metrics = self.get("/metrics").unwrap();
        let name = "etcd_network_client_grpc_sent_bytes_total ";
        let told = metrics.lines().find_map(|line| line.strip_prefix(name));
        told.unwrap().parse::<f64>().unwrap() as u64
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

fn copy_all(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success());
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}
