//! SubjectAccessReviews: what the roles of the server let a service account do. The server itself asks
//! nobody for an account.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::object::{self, text};
use crate::resource::Resource;
use crate::selector::Selector;
use crate::store::State;

/// Whether a resource is a question rather than a kept object.
pub(crate) fn is_review(resource: &Resource) -> bool {
    resource.plural == "subjectaccessreviews"
}

/// The review with its answer. Only accounts of services are known, and only rules about resources.
pub(crate) fn reviewed(state: &State, review: &Value) -> Value {
    let mut answered = review.clone();
    let allowed = is_allowed(state, review);
    object::as_map(&mut answered).insert("status".to_owned(), json!({"allowed": allowed}));
    answered
}

fn is_allowed(state: &State, review: &Value) -> bool {
    let user = text(review, "/spec/user");
    let attributes = |field: &str| text(review, &format!("/spec/resourceAttributes/{field}"));
    let namespace = attributes("namespace");
    let everywhere = bound(state, "clusterrolebindings", "", user);
    let here = match namespace {
        "" => Vec::new(),
        namespace => bound(state, "rolebindings", namespace, user),
    };
    everywhere.iter().chain(&here).any(|role| {
        let rules = role.get("rules").and_then(Value::as_array);
        rules.into_iter().flatten().any(|rule| {
            has(rule, "apiGroups", attributes("group"))
                && has(rule, "resources", attributes("resource"))
                && has(rule, "verbs", attributes("verb"))
                && (rule.get("resourceNames").is_none()
                    || has(rule, "resourceNames", attributes("name")))
        })
    })
}

/// The roles that bindings of a kind give to an account.
fn bound(state: &State, bindings: &str, namespace: &str, user: &str) -> Vec<Value> {
    let Ok(resource) = state.resource_named(bindings) else {
        return Vec::new();
    };
    let found = state.select(&resource, namespace, &Selector::default());
    let of_user = found.iter().filter(|binding| {
        let subjects = binding.get("subjects").and_then(Value::as_array);
        subjects.into_iter().flatten().any(|subject| {
            let (namespace, name) = (text(subject, "/namespace"), text(subject, "/name"));
            user == format!("system:serviceaccount:{namespace}:{name}")
        })
    });
    let role = |binding: &Arc<Value>| {
        let (kind, namespace) = match text(binding, "/roleRef/kind") {
            "ClusterRole" => ("clusterroles", ""),
            _ => ("roles", namespace),
        };
        let resource = state.resource_named(kind).ok()?;
        let role = state.find(&resource, namespace, text(binding, "/roleRef/name"))?;
        Some(Value::clone(&role))
    };
    of_user.filter_map(role).collect()
}

fn has(rule: &Value, field: &str, wanted: &str) -> bool {
    let values = rule.get(field).and_then(Value::as_array);
    let mut values = values.into_iter().flatten();
    values.any(|value| value == wanted || value == "*")
}
