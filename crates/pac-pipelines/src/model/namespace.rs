//! A Namespace: what it says about the queues of its runs.

use std::collections::BTreeMap;

use pac_core::RepositoryKey;
use serde_json::{Map, Value};

use super::fields::Fields;
use super::object::{describe, marks, single, single_json};
use super::repository::version;
use super::version::ResourceVersion;
use crate::error::ModelError;
use crate::vocabulary;

/// A Namespace, as far as limits and queues go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamespaceView {
    /// Its name.
    pub name: String,
    /// Which state of the object this is; `None` when it was not read from a cluster.
    pub version: Option<ResourceVersion>,
    /// The annotations of [`vocabulary::NAMESPACE_ANNOTATIONS`] that it has, as they are: what
    /// they mean is for [`NamespaceRule`](crate::lanes::NamespaceRule) to say.
    pub annotations: BTreeMap<String, String>,
}

impl NamespaceView {
    /// A Namespace without annotations.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Reads one Namespace from its YAML or JSON.
    ///
    /// # Errors
    /// [`ModelError`] for a text that is not one document, a name that Kubernetes would not take,
    /// and an annotation that is no text.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        Self::read(&single(text)?)
    }

    /// Reads one Namespace from the JSON that the API of a cluster answers with. The same as
    /// [`parse`](Self::parse), and much quicker; a key that comes twice has its last value.
    ///
    /// # Errors
    /// [`ModelError`] as of [`parse`](Self::parse).
    pub fn from_json(text: &str) -> Result<Self, ModelError> {
        Self::read(&single_json(text)?)
    }

    fn read(map: &Map<String, Value>) -> Result<Self, ModelError> {
        let object = describe("Namespace", map);
        let metadata = Fields::of(&object, map).inner("metadata")?;
        let name = metadata.text("name")?.unwrap_or_default();
        // Any name of an object will do: the rule that is looked at is that of the namespace.
        RepositoryKey::new(name, "any")
            .map_err(|invalid| metadata.error("name", invalid.rule()))?;
        Ok(Self {
            name: name.to_owned(),
            version: version(&metadata)?,
            annotations: marks(&metadata, "annotations", vocabulary::NAMESPACE_ANNOTATIONS)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_keeps_what_it_says_about_queues() {
        let view = NamespaceView::from_json(&format!(
            "{{\"kind\":\"Namespace\",\"metadata\":{{\"name\":\"ci\",\"resourceVersion\":\"7\",\
             \"annotations\":{{\"{}\":\"2\",\"x/y\":\"z\"}}}}}}",
            vocabulary::LIMIT
        ))
        .unwrap();
        assert_eq!(view.name, "ci");
        assert_eq!(view.version, Some(ResourceVersion::new(7)));
        assert_eq!(view.annotations.len(), 1);
        assert_eq!(view.annotations[vocabulary::LIMIT], "2");
    }

    #[test]
    fn a_name_that_is_none_is_an_error_of_its_field() {
        let error = NamespaceView::parse("kind: Namespace\nmetadata: {name: A/b}").unwrap_err();
        assert_eq!(error.field(), "metadata.name");
        assert!(NamespaceView::parse("kind: Namespace").is_err());
    }
}
