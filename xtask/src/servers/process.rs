//! Directory, port and process of a server.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::user::is_root;

/// The longest time that a server may take to start, and to stop before it is killed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The user for servers when this runs as root, which some servers refuse.
const USER: &str = "nobody";

/// A directory that is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Creates a directory owned by the user that servers run as.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let mktemp = Command::new("mktemp")
            .args(["--directory", "--tmpdir"])
            .arg(format!("pac-{name}-XXXXXXXX"))
            .output()
            .context("cannot run mktemp")?;
        ensure!(mktemp.status.success(), "mktemp failed");
        let path = String::from_utf8(mktemp.stdout).context("mktemp")?;
        let scratch = Self(PathBuf::from(path.trim_end()));
        if is_root() {
            let status = Command::new("chown").arg(USER).arg(&scratch.0).status()?;
            ensure!(status.success(), "cannot give a directory to {USER}");
        }
        Ok(scratch)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("could not remove {}: {error}", self.0.display());
        }
    }
}

/// A server. Dropping it asks the server to stop, and kills it if it does not.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
    /// The signal that stops it; the default of `kill` is not the quickest for every server.
    signal: &'static str,
}

impl Process {
    /// Starts a server whose output goes to a file in `directory`.
    pub(crate) fn start(
        name: &'static str,
        mut command: Command,
        directory: &Scratch,
        signal: &'static str,
    ) -> Result<Self> {
        let log = directory.path().join("log");
        let file = File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name,
            child,
            log,
            signal,
        })
    }

    /// Waits until `ready` returns true; fails with the server's log.
    pub(crate) fn wait_until(&mut self, mut ready: impl FnMut() -> bool) -> Result<()> {
        let start = Instant::now();
        while !ready() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || start.elapsed() > PATIENCE {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                bail!("{} did not start; it says:\n{log}", self.name);
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let id = self.child.id().to_string();
        let asked = Command::new("kill").args(["-s", self.signal, &id]).status();
        let start = Instant::now();
        while asked.is_ok() && start.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        let ended = self.child.kill().and_then(|()| self.child.wait());
        eprintln!("{} had to be killed: {ended:?}", self.name);
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port is free")?;
    Ok(listener.local_addr()?.port())
}

/// The words to put before a command so that it runs without privileges, and ends when its
/// parent does.
pub(crate) fn run_as() -> Vec<String> {
    let mut words = vec!["setpriv".to_owned()];
    if is_root() {
        words.extend([
            format!("--reuid={USER}"),
            "--regid=nogroup".to_owned(),
            "--clear-groups".to_owned(),
        ]);
    }
    words.push("--pdeathsig=QUIT".to_owned());
    words
}

/// A command that runs a program in that way.
pub(crate) fn program(path: &Path) -> Command {
    let mut words = run_as().into_iter();
    let mut command = Command::new(words.next().unwrap_or_default());
    // The user may not have access to the current directory.
    command.args(words).arg(path).current_dir("/");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_ends_and_its_directory_goes_also_after_a_failure() {
        let (path, pid) = {
            let directory = Scratch::new("test").unwrap();
            let mut command = program(Path::new("/bin/sleep"));
            command.arg("1000");
            let process = Process::start("sleep", command, &directory, "TERM").unwrap();
            assert!(directory.path().is_dir());
            (directory.path().to_owned(), process.child.id())
        };
        assert!(!path.exists());
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_server_that_does_not_start_shows_its_log() {
        let directory = Scratch::new("test").unwrap();
        let mut command = program(Path::new("/bin/sh"));
        command.args(["-c", "echo no such option; exit 3"]);
        let mut process = Process::start("sh", command, &directory, "TERM").unwrap();
        let error = process.wait_until(|| false).unwrap_err();
        assert!(error.to_string().contains("no such option"), "{error}");
    }
}
