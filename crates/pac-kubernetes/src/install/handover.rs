//! Gives the queues of a busy cluster to the controller, and back to Pipelines-as-Code.
//!
//! Pipelines-as-Code counts in the memory of its watcher the runs that it has started or seen. While
//! the watcher is up it must therefore never see the execution order of a run that it does not
//! count: it started a second run beside one that the controller had started, when that was tried.
//! So the watcher is stopped before an order moves, and rebuilds its queues when it starts.

mod offboard;
mod onboard;
mod watcher;

use pac_pipelines::vocabulary::{EXECUTION_ORDER, OUR_EXECUTION_ORDER};
use serde_json::{Value, json};

use super::api::{Change, ClusterAccess, annotation_path, test};
use super::error::{InstallError, InstallErrorKind};
use super::options::Install;
use super::runs::{LiveRun, well_formed};

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

/// The order of a run that has to be moved, and whether the other annotation has one already,
/// which is then kept.
fn order(run: &LiveRun, to: To) -> Option<(&str, bool)> {
    let (from, there) = match to {
        To::Us => (&run.pac_order, &run.our_order),
        To::Pac => (&run.our_order, &run.pac_order),
    };
    from.as_deref().map(|order| (order, there.is_some()))
}

/// Moves the order of a run in one change. Whether it is where it has to be afterwards: a policy
/// that still acts moves it back. A run that is gone needs no order.
async fn move_order(access: &ClusterAccess, run: &LiveRun, to: To) -> Result<bool, InstallError> {
    let Some((order, is_there)) = order(run, to) else {
        return Ok(true);
    };
    let (from, target) = to.keys();
    let mut operations = vec![
        test("/metadata/uid", &run.uid),
        test(&annotation_path(from), order),
        json!({"op": "remove", "path": annotation_path(from)}),
    ];
    if !is_there {
        let value = well_formed(order);
        operations.push(json!({"op": "add", "path": annotation_path(target), "value": value}));
    }
    let answer = access
        .change(run.place(), Change::Json(operations.into()))
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
    let annotations = changed.pointer("/metadata/annotations");
    let has = |key: &str| {
        annotations
            .and_then(|all| all.get(key))
            .and_then(Value::as_str)
            .is_some()
    };
    Ok(has(target) && !has(from))
}

fn unsafe_step(step: &str, message: impl Into<String>) -> InstallError {
    InstallError::new(InstallErrorKind::Unsafe, step, message)
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn an_order_that_is_there_already_is_kept() {
        assert_eq!(order(&run(Some("x"), None), To::Pac), Some(("x", false)));
        assert_eq!(
            order(&run(Some("x"), Some("y")), To::Pac),
            Some(("x", true))
        );
        assert_eq!(order(&run(None, Some("y")), To::Pac), None);
        assert_eq!(order(&run(None, Some("y")), To::Us), Some(("y", false)));
    }
}
