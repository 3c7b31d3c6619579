//! MutatingAdmissionPolicies that the server recognises by name.
//!
//! The server does not interpret CEL. A test says which policy and binding do what, and while both
//! objects exist, code of this module does it. What their expressions say is not looked at: that
//! they are right is for a test against a real cluster to show. An installed policy acts at once;
//! on a real server that takes up to seconds.

use serde_json::{Value, json};

use crate::admission::{Operation, Review};
use crate::object::{self, text};
use crate::selector::Selector;
use crate::store::State;

/// The annotation with the runs of one event in order, as Pipelines-as-Code writes it.
pub(crate) const EXECUTION_ORDER: &str = "pipelinesascode.tekton.dev/execution-order";
/// The annotation with the true name of a run's Repository.
pub(crate) const REPOSITORY: &str = "pipelinesascode.tekton.dev/repository";
pub(crate) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`] on the runs of Pipelines-as-Code.
pub(crate) const PAC: &str = "pipelinesascode.tekton.dev";
pub(crate) const PENDING: &str = "PipelineRunPending";

/// A policy that acts while its object and that of its binding exist.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Policy {
    /// The name of the MutatingAdmissionPolicy.
    pub policy: String,
    /// The name of the MutatingAdmissionPolicyBinding, whose `spec.policyName` must be the policy.
    pub binding: String,
    /// What it does.
    pub effect: Effect,
}

impl Policy {
    /// A policy of these names.
    #[must_use]
    pub fn new(policy: &str, binding: &str, effect: Effect) -> Self {
        Self {
            policy: policy.to_owned(),
            binding: binding.to_owned(),
            effect,
        }
    }
}

/// What a recognised policy does to PipelineRuns.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// On the creation and each change of a run of Pipelines-as-Code: the value of its
    /// execution-order annotation moves to another one.
    Takeover {
        /// The annotation that gets the order.
        order: String,
    },
    /// On the creation of a run that is to start at once, and whose Repository in the same
    /// namespace has an annotation with a limit: the run is made pending, and marked as held.
    Gate {
        /// The annotation of the Repository with the limit.
        limit: String,
        /// The annotation of the run that gets the value `true`.
        held: String,
    },
    /// On the creation of a run that is to start at once, that no other run has made, and whose
    /// Namespace has an annotation with a limit: the run is made pending, and marked as held.
    GateNamespace {
        /// The annotations of the Namespace: one of them is enough.
        limits: Vec<String>,
        /// The annotation of the run that gets the value `true`.
        held: String,
    },
    /// On a change of a pending run to a graceful form of cancelling: `Cancelled` instead, which
    /// runs no `finally` tasks.
    CancelHeld,
}

/// Does to the object what the policy does, if it is installed and matches.
pub(crate) fn apply(policy: &Policy, state: &State, review: &Review<'_>, object: &mut Value) {
    let resource = review.resource;
    if resource.plural != "pipelineruns"
        || resource.group != "tekton.dev"
        || !installed(policy, state)
    {
        return;
    }
    match &policy.effect {
        Effect::Takeover { order } => take_over(order, object),
        Effect::Gate { limit, held } => {
            if review.operation == Operation::Create && gated(state, limit, object) {
                hold(object, held);
            }
        }
        Effect::GateNamespace { limits, held } => {
            if review.operation == Operation::Create && gated_by_namespace(state, limits, object) {
                hold(object, held);
            }
        }
        Effect::CancelHeld => {
            let held = review
                .old
                .is_some_and(|old| text(old, "/spec/status") == PENDING);
            let graceful = matches!(
                text(object, "/spec/status"),
                "CancelledRunFinally" | "StoppedRunFinally"
            );
            if held && graceful {
                object::fields(object, "spec").insert("status".to_owned(), json!("Cancelled"));
            }
        }
    }
}

fn installed(policy: &Policy, state: &State) -> bool {
    let find = |plural: &str, name: &str| {
        let resource = state.resource_named(plural).ok()?;
        state.find(&resource, "", name)
    };
    find("mutatingadmissionpolicies", &policy.policy).is_some()
        && find("mutatingadmissionpolicybindings", &policy.binding)
            .is_some_and(|binding| text(&binding, "/spec/policyName") == policy.policy)
}

fn take_over(order: &str, object: &mut Value) {
    if object::label(object, MANAGED_BY) != Some(PAC)
        || object::annotation(object, EXECUTION_ORDER).is_none()
    {
        return;
    }
    let annotations = object::metadata_fields(object, "annotations");
    if let Some(value) = annotations.remove(EXECUTION_ORDER) {
        annotations.insert(order.to_owned(), value);
    }
}

fn hold(run: &mut Value, held: &str) {
    object::fields(run, "spec").insert("status".to_owned(), json!(PENDING));
    object::metadata_fields(run, "annotations").insert(held.to_owned(), json!("true"));
}

fn gated_by_namespace(state: &State, limits: &[String], run: &Value) -> bool {
    let owners = run.pointer("/metadata/ownerReferences");
    let owners = owners.and_then(Value::as_array).into_iter().flatten();
    let mut kinds = owners.map(|owner| text(owner, "/kind"));
    let is_of_kueue = object::label(run, "kueue.x-k8s.io/queue-name").is_some();
    if !text(run, "/spec/status").is_empty()
        || is_of_kueue
        || kinds.any(|kind| matches!(kind, "PipelineRun" | "CustomRun"))
    {
        return false;
    }
    let Ok(resource) = state.resource_named("namespaces") else {
        return false;
    };
    let namespace = state.find(&resource, "", object::namespace(run));
    namespace.is_some_and(|found| {
        let mut limits = limits.iter();
        limits.any(|limit| object::annotation(&found, limit).is_some())
    })
}

/// The Repositories of the run's namespace are the parameters of the policy.
fn gated(state: &State, limit: &str, run: &Value) -> bool {
    if !text(run, "/spec/status").is_empty() {
        return false;
    }
    let Some(repository) = object::annotation(run, REPOSITORY) else {
        return false;
    };
    let Ok(resource) = state.resource_named("repositories") else {
        return false;
    };
    state
        .select(&resource, object::namespace(run), &Selector::default())
        .iter()
        .any(|found| {
            object::name(found) == repository && object::annotation(found, limit).is_some()
        })
}
