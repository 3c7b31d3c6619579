//! `pac` on real stores, started by `cargo xtask test` or by the test itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![allow(
    dead_code,
    unused_macros,
    unused_imports,
    reason = "each test binary uses its part of this"
)]

#[path = "../../../pac-postgres/tests/support/own.rs"]
pub(crate) mod own;

pub(crate) mod etcd;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The repository that tests use.
pub(crate) const WEB: &str = "ci/web";

/// What the host is called on which commands run here.
pub(crate) const HOST: &str = "ci-runner-7";

/// The longest time for anything that should be immediate, on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// An environment variable that `cargo xtask test` sets. These tests cannot pass without it.
#[track_caller]
pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: these tests need servers, which `cargo xtask test` starts")
    })
}

/// `psql` on the PostgreSQL that `cargo xtask test` started.
pub(crate) fn psql(args: &[&str]) -> Command {
    let mut psql = Command::new("psql");
    psql.args(["-h", "127.0.0.1", "-p", &variable("PAC_TEST_POSTGRES")]);
    psql.args(["-U", "postgres", "-qtA"]).args(args);
    psql
}

/// Runs every test on every store, with the store's name in the test's.
macro_rules! on_every_store {
    ($($(#[$attribute:meta])* $test:ident,)*) => {
        #[cfg(feature = "postgres")]
        mod postgres {
            $($(#[$attribute])* #[test] fn $test() { super::$test(&crate::servers::Store::postgres()); })*
        }
        #[cfg(feature = "etcd")]
        mod etcd {
            $($(#[$attribute])* #[test] fn $test() { super::$test(&crate::servers::Store::etcd()); })*
        }
    };
}
pub(crate) use on_every_store;

/// A part of a store that no other test uses, and a directory for files of the commands.
#[derive(Debug)]
pub(crate) struct Store {
    settings: Vec<(String, String)>,
    directory: tempfile::TempDir,
}

impl Store {
    /// A schema on the PostgreSQL that `cargo xtask test` started.
    pub(crate) fn postgres() -> Self {
        Self::unprepared_postgres().prepared()
    }

    /// The name of one that is not there yet.
    pub(crate) fn unprepared_postgres() -> Self {
        Self::at_postgres(&variable("PAC_TEST_POSTGRES"))
    }

    /// The same store, whose schema is there: commands that only look at it create none.
    pub(crate) fn prepared(self) -> Self {
        let applied = self.run(&["schema", "apply"]);
        assert_eq!(applied.code, 0, "{applied:?}");
        self
    }

    /// The name of a schema, which is not there yet, on a PostgreSQL at this port.
    pub(crate) fn at_postgres(port: &str) -> Self {
        let schema = unique();
        Self::with([
            ("concurrency-driver", "postgresql"),
            ("postgresql-host", "127.0.0.1"),
            ("postgresql-port", port),
            ("postgresql-database", "postgres"),
            ("postgresql-username", "postgres"),
            ("postgresql-ssl-mode", "disable"),
            ("postgresql-schema", &schema),
        ])
    }

    /// A prefix on the etcd that `cargo xtask test` started.
    pub(crate) fn etcd() -> Self {
        Self::at_etcd(&variable("PAC_TEST_ETCD"))
    }

    /// A prefix on an etcd at this endpoint.
    pub(crate) fn at_etcd(endpoint: &str) -> Self {
        Self::with([
            ("concurrency-driver", "etcd"),
            ("etcd-endpoints", endpoint),
            ("etcd-prefix", &format!("/{}/", unique())),
        ])
    }

    fn with<const N: usize>(settings: [(&str, &str); N]) -> Self {
        let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Self {
            settings: settings.into(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn settings(&self) -> &[(String, String)] {
        &self.settings
    }

    /// Changes or adds a setting.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value.to_owned()));
    }

    /// A file in the directory that commands write and tests read.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `pac` with these arguments, its output piped, without a terminal that could signal it.
    pub(crate) fn pac(&self, args: &[&str]) -> Command {
        let mut command = Command::new("setsid");
        command.arg("--wait").arg(env!("CARGO_BIN_EXE_pac"));
        self.prepare(&mut command, args);
        command
    }

    /// Like [`Self::pac`], without `setsid`: the process id is that of `pac` itself.
    pub(crate) fn pac_itself(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pac"));
        self.prepare(&mut command, args);
        command
    }

    fn prepare(&self, command: &mut Command, args: &[&str]) {
        for (key, value) in &self.settings {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        command
            .args(args)
            .env("HOSTNAME", HOST)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }

    pub(crate) fn run(&self, args: &[&str]) -> Finished {
        Running::start(self.pac(args)).wait()
    }

    /// Starts `pac exec` on the repository, with a script for `sh`.
    pub(crate) fn exec(&self, args: &[&str], script: &str) -> Running {
        let exec = ["exec", "--repository", WEB];
        let command = ["--", "sh", "-c", script];
        Running::start(self.pac_itself(&[&exec, args, &command].concat()))
    }

    /// The output of `pac … --output json`, parsed.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let finished = self.run(&[args, &["--output", "json"]].concat());
        assert_eq!(finished.code, 0, "{}", finished.stderr);
        serde_json::from_str(&finished.stdout).unwrap()
    }

    /// The numbers of running and waiting runs.
    pub(crate) fn counts(&self) -> (usize, usize) {
        self.counts_of(WEB)
    }

    /// The same of another repository.
    pub(crate) fn counts_of(&self, repository: &str) -> (usize, usize) {
        // Of one that the store does not know, there is an empty list.
        let status = self.run(&["status", repository, "--output", "json"]);
        let status: Value = serde_json::from_str(&status.stdout).expect(&status.stderr);
        let count = |list: &str| status[0][list].as_array().map_or(0, Vec::len);
        (count("running"), count("queued"))
    }

    pub(crate) fn wait_for_counts(&self, running: usize, queued: usize) {
        eventually("as many runs as expected", || {
            self.counts() == (running, queued)
        });
    }
}

/// A name that no other test uses.
fn unique() -> String {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let last = LAST.fetch_add(1, Ordering::Relaxed);
    format!("cli_{}_{last}", std::process::id())
}

/// A running `pac`, which is killed if the test fails.
#[derive(Debug)]
pub(crate) struct Running {
    child: Option<Child>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        Self {
            child: Some(command.spawn().unwrap()),
        }
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        self.child.as_mut().unwrap()
    }

    /// Sends a signal to `pac`.
    pub(crate) fn signal(&mut self, name: &str) {
        signal(name, self.child().id());
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child().try_wait().unwrap().is_some()
    }

    pub(crate) fn wait(mut self) -> Finished {
        let output = self.child.take().unwrap().wait_with_output().unwrap();
        let finished = Finished {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        assert!(!finished.stderr.contains("panicked"), "{finished:?}");
        finished
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The output of a `pac` that has ended; code -1 if a signal ended it.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn signal(name: &str, process: u32) {
    let status = Command::new("kill")
        .args(["-s", name, &process.to_string()])
        .status();
    assert!(status.unwrap().success(), "{name}");
}

pub(crate) fn is_alive(process: u32) -> bool {
    // A zombie counts as ended.
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status
        .lines()
        .any(|line| line.starts_with("State:") && !line.contains('Z'))
}

/// The present content of a file.
pub(crate) fn read(path: &Path) -> String {
    let mut text = String::new();
    if let Ok(mut file) = fs::File::open(path) {
        file.read_to_string(&mut text).unwrap();
    }
    text
}

/// Waits until a file contains the text.
pub(crate) fn wait_for_text(path: &Path, text: &str) {
    eventually(text, || read(path).contains(text));
}

/// Waits until a condition holds, and returns how long that took.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < SOON, "not within {SOON:?}: {what}");
        sleep(Duration::from_millis(20));
    }
    start.elapsed()
}
