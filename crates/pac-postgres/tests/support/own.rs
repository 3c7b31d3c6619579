//! A server that belongs to one test, which kills and restarts it.

#[path = "port.rs"]
mod port;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub(crate) use port::free_port;

use super::variable;

/// A PostgreSQL server in a temporary directory. Dropping it kills it and deletes the directory.
#[derive(Debug)]
pub(crate) struct OwnServer {
    pub(crate) port: u16,
    programs: PathBuf,
    directory: tempfile::TempDir,
    server: Option<Child>,
    /// The library that gives the server a clock of its own.
    clock: Option<String>,
}

impl OwnServer {
    /// Starts a server of the version `which`, with lines added to its configuration, and with its
    /// `pg_hba.conf` replaced if `hba` is not empty.
    pub(crate) fn start(which: &str, configuration: &str, hba: &str) -> Self {
        let server = Self::prepare(which);
        let data = server.data();
        let mut text = fs::read_to_string(data.join("postgresql.conf")).unwrap();
        text.push_str(configuration);
        server.write("postgresql.conf", &text);
        if !hba.is_empty() {
            server.write("pg_hba.conf", hba);
        }
        let mut server = server;
        server.start_again();
        server
    }

    /// Starts a server whose clock can be [set](Self::set_clock), and stands right at first.
    pub(crate) fn start_with_a_clock(which: &str) -> Self {
        let mut server = Self::prepare(which);
        server.clock = Some(variable("PAC_TEST_FAKETIME"));
        server.set_clock(0);
        server.start_again();
        server
    }

    /// Sets the clock of the server to so many seconds from now.
    pub(crate) fn set_clock(&self, seconds: i64) {
        let (new, file) = (self.directory.path().join("new"), self.clock_file());
        fs::write(&new, format!("{seconds:+}\n")).unwrap();
        // The server reads the file all the time, so it must never be half there.
        fs::rename(new, file).unwrap();
    }

    fn clock_file(&self) -> PathBuf {
        self.directory.path().join("clock")
    }

    /// Prepares such a server, but does not start it.
    pub(crate) fn prepare(which: &str) -> Self {
        let programs = PathBuf::from(variable(&format!("{which}_BIN")));
        let directory = tempfile::tempdir().unwrap();
        let run = Self {
            port: free_port(),
            programs,
            directory,
            server: None,
            clock: None,
        };
        own(run.directory.path());
        let mut initdb = run.program("initdb");
        initdb.arg("-D").arg(run.data());
        initdb.args([
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-sync",
        ]);
        let output = initdb.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        run
    }

    /// A copy of this running server that follows it, and has caught up with it when it takes
    /// connections.
    pub(crate) fn standby(&self, name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        own(directory.path());
        let mut standby = Self {
            port: free_port(),
            programs: self.programs.clone(),
            directory,
            server: None,
            clock: None,
        };
        let from = format!(
            "host=127.0.0.1 port={} user=postgres application_name={name}",
            self.port
        );
        let mut copy = self.program("pg_basebackup");
        copy.arg("-D").arg(standby.data());
        copy.args([
            "--dbname",
            &from,
            "--checkpoint=fast",
            "--write-recovery-conf",
        ]);
        let output = copy.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        standby.start_again();
        standby
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Writes a file into the data directory that only the server can read.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.data().join(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, text).unwrap();
        chmod_600(&path);
        own(&path);
    }

    /// Starts the server, which does not run, and waits until it takes connections.
    pub(crate) fn start_again(&mut self) {
        self.start_again_with(&[]);
    }

    pub(crate) fn start_again_with(&mut self, args: &[&str]) {
        assert!(self.server.is_none());
        let start = Instant::now();
        let mut server = self.spawn(args);
        while !self.is_ready() {
            if server.try_wait().unwrap().is_some() {
                // The killed server may not be gone yet, and then a new one cannot start.
                server = self.spawn(args);
            }
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "did not start: {}",
                fs::read_to_string(self.directory.path().join("log")).unwrap()
            );
            sleep(Duration::from_millis(50));
        }
        self.server = Some(server);
    }

    fn spawn(&self, args: &[&str]) -> Child {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join("log"))
            .unwrap();
        let port = self.port.to_string();
        let mut command = match &self.clock {
            Some(library) => self.program_with_a_clock(library),
            None => self.program("postgres"),
        };
        command.arg("-D").arg(self.data()).args(["-p", &port]);
        command.args(["-c", "listen_addresses=127.0.0.1"]);
        command.args(["-c", "unix_socket_directories="]);
        command.args(args).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        command.spawn().unwrap()
    }

    fn is_ready(&self) -> bool {
        let port = self.port.to_string();
        let mut ready = Command::new(self.programs.join("pg_isready"));
        ready.args(["-q", "-h", "127.0.0.1", "-p", &port, "-U", "postgres"]);
        ready.status().unwrap().success()
    }

    /// Kills every process of it at once, as the loss of the machine does.
    pub(crate) fn kill_9(&mut self) {
        self.signal_all("KILL");
        self.server.take().unwrap().wait().unwrap();
    }

    /// Stops every process of it, as a machine that stalls does, until it is [thawed](Self::thaw).
    pub(crate) fn freeze(&self) {
        self.signal_all("STOP");
    }

    /// Lets every process of it go on.
    pub(crate) fn thaw(&self) {
        self.signal_all("CONT");
    }

    fn signal_all(&self, name: &str) {
        let parent = self.server.as_ref().unwrap().id().to_string();
        let children = || {
            let mut ps = Command::new("ps");
            let output = ps.args(["-o", "pid=", "--ppid", &parent]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        // The parent first, so that it starts no other process meanwhile. If it is killed, its
        // children are nobody's.
        let before = children();
        signal(name, &parent);
        for child in before
            .split_whitespace()
            .chain(children().split_whitespace())
        {
            signal(name, child);
        }
    }

    /// Stops it as an administrator does.
    pub(crate) fn stop(&mut self) {
        let mut server = self.server.take().unwrap();
        signal("INT", &server.id().to_string());
        server.wait().unwrap();
    }

    /// A copy of the data of this server, which does not run.
    pub(crate) fn copy_of_data(&self) -> tempfile::TempDir {
        assert!(self.server.is_none());
        let copy = tempfile::tempdir().unwrap();
        copy_all(&self.data(), &copy.path().join("data"));
        copy
    }

    /// Puts a copy in the place of the data of this server, which does not run.
    pub(crate) fn put_back(&self, copy: &tempfile::TempDir) {
        assert!(self.server.is_none());
        fs::remove_dir_all(self.data()).unwrap();
        copy_all(&copy.path().join("data"), &self.data());
    }

    /// A program of this version, to be run without privileges.
    pub(crate) fn program(&self, name: &str) -> Command {
        let mut command = unprivileged();
        command.arg(self.programs.join(name));
        command
    }

    fn program_with_a_clock(&self, library: &str) -> Command {
        let mut command = unprivileged();
        // Not for the program that gives up the privileges: what it made would be root's.
        command.arg("env").arg(format!("LD_PRELOAD={library}"));
        let file = self.clock_file();
        command.arg(format!("FAKETIME_TIMESTAMP_FILE={}", file.display()));
        // Only the time of day is another one: durations are right.
        command.args(["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"]);
        command.arg(self.programs.join("postgres"));
        command
    }
}

/// The start of a command that is to be run without privileges.
fn unprivileged() -> Command {
    let words = variable("PAC_TEST_RUN_AS");
    let mut words = words.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command.args(words).current_dir("/");
    command
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        let Some(server) = &self.server else {
            return;
        };
        let process = server.id();
        self.kill_9();
        if self.clock.is_some() {
            // What the library leaves of a process that was killed.
            let _ = fs::remove_file(format!("/dev/shm/faketime_shm_{process}"));
            let _ = fs::remove_file(format!("/dev/shm/sem.faketime_sem_{process}"));
        }
    }
}

/// Copies a directory with owners and modes.
fn copy_all(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success());
}

/// Gives a file to the user that servers run as, if that is not the user that runs the tests.
pub(crate) fn own(path: &Path) {
    let words = variable("PAC_TEST_RUN_AS");
    if let Some(user) = words
        .split(' ')
        .find_map(|word| word.strip_prefix("--reuid="))
    {
        let status = Command::new("chown").arg(user).arg(path).status().unwrap();
        assert!(status.success());
    }
}

fn chmod_600(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn signal(name: &str, process: &str) {
    // That the process has gone meanwhile is no failure.
    let _ = Command::new("kill")
        .args(["-s", name, process])
        .stderr(Stdio::null())
        .status();
}
