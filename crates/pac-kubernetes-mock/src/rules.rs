//! What a write may not do, and what it does not touch.

use serde_json::{Value, json};

use crate::call::Call;
use crate::failure::Failure;
use crate::object::{self, text};
use crate::resource::Resource;

/// Names are DNS subdomains, but for those of RBAC.
pub(crate) fn check_name(resource: &Resource, name: &str) -> Result<(), Failure> {
    let inner = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let subdomain = name.len() <= 253
        && name.split('.').all(|part| {
            part.starts_with(inner)
                && part.ends_with(inner)
                && part.chars().all(|letter| inner(letter) || letter == '-')
        });
    if subdomain || resource.group == "rbac.authorization.k8s.io" {
        return Ok(());
    }
    let rule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
                characters, '-' or '.', and must start and end with an alphanumeric character \
                (e.g. 'example.com', regex used for validation is \
                '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    Err(Failure::invalid(
        resource,
        name,
        "metadata.name",
        name,
        rule,
    ))
}

/// Events have fields that they must have, and of a bounded length.
pub(crate) fn check_event(resource: &Resource, event: &Value) -> Result<(), Failure> {
    if resource.group != "events.k8s.io" {
        return Ok(());
    }
    let invalid = |field: &str, rule: &str| {
        let value = text(event, &format!("/{field}"));
        let name = object::name(event);
        Err(Failure::invalid(resource, name, field, value, rule))
    };
    for field in [
        "eventTime",
        "reportingController",
        "reportingInstance",
        "action",
        "reason",
    ] {
        match text(event, &format!("/{field}")).len() {
            0 => return invalid(field, "must have a value"),
            129.. => return invalid(field, "can have at most 128 characters"),
            _ => {}
        }
    }
    if text(event, "/note").len() > 1024 {
        return invalid("note", "can have at most 1024 characters");
    }
    if !matches!(text(event, "/type"), "Normal" | "Warning") {
        return invalid("type", "has invalid value: must be Normal or Warning");
    }
    let namespace = object::namespace(event);
    let fits = match text(event, "/regarding/namespace") {
        // An event about an object without a namespace lives in one of these.
        "" => matches!(namespace, "default" | "kube-system"),
        regarding => regarding == namespace,
    };
    if !fits {
        return invalid("regarding/namespace", "does not match event.namespace");
    }
    Ok(())
}

pub(crate) fn check_preconditions(call: &Call, current: &Value) -> Result<(), Failure> {
    for (field, named) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
        let expected = text(&call.body, &format!("/preconditions/{field}"));
        let found = text(current, &format!("/metadata/{field}"));
        if !expected.is_empty() && expected != found {
            let why = format!(
                "the {named} in the precondition ({expected}) does not match the {named} in \
                 record ({found}). The object might have been {}",
                if field == "uid" {
                    "deleted and then recreated"
                } else {
                    "modified"
                }
            );
            let resource = &call.resource;
            return Err(Failure::conflict(
                resource,
                &resource.kind,
                &call.name,
                &why,
            ));
        }
    }
    Ok(())
}

/// A write to the object itself does not touch the status, where that is a subresource.
pub(crate) fn keep_status(resource: &Resource, current: &Value, new: &mut Value) {
    if resource.status {
        let status = current.get("status").cloned();
        object::set(object::as_map(new), "status", status);
    }
}

/// Only the server writes these fields: a request leaves them as they are.
pub(crate) fn keep_identity(current: &Value, new: &mut Value) {
    let metadata = object::fields(new, "metadata");
    for field in [
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "generateName",
        "generation",
        "name",
        "namespace",
        "resourceVersion",
        "uid",
    ] {
        let kept = current.pointer(&format!("/metadata/{field}")).cloned();
        object::set(metadata, field, kept);
    }
}

/// A change outside the metadata, and outside a status subresource, is a new generation.
pub(crate) fn count_generation(resource: &Resource, current: &Value, new: &mut Value) {
    let desired = |object: &Value| -> Vec<(String, Value)> {
        let fields = object.as_object().into_iter().flatten();
        fields
            .filter(|(name, _)| *name != "metadata" && !(resource.status && *name == "status"))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    if !resource.generation || desired(current) == desired(new) {
        return;
    }
    let generation = current
        .pointer("/metadata/generation")
        .and_then(Value::as_u64);
    let next = json!(generation.unwrap_or_default() + 1);
    object::fields(new, "metadata").insert("generation".to_owned(), next);
}
