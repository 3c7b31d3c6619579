//! Builds the test binaries, and runs them, several beside each other: each has a store of its own, and
//! waits most of the time.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use super::tally::Tally;
use crate::run::CommandLine;

/// What the test targets with the conformance of drivers are called: on servers, and on the mock of one.
const CONFORMANCE: [&str; 2] = ["conformance", "mock"];

/// Tests that measure times, or load a store or this machine to its limit: the target, and a part of
/// their names. They run after all others, each with nothing beside it.
const ALONE: [(&str, &str); 6] = [
    ("conformance", "s24_"),
    ("conformance", "s29_"),
    ("mock", "s24_"),
    ("mock", "s29_"),
    ("commands", "exec_crowd::"),
    ("commands", "exec_restart::"),
];

/// Of the binaries that are none of the conformance suite's, so many run at the same time.
const AT_ONCE: usize = 2;

/// Threads of each of these, unless a person has set another number. Most of their tests start
/// servers and processes of their own: more of them at once keep both cores busy for longer than
/// sessions live.
const FEW_THREADS: &str = "3";

/// Which tests of the binaries are run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selection<'a> {
    /// The arguments of the person who runs them. Without any, all tests are run, and those that need
    /// it are run alone.
    pub(super) args: &'a [String],
    /// Parts of the names of tests that cannot run here.
    pub(super) unrunnable: &'a [&'static str],
}

impl Selection<'_> {
    /// The arguments of every test binary.
    fn line(&self) -> Vec<&str> {
        let skipped = self.unrunnable.iter().flat_map(|part| ["--skip", part]);
        self.args
            .iter()
            .map(String::as_str)
            .chain(skipped)
            .collect()
    }
}

/// A test binary.
#[derive(Debug, PartialEq, Eq)]
struct Binary {
    target: String,
    path: PathBuf,
    /// Where it is run, as cargo does.
    package: PathBuf,
}

/// Builds what `tests`, a `cargo test`, would run, and runs what is selected of it with the environment
/// that `with_env` adds; the documentation tests too. True when all succeeded.
pub(super) fn run(
    root: &Path,
    tests: &CommandLine,
    with_env: impl Fn(CommandLine) -> CommandLine + Sync,
    selection: &Selection<'_>,
    tally: &mut Tally,
) -> Result<bool> {
    let build = tests.clone().arg("--no-run");
    let build = build.arg("--message-format=json-render-diagnostics");
    println!("$ {build}");
    let args = selection.line();
    let binaries = binaries(&build.output(root)?)?;
    let line = |binary: &Binary| {
        let package = binary.package.to_string_lossy();
        let line = CommandLine::program(&binary.path).env("CARGO_MANIFEST_DIR", &package);
        args.iter().fold(with_env(line), |line, arg| line.arg(*arg))
    };
    let (conformance, others): (Vec<_>, Vec<_>) = binaries
        .iter()
        .partition(|binary| CONFORMANCE.contains(&binary.target.as_str()));
    let all = |binary: &Binary| {
        // What a person has selected is run as it is asked for.
        if !selection.args.is_empty() {
            return line(binary);
        }
        let skip = |line: CommandLine, part| line.arg("--skip").arg(part);
        alone(binary).fold(line(binary), skip)
    };
    let mut success = run_beside_each_other(&conformance, usize::MAX, &all, tally)?;
    let few_threads = |binary: &Binary| match std::env::var_os(super::THREADS) {
        None => all(binary).env(super::THREADS, FEW_THREADS),
        Some(_) => all(binary),
    };
    success &= run_beside_each_other(&others, AT_ONCE, &few_threads, tally)?;
    for binary in binaries.iter().filter(|_| selection.args.is_empty()) {
        let one_by_one = line(binary).arg("--test-threads=1");
        let line = alone(binary).fold(one_by_one, CommandLine::arg);
        if alone(binary).next().is_some() {
            success &= line.run_watched(&binary.package, |line| tally.read(line))?;
        }
    }
    let documentation = with_env(tests.clone().arg("--doc"));
    let documentation = args
        .iter()
        .enumerate()
        .fold(documentation, |line, (at, arg)| {
            if at == 0 { line.arg("--") } else { line }.arg(*arg)
        });
    success &= documentation.run_watched(root, |line| tally.read(line))?;
    Ok(success)
}

/// Parts of the names of the binary's tests that run alone.
fn alone(binary: &Binary) -> impl Iterator<Item = &'static str> {
    let of_it = ALONE.iter().filter(|(target, _)| *target == binary.target);
    of_it.map(|(_, part)| *part)
}

/// Runs all of them, at most `at_once` at the same time.
fn run_beside_each_other(
    binaries: &[&Binary],
    at_once: usize,
    line: &(impl Fn(&Binary) -> CommandLine + Sync),
    tally: &mut Tally,
) -> Result<bool> {
    let next = AtomicUsize::new(0);
    let one_after_the_other = || {
        let (mut success, mut lines) = (true, Vec::new());
        while let Some(binary) = binaries.get(next.fetch_add(1, Ordering::Relaxed)) {
            let read = |line: &str| lines.push(line.to_owned());
            success &= line(binary).run_watched(&binary.package, read)?;
        }
        anyhow::Ok((success, lines))
    };
    let results: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = (0..at_once.min(binaries.len()))
            .map(|_| scope.spawn(one_after_the_other))
            .collect();
        let ended = running.into_iter().map(thread::ScopedJoinHandle::join);
        ended.collect()
    });
    let mut success = true;
    for result in results {
        let (succeeded, lines) = result.map_err(|_| anyhow!("a thread that ran tests died"))??;
        success &= succeeded;
        lines.iter().for_each(|line| tally.read(line));
    }
    Ok(success)
}

/// The test binaries that cargo's messages name, in its order.
fn binaries(messages: &str) -> Result<Vec<Binary>> {
    let mut binaries = Vec::new();
    for message in messages.lines() {
        let message: Value = serde_json::from_str(message).context("a message of cargo's")?;
        let text = |pointer| message.pointer(pointer).and_then(Value::as_str);
        let is_test = message.pointer("/profile/test") == Some(&Value::Bool(true));
        let (Some(path), true) = (text("/executable"), is_test) else {
            continue;
        };
        let manifest = text("/manifest_path").context("a test binary without a manifest")?;
        let package = Path::new(manifest).parent().context("a manifest's place")?;
        binaries.push(Binary {
            target: text("/target/name").unwrap_or_default().to_owned(),
            path: path.into(),
            package: package.to_owned(),
        });
    }
    Ok(binaries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_binaries_are_those_that_cargo_names() {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/w/a/Cargo.toml","target":{"name":"a"},"profile":{"test":false},"executable":"/w/target/a"}
{"reason":"compiler-artifact","manifest_path":"/w/a/Cargo.toml","target":{"name":"conformance"},"profile":{"test":true},"executable":"/w/target/deps/conformance-1"}
{"reason":"compiler-artifact","manifest_path":"/w/b/Cargo.toml","target":{"name":"b"},"profile":{"test":true},"executable":null}
{"reason":"build-finished","success":true}"#;
        let conformance = Binary {
            target: "conformance".to_owned(),
            path: "/w/target/deps/conformance-1".into(),
            package: "/w/a".into(),
        };
        assert_eq!(binaries(messages).unwrap(), [conformance]);
        assert!(binaries("error: no such package").is_err());
    }

    #[test]
    fn the_tests_that_run_alone_are_those_of_their_target() {
        let binary = |target: &str| Binary {
            target: target.to_owned(),
            path: "x".into(),
            package: ".".into(),
        };
        let conformance = binary("conformance");
        assert_eq!(alone(&conformance).collect::<Vec<_>>(), ["s24_", "s29_"]);
        assert_eq!(alone(&binary("servers")).count(), 0);
    }

    #[test]
    fn arguments_are_handed_on_and_what_cannot_run_is_left_out() {
        let args = ["scenario_07".to_owned(), "--nocapture".to_owned()];
        let selection = Selection {
            args: &args,
            unrunnable: &["newest_etcd"],
        };
        assert_eq!(
            selection.line(),
            ["scenario_07", "--nocapture", "--skip", "newest_etcd"]
        );
    }

    #[test]
    fn what_runs_beside_others_is_counted_and_a_failure_shows() {
        let binary = |target: &str| Binary {
            target: target.to_owned(),
            path: "sh".into(),
            package: ".".into(),
        };
        let line = |binary: &Binary| {
            let script = format!(
                "echo 'test result: ok. 2 passed; 0 failed'; {}",
                binary.target
            );
            CommandLine::program(&binary.path).arg("-c").arg(script)
        };
        let (good, bad) = (binary("true"), binary("false"));
        for at_once in [1, 2, usize::MAX] {
            let mut tally = Tally::default();
            let three = [&good, &good, &good];
            assert!(run_beside_each_other(&three, at_once, &line, &mut tally).unwrap());
            assert_eq!(tally.passed, 6);
            let three = [&good, &bad, &good];
            assert!(!run_beside_each_other(&three, at_once, &line, &mut tally).unwrap());
            assert_eq!(tally.passed, 12);
        }
    }
}
