//! Other processes that take part: this same program, with its task in `--worker`. A worker
//! prints `ready`, does one step for every line that it reads, and answers each with one line of
//! JSON.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::place::{Place, bug};
use crate::exit::Failure;

/// The task of a worker process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    tag: String,
    pub(super) work: Work,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Work {
    /// Contends for slots, for one round per line read.
    Contend { number: usize, round: Duration },
    /// Waits for a slot, or for a notification of the store.
    Wait,
    /// Keeps a limit in one of several ways: that of the store's peer of this number, or ours.
    Keep {
        peer: Option<usize>,
        limit: u32,
        tasks: usize,
    },
    /// Has a run in each of this many repositories.
    Populate { repositories: usize },
    /// Measures its own memory while it queues runs.
    Queue { tag: String, entries: usize },
    /// Measures its own memory while it reads repositories.
    Know { tag: String, repositories: usize },
}

impl Task {
    pub(super) fn tag(&self) -> &str {
        &self.tag
    }
}

impl FromStr for Task {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

/// The lines sent by the process that started this one.
pub(super) struct Asked(io::Lines<io::StdinLock<'static>>);

impl Asked {
    /// From this process's standard input.
    pub(super) fn here() -> Self {
        Self(io::stdin().lock().lines())
    }

    /// The next step; `None` when the other process has finished or is gone. Blocks: this
    /// process has nothing else to do.
    pub(super) fn next(&mut self) -> Option<String> {
        self.0.next()?.ok()
    }

    pub(super) fn answer(&self, answer: &impl Serialize) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let line = serde_json::to_string(answer).map_err(bug)?;
        writeln!(out, "{line}")
            .and_then(|()| out.flush())
            .map_err(|error| bug(format!("the process that measures is gone: {error}")))
    }
}

/// A worker process. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    asks: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts a worker with the arguments that this process was started with, and waits until it
    /// is ready.
    pub(super) fn start(place: &Place, work: Work) -> Result<Self, Failure> {
        let task = Task {
            tag: place.tag().to_owned(),
            work,
        };
        let program = std::env::current_exe().map_err(bug)?;
        let mut child = Command::new(program)
            .args(std::env::args_os().skip(1))
            .arg("--worker")
            .arg(serde_json::to_string(&task).map_err(bug)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| bug(format!("cannot start another process: {error}")))?;
        let (asks, answers) = (child.stdin.take(), child.stdout.take());
        let answers = answers.ok_or_else(|| bug("a process without an output"))?;
        let mut worker = Self {
            child,
            asks,
            answers: BufReader::new(answers),
        };
        worker.answer::<String>()?;
        Ok(worker)
    }

    pub(super) fn ask(&mut self, step: &str) -> Result<(), Failure> {
        let Some(asks) = &mut self.asks else {
            return Err(bug("a process without an input"));
        };
        writeln!(asks, "{step}").map_err(|error| bug(format!("a process is gone: {error}")))
    }

    /// Waits for the worker's answer; blocks.
    pub(super) fn answer<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line);
        match read {
            Ok(1..) => serde_json::from_str(&line).map_err(bug),
            _ => Err(bug("a process that takes part has ended")),
        }
    }

    /// Kills the worker with SIGKILL, so that it can tell nobody.
    pub(super) fn kill(mut self) -> Result<(), Failure> {
        self.child.kill().map_err(bug)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The worker ends by itself once its standard input is closed.
        self.asks = None;
        let _ = self.child.wait();
    }
}
