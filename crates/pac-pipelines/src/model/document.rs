//! Objects out of the texts in which people and programs write them.

use pac_core::{PipelineRunKey, RepositoryKey};
use serde_json::{Map, Value};

use super::repository::RepositoryView;
use super::run::RunManifest;
use super::yaml::{self, Document, YamlError};
use crate::cluster::{Unreadable, UnreadableObject};
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

/// An object, or what cannot be understood of one, and its place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placed {
    /// The document of the text, counted from 1; empty documents do not count.
    pub document: usize,
    /// The item of that document's list, counted from 1; `None` where it is no `List`.
    pub item: Option<usize>,
    /// The object.
    pub found: Result<Object, Unreadable>,
}

/// The objects of a YAML or JSON text, in its order; the items of a `List` are objects of their
/// own. `source` names the text in errors: a file's name, or `list of runs`.
///
/// An object that cannot be understood is an error in its place, and so is a document that is no
/// YAML; the others are read all the same.
#[must_use]
pub fn parse_documents(source: &str, text: &str) -> Vec<Result<Object, ModelError>> {
    let placed = parse_placed(source, text).into_iter();
    placed
        .map(|placed| placed.found.map_err(|unreadable| unreadable.error))
        .collect()
}

/// The same as [`parse_documents`], each object with its place.
#[must_use]
pub fn parse_placed(source: &str, text: &str) -> Vec<Placed> {
    let mut objects = Vec::new();
    for (at, document) in documents(text).into_iter().enumerate() {
        let place = |item, found| Placed {
            document: at + 1,
            item,
            found,
        };
        let nameless = |field: String, rule: &str| {
            let error = ModelError::new(source, field, rule);
            Err(Unreadable::new(UnreadableObject::Nameless, error))
        };
        let document = match document {
            Ok(document) => document,
            Err(error) => {
                let line = format!("line {}", error.line);
                objects.push(place(None, nameless(line, &error.message)));
                continue;
            }
        };
        let Value::Object(map) = &document.value else {
            let line = format!("line {}", document.line);
            let rule = "must be an object with `apiVersion`, `kind` and `metadata`";
            objects.push(place(None, nameless(line, rule)));
            continue;
        };
        let Some(Value::Array(items)) = map.get("items") else {
            objects.push(place(None, read(map, None)));
            continue;
        };
        for (at, item) in items.iter().enumerate() {
            let found = match item {
                Value::Object(map) => read(map, list_item_kind(&document.value)),
                _ => {
                    let rule = "must be an object with `kind` and `metadata`";
                    nameless(format!("items[{at}]"), rule)
                }
            };
            objects.push(place(Some(at + 1), found));
        }
    }
    objects
}

/// The documents of a text. Where one of them is no YAML, each is read on its own, so that the
/// others are there.
fn documents(text: &str) -> Vec<Result<Document, YamlError>> {
    if let Ok(documents) = yaml::parse(text) {
        return documents.into_iter().map(Ok).collect();
    }
    let mut documents = Vec::new();
    for (before, part) in parts(text) {
        match yaml::parse(&part) {
            Ok(read) => documents.extend(read.into_iter().map(|mut document| {
                document.line += before;
                Ok(document)
            })),
            Err(mut error) => {
                error.line += before;
                documents.push(Err(error));
            }
        }
    }
    documents
}

/// A text, cut where documents start, each part with the number of lines before it. YAML allows
/// `---` at the start of a line for nothing else, wherever that line is.
fn parts(text: &str) -> Vec<(usize, String)> {
    let mut parts = vec![(0, String::new())];
    for (before, line) in text.split_inclusive('\n').enumerate() {
        let after = line.strip_prefix("---");
        if after.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace)) {
            parts.push((before, String::new()));
        }
        if let Some((_, part)) = parts.last_mut() {
            part.push_str(line);
        }
    }
    parts
}

/// The API leaves the kind of the items of a typed list out.
fn list_item_kind(list: &Value) -> Option<&str> {
    list.get("kind")?.as_str()?.strip_suffix("List")
}

fn read(map: &Map<String, Value>, usual: Option<&str>) -> Result<Object, Unreadable> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let kind = text(map.get("kind"));
    let kind = if kind.is_empty() {
        usual.unwrap_or_default().to_owned()
    } else {
        kind
    };
    let object = match kind.as_str() {
        "PipelineRun" => RunManifest::read(map).map(|run| Object::Run(Box::new(run))),
        "Repository" => RepositoryView::read(map).map(Object::Repository),
        _ => Ok(Object::Other {
            kind: kind.clone(),
            name: text(
                map.get("metadata")
                    .and_then(|metadata| metadata.get("name")),
            ),
        }),
    };
    object.map_err(|error| Unreadable::new(identity(&kind, map), error))
}

/// Which object it is, as far as its name can be understood.
fn identity(kind: &str, map: &Map<String, Value>) -> UnreadableObject {
    let metadata = map.get("metadata");
    let part = |name| metadata.and_then(|m| m.get(name)).and_then(Value::as_str);
    let (namespace, name) = (part("namespace").unwrap_or("default"), part("name"));
    let run = || PipelineRunKey::new(namespace, name?).ok();
    let repository = || RepositoryKey::new(namespace, name?).ok();
    let found = match kind {
        "PipelineRun" => run().map(UnreadableObject::Run),
        "Repository" => repository().map(UnreadableObject::Repository),
        _ => None,
    };
    found.unwrap_or(UnreadableObject::Nameless)
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

    #[test]
    fn every_object_has_its_place_also_beside_a_document_that_is_no_yaml() {
        let text = "# first\n---\nkind: Repository\nmetadata: {name: r}\n\
                    spec: {concurrency_limit: x}\n--- # second\nkind: [\n---\nkind: List\n\
                    items:\n- {kind: PipelineRun, metadata: {name: a}}\n- {kind: PipelineRun, \
                    metadata: {name: b}, status: 1}\n";
        let placed = parse_placed("x.yaml", text);
        let places: Vec<_> = placed.iter().map(|one| (one.document, one.item)).collect();
        assert_eq!(places, [(1, None), (2, None), (3, Some(1)), (3, Some(2))]);
        let unreadable = |at: usize| placed[at].found.clone().unwrap_err();
        let repository = "default/r".parse().unwrap();
        assert_eq!(
            unreadable(0).object,
            UnreadableObject::Repository(repository)
        );
        assert_eq!(unreadable(1).object, UnreadableObject::Nameless);
        assert_eq!(unreadable(1).error.field(), "line 8");
        assert!(placed[2].found.is_ok());
        let run = "default/b".parse().unwrap();
        assert_eq!(unreadable(3).object, UnreadableObject::Run(run));
    }
}
