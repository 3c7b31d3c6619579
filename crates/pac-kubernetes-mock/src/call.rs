//! One request to the API, freed of how it came.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::failure::Failure;
use crate::resource::Resource;
use crate::selector::Selector;

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verb {
    /// Reads one object.
    Get,
    /// Reads all objects, or those of a namespace.
    List,
    /// Follows the changes of objects.
    Watch,
    /// Makes an object.
    Create,
    /// Replaces an object.
    Update,
    /// Changes an object, or applies it.
    Patch,
    /// Deletes one object.
    Delete,
    /// Deletes the objects that a selector selects.
    DeleteCollection,
}

impl Verb {
    /// The verb as RBAC names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }

    /// Whether it changes something.
    #[must_use]
    pub fn writes(self) -> bool {
        !matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The media types of patches.
pub(crate) const JSON_PATCH: &str = "application/json-patch+json";
pub(crate) const MERGE_PATCH: &str = "application/merge-patch+json";
pub(crate) const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
pub(crate) const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// One request about objects.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) verb: Verb,
    pub(crate) resource: Arc<Resource>,
    /// Empty: no namespace, or all of them.
    pub(crate) namespace: String,
    /// Empty: a collection.
    pub(crate) name: String,
    /// Whether it is about the status subresource.
    pub(crate) status: bool,
    pub(crate) parameters: HashMap<String, String>,
    /// The media type of the body, without its parameters.
    pub(crate) content_type: String,
    /// The body; `null` for none.
    pub(crate) body: Value,
}

impl Call {
    /// A request without parameters and body.
    pub(crate) fn new(verb: Verb, resource: Arc<Resource>, namespace: &str, name: &str) -> Self {
        Self {
            verb,
            resource,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            status: false,
            parameters: HashMap::new(),
            content_type: String::new(),
            body: Value::Null,
        }
    }

    /// A query parameter; empty when it is absent.
    pub(crate) fn parameter(&self, name: &str) -> &str {
        self.parameters
            .get(name)
            .map(String::as_str)
            .unwrap_or_default()
    }

    /// Whether a query parameter says so.
    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.parameter(name), "true" | "1")
    }

    /// Whether nothing may be kept of what it does.
    pub(crate) fn dry_run(&self) -> bool {
        self.parameter("dryRun") == "All"
            || self
                .body
                .get("dryRun")
                .and_then(Value::as_array)
                .is_some_and(|stages| stages.iter().any(|stage| stage == "All"))
    }

    /// The objects that it selects.
    ///
    /// # Errors
    /// 400 for a malformed selector.
    pub(crate) fn selector(&self) -> Result<Selector, Failure> {
        Selector::parse(
            self.parameter("labelSelector"),
            self.parameter("fieldSelector"),
        )
    }

    /// The revision in the parameter `resourceVersion`; `None` when it is absent or 0.
    ///
    /// # Errors
    /// 400 when it is no number.
    pub(crate) fn revision(&self) -> Result<Option<u64>, Failure> {
        let text = self.parameter("resourceVersion");
        if text.is_empty() {
            return Ok(None);
        }
        match text.parse::<u64>() {
            Ok(0) => Ok(None),
            Ok(revision) => Ok(Some(revision)),
            Err(_) => Err(Failure::bad_request(format!(
                "Invalid value: \"{text}\": resourceVersion must be a number"
            ))),
        }
    }
}

/// What the API answers when all went well.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) content: Content,
}

/// The body of an answer. It shares the stored objects: lists are large.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    Object(Arc<Value>),
    List {
        resource: Arc<Resource>,
        /// Of the list.
        metadata: Value,
        items: Vec<Arc<Value>>,
    },
}

impl Answer {
    pub(crate) fn ok(object: impl Into<Arc<Value>>) -> Self {
        Self::new(200, object)
    }

    pub(crate) fn created(object: impl Into<Arc<Value>>) -> Self {
        Self::new(201, object)
    }

    fn new(code: u16, object: impl Into<Arc<Value>>) -> Self {
        let content = Content::Object(object.into());
        Self { code, content }
    }
}
