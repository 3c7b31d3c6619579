//! The controller's process.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pac_kubernetes_mock::kubeconfig;
use tempfile::NamedTempFile;
use tokio::time::sleep;

use crate::Failed;

/// How long it may take to become ready before this gives up.
const LONG: Duration = Duration::from_secs(300);

/// `pac controller`, killed when this is dropped.
pub(crate) struct Controller {
    child: Child,
    probes: SocketAddr,
    _kubeconfig: NamedTempFile,
}

/// In MiB.
pub(crate) struct Memory {
    pub(crate) now: u64,
    pub(crate) peak: u64,
}

impl Controller {
    /// Starts the binary that was built beside this example.
    pub(crate) fn start(url: &str) -> Result<Self, Failed> {
        let example = std::env::current_exe()?;
        let built = example.parent().and_then(|examples| examples.parent());
        let pac = built.ok_or("no directory of the binary")?.join("pac");
        let mut config = NamedTempFile::new()?;
        config.write_all(kubeconfig(url).as_bytes())?;
        // Free again at once, for the controller.
        let probes = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let child = Command::new(&pac)
            .args([
                "controller",
                "--alone",
                "--set",
                "concurrency-driver=memory",
            ])
            .args(["--set", "concurrency-enabled=true", "--log-level", "warn"])
            .args(["--no-events", "--no-positions"])
            .arg("--kubeconfig")
            .arg(config.path())
            .arg(format!("--health-address={probes}"))
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}; build pac first", pac.display()))?;
        Ok(Self {
            child,
            probes,
            _kubeconfig: config,
        })
    }

    /// Waits until `/readyz` says so.
    pub(crate) async fn until_ready(&mut self) -> Result<(), Failed> {
        let begun = Instant::now();
        while !self.is_ready().unwrap_or(false) {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("the controller has ended: {status}").into());
            }
            if begun.elapsed() > LONG {
                return Err("the controller does not become ready".into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// What it occupies of the machine's memory, and at most has.
    pub(crate) fn memory(&self) -> Result<Memory, Failed> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let mib = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field))?;
            let kib = line.trim().trim_end_matches(" kB").parse::<u64>().ok()?;
            Some(kib.div_ceil(1_024))
        };
        let (now, peak) = (mib("VmRSS:"), mib("VmHWM:"));
        Ok(Memory {
            now: now.ok_or("no VmRSS")?,
            peak: peak.ok_or("no VmHWM")?,
        })
    }

    pub(crate) fn end(mut self) -> Result<(), Failed> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn is_ready(&self) -> Result<bool, Failed> {
        let mut stream = TcpStream::connect(self.probes)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: pac\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200"))
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
