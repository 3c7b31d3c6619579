//! A stand-in for Tekton's controller.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::follow::{Follower, Key, Pace, settled};
use super::{is_done, succeeded};
use crate::failure::Failure;
use crate::handle::Handle;
use crate::object::{self, text};
use crate::policies::PENDING;
use crate::server::ApiServer;

/// How runs end that are not cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// When the test says so, see [`Tekton::finish`].
    WhenTold,
    /// They succeed after this time.
    SucceedAfter(Duration),
    /// A task of theirs fails after this time, and so do their `finally` tasks.
    FailAfter(Duration),
}

/// Does to PipelineRuns what Tekton's controller does; dropping it ends that.
///
/// - A run that is to be pending gets the condition `Unknown`, `PipelineRunPending`, and no start
///   time. One that is not gets its start time, a TaskRun for each task of its `pipelineSpec`, and
///   the condition `Unknown`, `Running`.
/// - `Cancelled` ends a run at once. `CancelledRunFinally` and `StoppedRunFinally` start a run that
///   had not started, run its `finally` tasks and end it.
/// - A run with another `managedBy` is left alone, and so is one that is done.
///
/// No validating webhook is part of it.
#[derive(Debug)]
pub struct Tekton {
    objects: Handle,
    handled: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Tekton {
    /// Starts it.
    ///
    /// # Panics
    /// Without a Tokio runtime.
    #[must_use]
    pub fn start(server: &ApiServer, ending: Ending) -> Self {
        Self::start_at(server.handle(), ending)
    }

    /// Starts it for the server of this handle.
    ///
    /// # Panics
    /// Without a Tokio runtime.
    #[must_use]
    pub fn start_at(objects: Handle, ending: Ending) -> Self {
        let (pace, handled) = Pace::new(&objects);
        let controller = Controller {
            objects: objects.clone(),
            ending,
            due: BTreeMap::new(),
        };
        Self {
            task: tokio::spawn(controller.work(pace)),
            objects,
            handled,
        }
    }

    /// Ends a running run: it succeeds, or one of its tasks fails.
    ///
    /// # Errors
    /// 404 when there is none.
    pub fn finish(&self, namespace: &str, name: &str, success: bool) -> Result<(), Failure> {
        finish(&self.objects, namespace, name, success)
    }

    /// Waits until it has dealt with all that was written when this was called.
    pub async fn settled(&self) {
        settled(&self.objects, self.handled.clone()).await;
    }
}

impl Drop for Tekton {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Controller {
    objects: Handle,
    ending: Ending,
    /// When running runs end.
    due: BTreeMap<Key, Instant>,
}

/// How long it waits before it tries again what the server did not answer.
const AGAIN: Duration = Duration::from_millis(20);

impl Controller {
    async fn work(mut self, mut pace: Pace) {
        let mut runs = Follower::new(self.objects.clone(), "pipelineruns");
        let mut open = BTreeSet::new();
        loop {
            let revision = self.objects.revision();
            let told = runs.changed();
            let told_all = told.is_some();
            open.extend(told.unwrap_or_default());
            open.extend(self.take_due());
            open.retain(|key| self.reconcile(key).is_err());
            let again = (!told_all || !open.is_empty()).then(|| Instant::now() + AGAIN);
            if again.is_none() {
                pace.handled(revision);
            }
            let due = self.due.values().min().copied();
            pace.next(again.into_iter().chain(due).min()).await;
        }
    }

    /// The runs whose time has come. They stay due until they are done.
    fn take_due(&self) -> Vec<Key> {
        let now = Instant::now();
        let due = self.due.iter().filter(|(_, due)| **due <= now);
        due.map(|(key, _)| key.clone()).collect()
    }

    fn reconcile(&mut self, key: &Key) -> Result<(), Failure> {
        let (namespace, name) = key;
        let run = match self.objects.get("pipelineruns", namespace, name) {
            Ok(run) => run,
            Err(failure) if failure.code == 404 => {
                self.due.remove(key);
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        let managed_by = text(&run, "/spec/managedBy");
        if is_done(&run) || !matches!(managed_by, "" | "tekton.dev/pipeline") {
            self.due.remove(key);
            return Ok(());
        }
        let started = run.pointer("/status/startTime").is_some();
        match text(&run, "/spec/status") {
            "Cancelled" => {
                self.due.remove(key);
                return end(&self.objects, &run, "False", "Cancelled");
            }
            "CancelledRunFinally" | "StoppedRunFinally" => {
                self.due.remove(key);
                let reason = match self.ending {
                    Ending::FailAfter(_) => "Failed",
                    Ending::WhenTold | Ending::SucceedAfter(_) => "Cancelled",
                };
                let run = add_children(&self.objects, &run, "finally")?;
                return end(&self.objects, &run, "False", reason);
            }
            PENDING if !started => return self.hold(&run),
            _ => {}
        }
        if !started {
            self.start(&run)?;
        }
        let (after, success) = match self.ending {
            Ending::WhenTold => return Ok(()),
            Ending::SucceedAfter(after) => (after, true),
            Ending::FailAfter(after) => (after, false),
        };
        let due = *self
            .due
            .entry(key.clone())
            .or_insert_with(|| Instant::now() + after);
        if due <= Instant::now() {
            finish(&self.objects, namespace, name, success)?;
            self.due.remove(key);
        }
        Ok(())
    }

    fn hold(&self, run: &Value) -> Result<(), Failure> {
        if text(&succeeded(run), "/reason") == PENDING {
            return Ok(());
        }
        set_status(
            &self.objects,
            run,
            json!({"conditions": condition("Unknown", PENDING)}),
        )
    }

    fn start(&self, run: &Value) -> Result<(), Failure> {
        let run = add_children(&self.objects, run, "tasks")?;
        let status = json!({
            "startTime": object::now(),
            "conditions": condition("Unknown", "Running"),
        });
        set_status(&self.objects, &run, status)
    }
}

fn finish(objects: &Handle, namespace: &str, name: &str, success: bool) -> Result<(), Failure> {
    let run = objects.get("pipelineruns", namespace, name)?;
    if is_done(&run) {
        return Ok(());
    }
    let run = add_children(objects, &run, "finally")?;
    let (status, reason) = if success {
        ("True", "Succeeded")
    } else {
        ("False", "Failed")
    };
    end(objects, &run, status, reason)
}

/// Writes the end; a run that never started gets its start time with it.
fn end(objects: &Handle, run: &Value, status: &str, reason: &str) -> Result<(), Failure> {
    let now = json!(object::now());
    let start = run.pointer("/status/startTime").cloned();
    let status = json!({
        "startTime": start.unwrap_or_else(|| now.clone()),
        "completionTime": now,
        "conditions": condition(status, reason),
    });
    set_status(objects, run, status)
}

/// Makes the TaskRuns of a section of the pipeline, and names them in the status of the run.
fn add_children(objects: &Handle, run: &Value, section: &str) -> Result<Value, Failure> {
    let tasks = run.pointer(&format!("/spec/pipelineSpec/{section}"));
    let tasks = tasks.and_then(Value::as_array).cloned().unwrap_or_default();
    let children = run
        .pointer("/status/childReferences")
        .and_then(Value::as_array);
    let mut children = children.cloned().unwrap_or_default();
    let (namespace, name) = (object::namespace(run), object::name(run));
    for task in &tasks {
        let task = text(task, "/name");
        let child = format!("{name}-{task}");
        let made = objects.create(
            "taskruns",
            json!({
                "metadata": {
                    "name": child,
                    "namespace": namespace,
                    "labels": {"tekton.dev/pipelineRun": name, "tekton.dev/pipelineTask": task},
                },
                "spec": {},
            }),
        );
        match made {
            Err(failure) if failure.reason != "AlreadyExists" => return Err(failure),
            _ => children.push(json!({"kind": "TaskRun", "name": child, "pipelineTaskName": task})),
        }
    }
    children.dedup();
    let mut run = run.clone();
    object::fields(&mut run, "status").insert("childReferences".to_owned(), json!(children));
    Ok(run)
}

/// Writes these fields of the status, and the children that `run` names.
fn set_status(objects: &Handle, run: &Value, mut status: Value) -> Result<(), Failure> {
    if let Some(children) = run.pointer("/status/childReferences") {
        object::as_map(&mut status).insert("childReferences".to_owned(), children.clone());
    }
    let (namespace, name) = (object::namespace(run), object::name(run));
    let patch = json!({"status": status});
    match objects.merge_status("pipelineruns", namespace, name, patch) {
        // It was deleted meanwhile.
        Err(failure) if failure.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

fn condition(status: &str, reason: &str) -> Value {
    json!([{
        "type": "Succeeded",
        "status": status,
        "reason": reason,
        "lastTransitionTime": object::now(),
    }])
}
