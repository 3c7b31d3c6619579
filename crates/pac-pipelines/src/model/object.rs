//! What all objects have in common.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::fields::Fields;
use super::yaml;
use crate::error::ModelError;
use crate::sections;

/// The one object of a text, and what it is called in errors.
pub(super) fn single(text: &str) -> Result<Map<String, Value>, ModelError> {
    let source = "object";
    let mut documents = yaml::parse(text)
        .map_err(|error| ModelError::new(source, format!("line {}", error.line), error.message))?;
    match (documents.pop(), documents.len()) {
        (Some(document), 0) => match document.value {
            Value::Object(map) => Ok(map),
            _ => Err(ModelError::new(source, "line 1", "must be an object")),
        },
        _ => Err(ModelError::new(
            source,
            "line 1",
            "must be exactly one document",
        )),
    }
}

/// The object of a JSON text.
pub(super) fn single_json(text: &str) -> Result<Map<String, Value>, ModelError> {
    serde_json::from_str(text).map_err(|error| {
        let line = format!("line {}", error.line());
        ModelError::new(
            "object",
            line,
            format!("must be an object in JSON: {error}"),
        )
    })
}

/// Kind, namespace and name of an object as far as it has them.
pub(super) fn describe(kind: &str, map: &Map<String, Value>) -> String {
    let metadata = map.get("metadata");
    let part = |name| metadata.and_then(|m| m.get(name)).and_then(Value::as_str);
    let name = part("name")
        .or_else(|| part("generateName"))
        .unwrap_or("without a name");
    match part("namespace") {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

/// So many labels, and so many annotations, are kept of which no rule of ours speaks.
const OTHERS: usize = 64;

/// How long the value of one of those is at most, in bytes.
const OTHER_VALUE: usize = 256;

/// The labels or annotations in `metadata` that are not in `named`: the first by their names, as
/// far as they are short texts.
pub(super) fn other_marks(
    metadata: &Fields<'_>,
    field: &str,
    is_named: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, String>, ModelError> {
    let marks = metadata.inner(field)?;
    let others = marks.texts().filter(|(name, value)| {
        !is_named(name) && name.len() <= OTHER_VALUE && value.len() <= OTHER_VALUE
    });
    let sorted: BTreeMap<&str, &str> = others.collect();
    let first = sorted.into_iter().take(OTHERS);
    Ok(first
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

/// The labels or annotations in `metadata` that are in `kept`.
pub(super) fn marks(
    metadata: &Fields<'_>,
    field: &str,
    kept: &[&str],
) -> Result<BTreeMap<String, String>, ModelError> {
    let marks = metadata.inner(field)?;
    let mut found = BTreeMap::new();
    for name in kept {
        if let Some(text) = marks.scalar(name)? {
            found.insert((*name).to_owned(), text);
        }
    }
    Ok(found)
}

/// The annotations about sections in `metadata`: the requests for as many sections as a run may ask
/// for, and the answers to them.
pub(super) fn section_marks(metadata: &Fields<'_>) -> Result<BTreeMap<String, String>, ModelError> {
    let marks = metadata.inner("annotations")?;
    let names = marks.names().filter_map(sections::requested_by);
    // In the order of their names: what is beyond the bound is the same in every controller.
    let names: BTreeSet<_> = names.collect();
    let mut found = BTreeMap::new();
    for section in names.iter().take(sections::MOST) {
        for name in [section.request_annotation(), section.answer_annotation()] {
            let text = marks.scalar(&name)?;
            if let Some(text) = text.filter(|text| text.len() <= sections::LONGEST) {
                found.insert(name, text);
            }
        }
    }
    Ok(found)
}
