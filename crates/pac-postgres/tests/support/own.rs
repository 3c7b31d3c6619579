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

    /// Prepares such a server, but does not start it.
    pub(crate) fn prepare(which: &str) -> Self {
        let programs = PathBuf::from(variable(&format!("{which}_BIN")));
        let directory = tempfile::tempdir().unwrap();
        let run = Self {
            port: free_port(),
            programs,
            directory,
            server: None,
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
        let mut command = self.program("postgres");
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
        let mut server = self.server.take().unwrap();
        let parent = server.id().to_string();
        let children = Command::new("ps")
            .args(["-o", "pid=", "--ppid", &parent])
            .output()
            .unwrap();
        let children = String::from_utf8(children.stdout).unwrap();
        signal("KILL", &parent);
        for child in children.split_whitespace() {
            signal("KILL", child);
        }
        server.wait().unwrap();
    }

    /// Stops it as an administrator does.
    pub(crate) fn stop(&mut self) {
        let mut server = self.server.take().unwrap();
        signal("INT", &server.id().to_string());
        server.wait().unwrap();
    }

    /// A program of this version, to be run without privileges.
    pub(crate) fn program(&self, name: &str) -> Command {
        let words = variable("PAC_TEST_RUN_AS");
        let mut words = words.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .arg(self.programs.join(name))
            .current_dir("/");
        command
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.kill_9();
        }
    }
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
