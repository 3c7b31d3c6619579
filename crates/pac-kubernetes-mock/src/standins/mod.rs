//! Stand-ins for the programs that act on PipelineRuns in a cluster, as those were seen to act, and for
//! what runs the pods of Deployments.
//!
//! They work through a [`Handle`](crate::Handle): no fault concerns them, the request log does not
//! show them, and they pause while the server is away. On a server elsewhere what they do are requests
//! over HTTP, of its one namespace.

mod controller;
mod deployments;
mod follow;
mod queue;
mod tekton;
mod watcher;
mod webhook;

pub use controller::{Mishap, PacController, Template};
pub use deployments::Deployments;
pub use tekton::{Ending, Tekton};
pub use watcher::PacWatcher;
pub use webhook::tekton_rules;

use serde_json::Value;

use crate::object::text;

/// The names that Pipelines-as-Code uses.
mod pac {
    pub(super) const STATE: &str = "pipelinesascode.tekton.dev/state";
    pub(super) const REPORTED: &str = "pipelinesascode.tekton.dev/scm-reporting-plr-started";
    pub(super) const SECRET_CREATED: &str = "pipelinesascode.tekton.dev/secret-created";
    pub(super) const FINALIZER: &str = "pipelinesascode.tekton.dev/finalizer";
    /// The namespace of Pipelines-as-Code, and the name of the global Repository in it.
    pub(super) const GLOBAL: &str = "pipelines-as-code";
}

/// The condition `Succeeded` of a run; `null` before there is one.
fn succeeded(run: &Value) -> Value {
    let conditions = run.pointer("/status/conditions").and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    let condition = conditions.find(|condition| text(condition, "/type") == "Succeeded");
    condition.cloned().unwrap_or_default()
}

/// Whether Tekton is through with a run.
fn is_done(run: &Value) -> bool {
    matches!(text(&succeeded(run), "/status"), "True" | "False")
}

/// The limit that holds for a Repository: its own, or that of the global one.
fn effective_limit(objects: &crate::Handle, repository: &Value) -> Option<i64> {
    let limit = |repository: &Value| {
        let limit = repository.pointer("/spec/concurrency_limit");
        limit.and_then(Value::as_i64)
    };
    limit(repository).or_else(|| {
        let global = objects.get("repositories", pac::GLOBAL, pac::GLOBAL).ok()?;
        limit(&global)
    })
}
