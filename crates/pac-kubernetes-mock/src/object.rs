//! Reading and writing the fields of an object that every kind has.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::failure::Failure;
use crate::resource::Resource;

/// The string at a JSON pointer; empty when it is absent.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

pub(crate) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub(crate) fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

pub(crate) fn resource_version(object: &Value) -> &str {
    text(object, "/metadata/resourceVersion")
}

/// A label of the object.
pub(crate) fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get("labels")?.get(key)?.as_str()
}

/// An annotation of the object.
pub(crate) fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object
        .get("metadata")?
        .get("annotations")?
        .get(key)?
        .as_str()
}

pub(crate) fn has_finalizers(object: &Value) -> bool {
    object
        .pointer("/metadata/finalizers")
        .and_then(Value::as_array)
        .is_some_and(|finalizers| !finalizers.is_empty())
}

pub(crate) fn is_deleting(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some()
}

/// The fields of `section`, which is made an object if it is none.
pub(crate) fn fields<'a>(object: &'a mut Value, section: &str) -> &'a mut Map<String, Value> {
    as_map(as_map(object).entry(section).or_insert(Value::Null))
}

/// The fields of a section of the metadata, such as `annotations`.
pub(crate) fn metadata_fields<'a>(
    object: &'a mut Value,
    section: &str,
) -> &'a mut Map<String, Value> {
    as_map(
        fields(object, "metadata")
            .entry(section)
            .or_insert(Value::Null),
    )
}

/// The value as a map; anything else becomes an empty one.
pub(crate) fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

/// Sets a top-level field, or removes it for `None`.
pub(crate) fn set(fields: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    match value {
        Some(value) => fields.insert(key.to_owned(), value),
        None => fields.remove(key),
    };
}

/// The time as objects have it: whole seconds.
pub(crate) fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A random version 4 UUID.
pub(crate) fn new_uid() -> String {
    let bits = fastrand::u128(..);
    let hex = format!("{bits:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-4{}-a{}-{}",
        part(0, 8),
        part(8, 12),
        part(13, 16),
        part(17, 20),
        part(20, 32)
    )
}

/// The prefix and five random letters and digits; no vowels, as a real server has none.
pub(crate) fn generated_name(prefix: &str) -> String {
    const ALPHABET: [char; 27] = [
        'b', 'c', 'd', 'f', 'g', 'h', 'j', 'k', 'l', 'm', 'n', 'p', 'q', 'r', 's', 't', 'v', 'w',
        'x', 'z', '2', '4', '5', '6', '7', '8', '9',
    ];
    let suffix = (0..5).filter_map(|_| fastrand::choice(ALPHABET));
    prefix.chars().chain(suffix).collect()
}

/// Gives an object from a request the form in which it is kept: kind and version are the
/// resource's, unknown fields go, and so do empty sections of the metadata.
///
/// # Errors
/// 400 when the kind is another one, or a label or annotation is not text.
pub(crate) fn normalize(resource: &Resource, object: &mut Value) -> Result<(), Failure> {
    if !object.is_object() {
        return Err(Failure::bad_request("the body is not a JSON object"));
    }
    for (field, wanted) in [
        ("kind", resource.kind.clone()),
        ("apiVersion", resource.api_version()),
    ] {
        let found = text(object, &format!("/{field}"));
        if !found.is_empty() && found != wanted {
            return Err(Failure::bad_request(format!(
                "the {field} of the object is {found}, and this resource's is {wanted}"
            )));
        }
        as_map(object).insert(field.to_owned(), json!(wanted));
    }
    for section in ["labels", "annotations"] {
        check_texts(object, section)?;
    }
    prune(resource, object);
    Ok(())
}

fn check_texts(object: &Value, section: &str) -> Result<(), Failure> {
    let Some(values) = object.pointer(&format!("/metadata/{section}")) else {
        return Ok(());
    };
    let texts = match values {
        Value::Object(values) => values.values().all(Value::is_string),
        Value::Null => true,
        _ => false,
    };
    if texts {
        return Ok(());
    }
    Err(Failure::bad_request(format!(
        "metadata.{section}: every value must be a string"
    )))
}

fn prune(resource: &Resource, object: &mut Value) {
    const TOP: [&str; 6] = [
        "apiVersion",
        "kind",
        "metadata",
        "spec",
        "status",
        "pipelinerun_status",
    ];
    const METADATA: [&str; 14] = [
        "annotations",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "labels",
        "managedFields",
        "name",
        "namespace",
        "ownerReferences",
        "resourceVersion",
        "uid",
    ];
    if resource.custom {
        as_map(object).retain(|key, _| TOP.contains(&key.as_str()));
    }
    fields(object, "metadata")
        .retain(|key, value| METADATA.contains(&key.as_str()) && !is_empty(value));
    if let Some(known) = resource.spec_fields
        && object.get("spec").is_some_and(Value::is_object)
    {
        fields(object, "spec").retain(|key, _| known.contains(&key.as_str()));
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_a_version_4_uuid() {
        let uid = new_uid();
        let lengths: Vec<usize> = uid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert!(
            uid.split('-')
                .nth(2)
                .is_some_and(|part| part.starts_with('4'))
        );
    }

    #[test]
    fn a_generated_name_has_five_more_letters() {
        let name = generated_name("build-");
        assert_eq!(name.len(), 11);
        assert!(name.starts_with("build-"));
    }
}
