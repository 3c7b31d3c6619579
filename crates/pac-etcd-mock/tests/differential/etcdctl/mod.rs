//! `etcdctl` on the mock and on a real server: what it prints must be the same, but for ids.

mod scripts;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;

use super::servers::{Kind, Running, variable};

/// Runs all that `etcdctl` can do on both; the program is the one that the variable names.
pub(crate) fn compare(program: &str, server: Kind) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let servers = [server, Kind::Mock].map(|kind| runtime.block_on(kind.start()));
    let program = variable(program);
    let transcripts = thread::scope(|scope| {
        let running = servers.each_ref().map(|server| {
            let etcdctl = Etcdctl::new(&program, server);
            scope.spawn(move || etcdctl.transcript())
        });
        running.map(|one| one.join().unwrap())
    });
    let [etcd, mock] = transcripts;
    for (etcd, mock) in etcd.iter().zip(&mock) {
        assert_eq!(etcd, mock);
    }
    assert_eq!(etcd.len(), mock.len());
    let count = etcd.len();
    let line = format!("{program} prints the same of {count} commands\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

/// The seconds that a command may take; nothing is measured by it.
const PATIENCE: &str = "60";

/// The program, against one server.
pub(crate) struct Etcdctl {
    program: String,
    endpoint: String,
    /// Each command, with what it printed.
    commands: Vec<String>,
}

impl Etcdctl {
    fn new(program: &str, server: &Running) -> Self {
        Self {
            program: program.to_owned(),
            endpoint: server.endpoint.clone(),
            commands: Vec::new(),
        }
    }

    fn transcript(mut self) -> Vec<String> {
        scripts::keys(&mut self);
        scripts::reads(&mut self);
        scripts::transactions(&mut self);
        scripts::leases(&mut self);
        scripts::watches(&mut self);
        scripts::compaction(&mut self);
        scripts::locks(&mut self);
        scripts::maintenance(&mut self);
        scripts::users(&mut self);
        self.commands
    }

    /// Runs a command of words without spaces; returns what it printed to its standard output.
    pub(crate) fn run(&mut self, words: &str) -> String {
        self.run_with(words, "")
    }

    /// Runs a command with an input.
    pub(crate) fn run_with(&mut self, words: &str, input: &str) -> String {
        let args: Vec<_> = words.split(' ').collect();
        self.run_args(&args, input)
    }

    pub(crate) fn run_args(&mut self, args: &[&str], input: &str) -> String {
        let mut child = self.start(args);
        let mut stdin = child.stdin.take().unwrap();
        // A program that does not want it may have ended.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        self.note(args, &output);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that does not end by itself, until it has printed a line that is the last one
    /// of interest, all the while doing something else.
    pub(crate) fn run_until(
        &mut self,
        words: &str,
        is_last: impl Fn(&str) -> bool + Send + 'static,
        meanwhile: impl FnOnce(&mut Self),
    ) {
        let args: Vec<_> = words.split(' ').collect();
        let mut child = self.start(&args);
        let stdout = child.stdout.take().unwrap();
        let (seen, is_seen) = mpsc::channel();
        let reader = thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map(Result::unwrap);
            let mut printed = Vec::new();
            for line in lines.by_ref() {
                let last = is_last(&line);
                printed.push(line);
                if last {
                    break;
                }
            }
            seen.send(()).unwrap();
            // It would end at once if nobody read the rest.
            lines.for_each(drop);
            printed.join("\n")
        });
        meanwhile(self);
        is_seen.recv().unwrap();
        let id = child.id().to_string();
        let sent = Command::new("kill").args(["-s", "INT", &id]).status();
        assert!(sent.unwrap().success(), "{args:?} has ended");
        child.wait().unwrap();
        let printed = reader.join().unwrap();
        let text = format!("{args:?}\n{printed}");
        self.commands.push(plain(&text, &self.endpoint));
    }

    fn start(&self, args: &[&str]) -> Child {
        Command::new("timeout")
            .args(["--signal=KILL", PATIENCE, &self.program])
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.endpoint))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn note(&mut self, args: &[&str], output: &Output) {
        let status = output.status.code();
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        // The log of the client library, with the time and the place in its source.
        let errors = stderr
            .lines()
            .filter(|line| !line.starts_with("{\"level\""));
        let errors = errors.collect::<Vec<_>>().join("\n");
        let text = format!("{args:?} {status:?}\n{stdout}{errors}");
        self.commands.push(plain(&text, &self.endpoint));
    }
}

/// At least as many digits has an id, in decimal or hexadecimal notation.
const ID: usize = 13;

/// Without what only identifies a server or a lease, and without times.
fn plain(text: &str, endpoint: &str) -> String {
    let mut plain = String::new();
    let text = text.replace(endpoint, "ENDPOINT");
    let mut word = String::new();
    for letter in text.chars().chain(['\n']) {
        if letter.is_ascii_alphanumeric() {
            word.push(letter);
            continue;
        }
        let is_id = word.len() >= ID && word.chars().all(|one| one.is_ascii_hexdigit());
        plain.push_str(if is_id { "ID" } else { &word });
        plain.push(letter);
        word.clear();
    }
    let lines = plain.trim_end().lines().map(without_times);
    lines.collect::<Vec<_>>().join("\n")
}

/// Without the time that something took, or that is left of a lease.
fn without_times(line: &str) -> String {
    for (before, after) in [("took = ", ""), ("remaining(", ")"), ("\"ttl\":", ",")] {
        if let Some((head, tail)) = line.split_once(before) {
            let tail = tail.split_once(after).filter(|_| !after.is_empty());
            return format!("{head}{before}TIME{}", tail.map_or("", |(_, tail)| tail));
        }
    }
    line.to_owned()
}
