//! Files that commands are given, and that are no regular ones: a pipe into which nobody writes, a device
//! without an end.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::common::{Ended, command};

/// Longer than anything but a command that hangs takes.
const HANGS: Duration = Duration::from_secs(60);

fn pipe(directory: &Path) -> PathBuf {
    let pipe = directory.join("pipe.yaml");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    pipe
}

/// The end of a command that is given a file which is none, and says so.
fn refused(mut command: Command) -> Ended {
    let mut running = command.stdin(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while running.try_wait().unwrap().is_none() {
        if begun.elapsed() > HANGS {
            running.kill().unwrap();
        }
        sleep(Duration::from_millis(20));
    }
    let output = running.wait_with_output().unwrap();
    let ended = Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    let rule = "it must be a regular file";
    assert!(ended.stderr.contains(rule), "{command:?}: {ended:?}");
    ended
}

#[test]
fn a_pipe_or_a_device_of_manifests_hangs_no_command() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = pipe(directory.path());
    let run = "kind: PipelineRun\nmetadata: {name: a, namespace: ci}\n";
    fs::write(directory.path().join("run.yaml"), run).unwrap();
    for path in [pipe.as_path(), Path::new("/dev/zero")] {
        let path = path.to_str().unwrap();
        let plan = refused(command(&["plan", path]));
        assert_eq!(plan.code, 65, "{plan:?}");
        assert!(plan.stderr.contains(path), "{plan:?}");
    }
    // The rest of a directory is planned.
    let plan = refused(command(&["plan", directory.path().to_str().unwrap()]));
    assert_eq!(plan.code, 65, "{plan:?}");
    assert!(plan.stdout.contains("ci/a"), "{plan:?}");
    assert!(plan.stderr.contains("pipe.yaml: cannot"), "{plan:?}");
}

#[cfg(feature = "postgres")]
#[test]
fn a_pipe_or_a_device_hangs_no_migration() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = pipe(directory.path());
    for path in [pipe.as_path(), directory.path(), Path::new("/dev/zero")] {
        let migrate = refused(command(&[
            "--set",
            "postgresql-host=127.0.0.1",
            "--set",
            "postgresql-ssl-mode=disable",
            "migrate",
            "--from",
            "annotations",
            "--to",
            "postgresql",
            "--manifests",
            path.to_str().unwrap(),
        ]));
        assert_eq!(migrate.code, 65, "{migrate:?}");
    }
}

#[cfg(feature = "kubernetes")]
#[test]
fn a_kubeconfig_that_is_a_pipe_or_a_device_hangs_no_command() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = pipe(directory.path());
    for path in [pipe.as_path(), Path::new("/dev/zero")] {
        let mut check = command(&["kubernetes", "check"]);
        check.env("KUBECONFIG", path);
        let check = refused(check);
        assert_eq!(check.code, 78, "{check:?}");
        let named = path.to_str().unwrap();
        let release = ["section", "release", "gpu", "--run", "ci/a", "--kubeconfig"];
        let release = refused(command(&[&release[..], &[named]].concat()));
        assert_eq!(release.code, 78, "{release:?}");
    }
}
