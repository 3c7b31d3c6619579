//! `pac etcd-mock`, as other programs use it.

#![cfg(feature = "mock")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pac"));
    command.arg("etcd-mock").args(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn it_says_where_it_is_and_ends_when_it_is_asked() {
    let mut child = command(&["--listen", "127.0.0.1:0"]).spawn().unwrap();
    let mut endpoint = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut endpoint).unwrap();
    let address = endpoint.trim().strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(address).unwrap();
    // The preface of HTTP/2, which a server answers with its settings.
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    connection
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .unwrap();
    connection.write_all(&settings).unwrap();
    let mut answered = [0; 9];
    std::io::Read::read_exact(&mut connection, &mut answered).unwrap();
    assert_eq!(answered[3], 4);
    let id = child.id().to_string();
    let asked = Command::new("kill").args(["-s", "TERM", &id]).status();
    assert!(asked.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_cannot_be_used_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    let empty = empty.to_str().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (args, code, text) in [
        (vec!["--listen", &taken], 2, "cannot listen"),
        (vec!["--auth-password-file", empty], 78, "holds no password"),
        (vec!["--auth-password-file", "/absent"], 78, "/absent"),
        (vec!["--tls-cert-file", empty], 2, "--tls-key-file"),
        (
            vec![
                "--listen=127.0.0.1:0",
                "--tls-cert-file",
                empty,
                "--tls-key-file",
                empty,
            ],
            78,
            "in PEM",
        ),
    ] {
        let output = command(&args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(text), "{args:?}: {stderr}");
    }
}
