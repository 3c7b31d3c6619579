//! Patches: what a request makes of an object.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use crate::call::{APPLY_PATCH, Call, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH};
use crate::failure::Failure;
use crate::object;
use crate::resource::Resource;

/// The object after a JSON patch or a merge patch.
///
/// A strategic merge patch, which only built-in resources take, is done like a merge patch: lists
/// are replaced, not merged by key.
///
/// # Errors
/// 400 for a body that is no such patch, 415 for a patch of another type, and 422 for a JSON patch
/// that fails a test or names a path that does not exist.
pub(crate) fn patched(call: &Call, current: &Value) -> Result<Value, Failure> {
    let mut object = current.clone();
    match call.content_type.as_str() {
        JSON_PATCH => {
            let patch: json_patch::Patch = serde_json::from_value(call.body.clone())
                .map_err(|error| Failure::bad_request(format!("the JSON patch: {error}")))?;
            json_patch::patch(&mut object, &patch).map_err(|_| Failure::unprocessable())?;
        }
        MERGE_PATCH => merge(&mut object, &call.body)?,
        STRATEGIC_PATCH if !call.resource.custom => merge(&mut object, &call.body)?,
        _ => return Err(Failure::unsupported_patch(&call.resource)),
    }
    Ok(object)
}

fn merge(object: &mut Value, patch: &Value) -> Result<(), Failure> {
    if !patch.is_object() {
        return Err(Failure::bad_request("the merge patch is not a JSON object"));
    }
    json_patch::merge(object, patch);
    Ok(())
}

/// Whether the request is a server-side apply.
pub(crate) fn is_apply(call: &Call) -> bool {
    call.content_type == APPLY_PATCH
}

/// What each field manager applied to each object.
///
/// Only fields that were applied have owners here, so that an apply never conflicts: it takes the
/// fields over as with `force`. A list is one field.
#[derive(Debug, Default)]
pub(crate) struct Applied(HashMap<Key, BTreeMap<String, Value>>);

/// Qualified plural, namespace, name.
type Key = (String, String, String);

impl Applied {
    /// The object after an apply: the fields of the request are set, and those that the same
    /// manager applied before and leaves out now are removed, unless another one applied them too.
    ///
    /// # Errors
    /// 400 when the request names no field manager, or its body is not an object.
    pub(crate) fn apply(&self, call: &Call, current: Option<&Value>) -> Result<Value, Failure> {
        let manager = call.parameter("fieldManager");
        if manager.is_empty() {
            return Err(Failure::bad_request(
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: \
                 is required for apply patch",
            ));
        }
        if !call.body.is_object() {
            return Err(Failure::bad_request(
                "the body of an apply is not a JSON object; this server reads no YAML",
            ));
        }
        let mut object = current.cloned().unwrap_or(Value::Object(Map::new()));
        if let Some(managers) = self.0.get(&key(call)) {
            let others: Vec<&Value> = managers
                .iter()
                .filter(|(name, _)| name.as_str() != manager)
                .map(|(_, applied)| applied)
                .collect();
            if let Some(before) = managers.get(manager) {
                give_up(&mut object, before, Some(&call.body), &others);
            }
        }
        set(&mut object, &call.body);
        Ok(object)
    }

    /// Remembers what an apply set.
    pub(crate) fn remember(&mut self, call: &Call) {
        let managers = self.0.entry(key(call)).or_default();
        managers.insert(call.parameter("fieldManager").to_owned(), call.body.clone());
    }

    /// Forgets an object that was deleted.
    pub(crate) fn forget(&mut self, resource: &Resource, namespace: &str, name: &str) {
        let plural = resource.qualified_plural();
        self.0
            .remove(&(plural, namespace.to_owned(), name.to_owned()));
    }
}

fn key(call: &Call) -> Key {
    (
        call.resource.qualified_plural(),
        call.namespace.clone(),
        call.name.clone(),
    )
}

/// Removes the fields of `before` that neither `now` nor one of `others` has.
fn give_up(object: &mut Value, before: &Value, now: Option<&Value>, others: &[&Value]) {
    let (Value::Object(fields), Value::Object(before)) = (object, before) else {
        return;
    };
    for (name, was) in before {
        let now = now.and_then(|now| now.get(name));
        let others: Vec<&Value> = others.iter().filter_map(|other| other.get(name)).collect();
        if let (Value::Object(_), Some(field)) = (was, fields.get_mut(name)) {
            give_up(field, was, now, &others);
        }
        let emptied = fields.get(name).is_some_and(is_leaf_or_empty);
        if now.is_none() && others.is_empty() && emptied {
            fields.remove(name);
        }
    }
}

fn is_leaf_or_empty(field: &Value) -> bool {
    field.as_object().is_none_or(Map::is_empty)
}

fn set(object: &mut Value, applied: &Value) {
    match applied {
        Value::Object(applied) => {
            let fields = object::as_map(object);
            for (name, value) in applied {
                set(fields.entry(name).or_insert(Value::Null), value);
            }
        }
        other => *object = other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_that_a_manager_no_longer_applies_go_and_those_of_others_stay() {
        let mut object = json!({"spec": {"a": 1, "b": {"c": 2, "d": 3}, "e": [4]}});
        let before = json!({"spec": {"a": 1, "b": {"c": 2}, "e": [4]}});
        let now = json!({"spec": {"a": 1}});
        let other = json!({"spec": {"e": [4]}});
        give_up(&mut object, &before, Some(&now), &[&other]);
        assert_eq!(object, json!({"spec": {"a": 1, "b": {"d": 3}, "e": [4]}}));
    }
}
