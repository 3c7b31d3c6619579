//! The rules that the webhook knows, one path of it each.

use pac_pipelines::vocabulary::{
    CANCELLED, CANCELLED_RUN_FINALLY, EXECUTION_ORDER, HELD, KUEUE_QUEUE, MANAGED_BY,
    OUR_EXECUTION_ORDER, PAC_MANAGER, PENDING, REPOSITORY, STOPPED_RUN_FINALLY,
};
use serde_json::json;

use super::review::{Object, Request};
use crate::patch::{add, remove};

/// What is done to the PipelineRuns of a review: the same as the policy of the same name does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// Moves the execution order of a run of Pipelines-as-Code to our annotation.
    Takeover,
    /// Makes a new run of a Repository that bears our limit pending, and marks it as held.
    Gate,
    /// Makes a new run pending, and marks it as held, unless another run has made it. Asked about
    /// runs of the Namespaces that bear
    /// [`vocabulary::HOLD_RUNS`](pac_pipelines::vocabulary::HOLD_RUNS).
    Namespace,
    /// Makes a graceful cancel of a run that is still held back one that ends it at once.
    Cancel,
}

/// What a rule makes of a request.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// It does not concern the rule, or nothing has to change.
    Unchanged,
    /// The object is to be changed.
    Changed(json_patch::Patch),
    /// It depends on whether the Repository of this name, in the namespace of the run, bears our
    /// limit; if it does, the object is to be changed.
    IfLimited(String, json_patch::Patch),
}

impl Rule {
    /// All rules.
    pub const ALL: [Self; 4] = [Self::Takeover, Self::Gate, Self::Namespace, Self::Cancel];

    /// Its name: `takeover`, `gate`, `namespace` or `cancel`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Takeover => "takeover",
            Self::Gate => "gate",
            Self::Namespace => "namespace",
            Self::Cancel => "cancel",
        }
    }

    /// The path under which the webhook answers by it.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Takeover => "/takeover",
            Self::Gate => "/gate",
            Self::Namespace => "/namespace",
            Self::Cancel => "/cancel",
        }
    }

    /// The rule of a path.
    #[must_use]
    pub fn of_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.path() == path)
    }

    /// Whether a request that cannot be judged is allowed unchanged. It is refused where the run
    /// would start beyond the limit, and allowed where the queue of Pipelines-as-Code or Tekton
    /// itself then acts. The same as the failure policy.
    #[must_use]
    pub fn allows_when_unsure(self) -> bool {
        match self {
            Self::Takeover | Self::Cancel => true,
            Self::Gate | Self::Namespace => false,
        }
    }

    /// Judges a request. What the configuration of the webhook selects is looked at again: older
    /// API servers do not know all of it.
    pub(super) fn judge(self, request: &Request) -> Result<Verdict, String> {
        let is_asked_about = match self {
            Self::Takeover => matches!(request.operation.as_str(), "CREATE" | "UPDATE"),
            Self::Gate | Self::Namespace => request.operation == "CREATE",
            Self::Cancel => request.operation == "UPDATE",
        };
        // A change of the status subresource brings no order and no cancel.
        if !is_asked_about || !request.is_about_runs() {
            return Ok(Verdict::Unchanged);
        }
        let Some(run) = &request.object else {
            return Err("request.object is missing".to_owned());
        };
        match self {
            Self::Takeover => Ok(take_over(run, request.old_object.as_ref())),
            Self::Gate => hold_of_repository(run),
            Self::Namespace => hold_of_namespace(run),
            Self::Cancel => cancel(run, request.old_object.as_ref()),
        }
    }
}

fn take_over(run: &Object, old: Option<&Object>) -> Verdict {
    let is_of_pac = |run: &Object| run.label(MANAGED_BY) == Some(PAC_MANAGER);
    // The API server looks for the label on either state of the object.
    if !is_of_pac(run) && !old.is_some_and(is_of_pac) {
        return Verdict::Unchanged;
    }
    let Some(order) = run.annotation(EXECUTION_ORDER) else {
        return Verdict::Unchanged;
    };
    Verdict::Changed(json_patch::Patch(vec![
        add(&annotation(OUR_EXECUTION_ORDER), order.into()),
        remove(&annotation(EXECUTION_ORDER)),
    ]))
}

fn hold_of_repository(run: &Object) -> Result<Verdict, String> {
    let Some(repository) = run.annotation(REPOSITORY) else {
        return Ok(Verdict::Unchanged);
    };
    Ok(match hold(run)? {
        Some(patch) => Verdict::IfLimited(repository.to_owned(), patch),
        None => Verdict::Unchanged,
    })
}

fn hold_of_namespace(run: &Object) -> Result<Verdict, String> {
    // The run that has made it would wait for it, in a slot.
    let is_made_by_a_run = run.has_owner(&["PipelineRun", "CustomRun"]);
    let held = hold(run)?.filter(|_| !is_made_by_a_run);
    Ok(held.map_or(Verdict::Unchanged, Verdict::Changed))
}

/// What holds a run back; `None` for one that its user or Kueue holds back.
fn hold(run: &Object) -> Result<Option<json_patch::Patch>, String> {
    if run.label(KUEUE_QUEUE).is_some() || !run.status()?.is_empty() {
        return Ok(None);
    }
    let mark = match run.has_annotations()? {
        true => add(&annotation(HELD), "true".into()),
        false => add(&["metadata", "annotations"], json!({HELD: "true"})),
    };
    let pending = add(&["spec", "status"], PENDING.into());
    Ok(Some(json_patch::Patch(vec![pending, mark])))
}

fn cancel(run: &Object, old: Option<&Object>) -> Result<Verdict, String> {
    let Some(old) = old else {
        return Err("request.oldObject is missing".to_owned());
    };
    let is_graceful = [CANCELLED_RUN_FINALLY, STOPPED_RUN_FINALLY].contains(&run.status()?);
    let is_queued = [REPOSITORY, HELD]
        .iter()
        .any(|key| run.annotation(key).is_some());
    if !is_queued || old.status()? != PENDING || !is_graceful {
        return Ok(Verdict::Unchanged);
    }
    let cancelled = add(&["spec", "status"], CANCELLED.into());
    Ok(Verdict::Changed(json_patch::Patch(vec![cancelled])))
}

/// The path of an annotation. An object that bears another one has a map for it.
fn annotation(key: &str) -> [&str; 3] {
    ["metadata", "annotations", key]
}
