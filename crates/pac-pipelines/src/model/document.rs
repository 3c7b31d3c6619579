//! Objects out of the texts in which people and programs write them.

use serde_json::{Map, Value};

use super::repository::RepositoryView;
use super::run::RunManifest;
use super::yaml;
use crate::error::ModelError;

/// An object of the cluster, as a text has it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Object {
    /// A PipelineRun. One that people wrote may have neither name nor uid.
    Run(Box<RunManifest>),
    /// A Repository.
    Repository(RepositoryView),
    /// Anything else.
    Other {
        /// Its kind; empty if it has none.
        kind: String,
        /// Its name; empty if it has none.
        name: String,
    },
}

/// The objects of a YAML or JSON text, in its order; the items of a `List` are objects of their
/// own. `source` names the text in errors: a file's name, or `list of runs`.
///
/// An object that cannot be understood is an error in its place, and the others are read all the
/// same; a text that is no YAML at all is a single error.
#[must_use]
pub fn parse_documents(source: &str, text: &str) -> Vec<Result<Object, ModelError>> {
    let documents = match yaml::parse(text) {
        Ok(documents) => documents,
        Err(error) => {
            let line = format!("line {}", error.line);
            return vec![Err(ModelError::new(source, line, error.message))];
        }
    };
    let mut objects = Vec::with_capacity(documents.len());
    for document in documents {
        let line = format!("line {}", document.line);
        let Value::Object(map) = &document.value else {
            let rule = "must be an object with `apiVersion`, `kind` and `metadata`";
            objects.push(Err(ModelError::new(source, line, rule)));
            continue;
        };
        match map.get("items") {
            Some(Value::Array(items)) => {
                objects.extend(items.iter().enumerate().map(|(at, item)| {
                    let Value::Object(map) = item else {
                        let rule = "must be an object with `kind` and `metadata`";
                        return Err(ModelError::new(source, format!("items[{at}]"), rule));
                    };
                    read(map, list_item_kind(&document.value))
                }));
            }
            _ => objects.push(read(map, None)),
        }
    }
    objects
}

/// The API leaves the kind of the items of a typed list out.
fn list_item_kind(list: &Value) -> Option<&str> {
    list.get("kind")?.as_str()?.strip_suffix("List")
}

fn read(map: &Map<String, Value>, usual: Option<&str>) -> Result<Object, ModelError> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let kind = text(map.get("kind"));
    let kind = if kind.is_empty() {
        usual.unwrap_or_default().to_owned()
    } else {
        kind
    };
    match kind.as_str() {
        "PipelineRun" => Ok(Object::Run(Box::new(RunManifest::read(map)?))),
        "Repository" => RepositoryView::read(map).map(Object::Repository),
        _ => Ok(Object::Other {
            kind,
            name: text(
                map.get("metadata")
                    .and_then(|metadata| metadata.get("name")),
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_object_stops_none_of_the_others() {
        let text = "kind: PipelineRun\nmetadata: {name: a, namespace: ci}\n---\n\
                    kind: Repository\nmetadata: {name: r, namespace: ci}\n\
                    spec: {concurrency_limit: -1}\n---\n- 1\n---\n\
                    kind: ConfigMap\nmetadata: {name: c}\n---\n\
                    kind: PipelineRunList\nitems:\n- metadata: {name: b, namespace: ci}\n- 2\n";
        let objects = parse_documents("x.yaml", text);
        let shown: Vec<String> = objects
            .iter()
            .map(|object| match object {
                Ok(Object::Run(run)) => format!("run {}", run.name.as_deref().unwrap()),
                Ok(other) => format!("{other:?}"),
                Err(error) => error.to_string(),
            })
            .collect();
        assert_eq!(shown[0], "run a");
        assert!(
            shown[1].starts_with("Repository ci/r: spec.concurrency_limit: must be"),
            "{}",
            shown[1]
        );
        assert!(
            shown[2].starts_with("x.yaml: line 8: must be an object"),
            "{}",
            shown[2]
        );
        assert!(shown[3].contains("ConfigMap"), "{}", shown[3]);
        assert_eq!(shown[4], "run b");
        assert!(shown[5].starts_with("x.yaml: items[1]"), "{}", shown[5]);
        assert_eq!(parse_documents("y", "a: [").len(), 1);
    }
}
