//! Runs the real binary.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test binary uses its part of this")]

pub(crate) mod cluster;

use std::io::Write;
use std::process::{Command, Stdio};

/// A valid row.
pub(crate) const RUN: &str =
    r#"{"at":"2026-06-01T10:00:00Z","repository":"ns/r","limit":2,"run":"ns/a","duration_s":1.5}"#;

/// The exit code and output of a process.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `pac` with these arguments.
pub(crate) fn pac(args: &[&str]) -> Ended {
    pac_with_stdin(args, b"")
}

/// Runs `pac` with these arguments and this standard input.
pub(crate) fn pac_with_stdin(args: &[&str], stdin: &[u8]) -> Ended {
    let mut child = command(args).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // A process that ends early does not read all of its input.
    let _ = pipe.write_all(stdin);
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The command, with all its streams piped.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pac"));
    command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}
