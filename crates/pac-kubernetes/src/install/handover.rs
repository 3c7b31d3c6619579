//! Gives the queues of a busy cluster to the controller, and back to Pipelines-as-Code.
//!
//! Pipelines-as-Code counts in the memory of its watcher the runs that it has started or seen. While
//! the watcher is up it must therefore never see the execution order of a run that it does not
//! count: it started a second run beside one that the controller had started, when that was tried.
//! So the watcher is stopped before an order moves, and rebuilds its queues when it starts.

mod offboard;
mod onboard;
mod watcher;

use json_patch::PatchOperation;
use pac_pipelines::vocabulary::{EXECUTION_ORDER, OUR_EXECUTION_ORDER};

use super::api::{Change, ClusterAccess};
use super::apply::ObjectOutcome;
use super::error::{InstallError, InstallErrorKind};
use super::options::Install;
use super::runs::{LiveRun, well_formed};
use crate::patch::{add, remove, test};

pub use offboard::offboard;
pub use onboard::onboard;

/// How the queues of a cluster change hands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandoverOptions {
    /// The namespace of Pipelines-as-Code. Default: `pipelines-as-code`.
    pub pac_namespace: String,
    /// The Deployment of its watcher. Default: `pipelines-as-code-watcher`.
    pub watcher: String,
    /// Whether anything is changed; otherwise each step only says what it would do. Default: no.
    pub apply: bool,
}

impl HandoverOptions {
    /// With another namespace of Pipelines-as-Code.
    #[must_use]
    pub fn with_pac_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.pac_namespace = namespace.into();
        self
    }

    /// With another name of the watcher's Deployment.
    #[must_use]
    pub fn with_watcher(mut self, name: impl Into<String>) -> Self {
        self.watcher = name.into();
        self
    }

    /// Changing the cluster, or only saying what would be done.
    #[must_use]
    pub fn with_apply(mut self, apply: bool) -> Self {
        self.apply = apply;
        self
    }
}

impl Default for HandoverOptions {
    fn default() -> Self {
        let [namespace, _] = Install::PAC_NAMESPACES;
        Self {
            pac_namespace: namespace.to_owned(),
            watcher: "pipelines-as-code-watcher".to_owned(),
            apply: false,
        }
    }
}

/// What a step of a handover came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StepOutcome {
    /// What has to hold, holds.
    Holds,
    /// It was done.
    Done,
    /// It would be done.
    Would,
    /// It is left to do by hand.
    Next,
}

impl StepOutcome {
    /// It as a word: `ok`, `done`, `would`, `next`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Holds => "ok",
            Self::Done => "done",
            Self::Would => "would",
            Self::Next => "next",
        }
    }
}

/// Is told what each step came to, right after: the step, the outcome, and a sentence.
pub type Steps<'a> = &'a mut (dyn FnMut(&str, StepOutcome, &str) + Send);

/// Which annotation an execution order is moved to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Us,
    Pac,
}

impl To {
    fn keys(self) -> (&'static str, &'static str) {
        match self {
            Self::Us => (EXECUTION_ORDER, OUR_EXECUTION_ORDER),
            Self::Pac => (OUR_EXECUTION_ORDER, EXECUTION_ORDER),
        }
    }
}

/// The operations that move the order of a run; none where it is where it has to be. An order
/// that is at its place already is kept. For Pipelines-as-Code a run of a queue that has no order
/// gets one of itself alone: without it the rebuild of the queues passes the run over.
fn operations(run: &LiveRun, to: To) -> Vec<PatchOperation> {
    let (from, target) = to.keys();
    let (order, there) = match to {
        To::Us => (&run.pac_order, &run.our_order),
        To::Pac => (&run.our_order, &run.pac_order),
    };
    let annotation = |key| ["metadata", "annotations", key];
    let put = |order: String| add(&annotation(target), order.into());
    let mut operations = vec![test(&["metadata", "uid"], run.uid.as_str().into())];
    match order {
        Some(order) => {
            operations.push(test(&annotation(from), order.as_str().into()));
            operations.push(remove(&annotation(from)));
            if there.is_none() {
                // An entry that names no run would end the watcher whenever it starts.
                let kept = Some(well_formed(order)).filter(|order| !order.is_empty());
                operations.push(put(kept.unwrap_or_else(|| run.key())));
            }
        }
        None if to == To::Pac && run.lacks_an_order() => operations.push(put(run.key())),
        None => return Vec::new(),
    }
    operations
}

/// Moves the order of a run in one change. Whether it is where it has to be afterwards: a policy
/// that still acts moves it back. A run that is gone needs no order.
async fn move_order(access: &ClusterAccess, run: &LiveRun, to: To) -> Result<bool, InstallError> {
    let operations = operations(run, to);
    if operations.is_empty() {
        return Ok(true);
    }
    let answer = access
        .change(run.place(), Change::Json(json_patch::Patch(operations)))
        .await;
    let changed = answer.map_err(|error| {
        let message = format!(
            "{}; the run may have changed meanwhile: run the command again, which goes on with what \
             is left",
            error.message()
        );
        InstallError::new(error.kind(), error.subject(), message)
    })?;
    let Some(changed) = changed else {
        return Ok(true);
    };
    let (from, target) = to.keys();
    let annotations = changed.pointer("/metadata/annotations");
    let has = |key: &str| annotations.is_some_and(|all| all.get(key).is_some());
    Ok(has(target) && !has(from))
}

/// Tells of each object that a step has changed.
fn told<'a>(
    step: &'static str,
    steps: Steps<'a>,
) -> impl FnMut(&str, ObjectOutcome) + Send + use<'a> {
    move |object, outcome| {
        let detail = format!("{object} {}", outcome.name());
        steps(step, StepOutcome::Done, &detail);
    }
}

fn unsafe_step(step: &str, message: impl Into<String>) -> InstallError {
    InstallError::new(InstallErrorKind::Unsafe, step, message)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn run(ours: Option<&str>, pac: Option<&str>) -> LiveRun {
        LiveRun {
            namespace: "ci".to_owned(),
            name: "a".to_owned(),
            uid: "u".to_owned(),
            pending: true,
            pac_order: pac.map(str::to_owned),
            our_order: ours.map(str::to_owned),
            held_by_gate: false,
            has_token: false,
            state: None,
        }
    }

    /// The operations without the conditions.
    fn moves(run: &LiveRun, to: To) -> Vec<(String, String)> {
        let text = |operation: &PatchOperation, field: &str| {
            serde_json::to_value(operation)
                .unwrap()
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let all = operations(run, to);
        let tests = all
            .iter()
            .take_while(|one| text(one, "op") == "test")
            .count();
        assert!(all.is_empty() || all[0] == test(&["metadata", "uid"], "u".into()));
        all.iter()
            .skip(tests)
            .map(|one| (text(one, "op"), text(one, "value")))
            .collect()
    }

    fn pair(operation: &str, value: &str) -> (String, String) {
        (operation.to_owned(), value.to_owned())
    }

    #[test]
    fn an_order_moves_and_one_that_is_there_already_is_kept() {
        let both = [pair("remove", ""), pair("add", "ci/a,ci/b")];
        assert_eq!(moves(&run(Some("ci/a,ci/b"), None), To::Pac), both);
        assert_eq!(moves(&run(None, Some("ci/a,ci/b")), To::Us), both);
        assert_eq!(moves(&run(Some("ci/a"), Some("ci/b")), To::Pac), both[..1]);
        assert_eq!(moves(&run(None, Some("ci/a")), To::Pac), []);
        assert_eq!(moves(&run(None, None), To::Us), []);
    }

    #[test]
    fn pipelines_as_code_gets_an_order_that_it_can_read_for_every_run_of_a_queue() {
        let malformed = moves(&run(Some("oops"), None), To::Pac);
        assert_eq!(malformed, [pair("remove", ""), pair("add", "ci/a")]);
        let mut queued = run(None, None);
        assert_eq!(moves(&queued, To::Pac), []);
        queued.state = Some("queued".to_owned());
        assert_eq!(moves(&queued, To::Pac), [pair("add", "ci/a")]);
    }
}
