//! Reading the fields of an object, with errors that name the field.

use serde_json::{Map, Value};

use crate::error::ModelError;

/// How much of a value an error repeats, in characters.
const SHOWN: usize = 60;

/// One mapping of an object, and where in it that is.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a> {
    /// Kind, namespace and name, for errors.
    object: &'a str,
    path: String,
    map: Option<&'a Map<String, Value>>,
}

impl<'a> Fields<'a> {
    /// The top of an object.
    pub(super) fn of(object: &'a str, map: &'a Map<String, Value>) -> Self {
        Self {
            object,
            path: String::new(),
            map: Some(map),
        }
    }

    /// The mapping in a field; empty if there is none.
    pub(super) fn inner(&self, name: &str) -> Result<Self, ModelError> {
        let map = match self.get(name) {
            None => None,
            Some(Value::Object(map)) => Some(map),
            Some(other) => return Err(self.wrong(name, other, "a mapping")),
        };
        Ok(Self {
            object: self.object,
            path: self.path(name),
            map,
        })
    }

    /// The mappings in a field that holds a list; none if there is no such field.
    pub(super) fn list(&self, name: &str) -> Result<Vec<Self>, ModelError> {
        let items = match self.get(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(items)) => items,
            Some(other) => return Err(self.wrong(name, other, "a list")),
        };
        let mut mappings = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            let place = format!("{name}[{at}]");
            let Value::Object(map) = item else {
                return Err(self.wrong(&place, item, "a mapping"));
            };
            mappings.push(Self {
                object: self.object,
                path: self.path(&place),
                map: Some(map),
            });
        }
        Ok(mappings)
    }

    /// The text in a field; `None` if it is absent, null or empty.
    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, ModelError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(other) => Err(self.wrong(name, other, "a text")),
        }
    }

    /// The text in a field, or that of a number or truth value there: people forget the quotes.
    pub(super) fn scalar(&self, name: &str) -> Result<Option<String>, ModelError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(scalar @ (Value::Number(_) | Value::Bool(_))) => Ok(Some(scalar.to_string())),
            Some(other) => Err(self.wrong(name, other, "a text")),
        }
    }

    /// All fields that hold a text.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let fields = self.map.into_iter().flatten();
        fields.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
    }

    /// The names of its fields.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.map.into_iter().flat_map(Map::keys).map(String::as_str)
    }

    /// What is in a field; `None` if it is absent or null.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map?.get(name).filter(|value| !value.is_null())
    }

    /// An error about a field. `expected` says what has to be there.
    pub(super) fn wrong(&self, name: &str, found: &Value, expected: &str) -> ModelError {
        let text = found.to_string();
        let mut shown: String = text.chars().take(SHOWN).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        self.error(name, format!("must be {expected}, not {shown}"))
    }

    /// An error about a field that breaks `rule`.
    pub(super) fn error(&self, name: &str, rule: impl Into<String>) -> ModelError {
        ModelError::new(self.object, self.path(name), rule)
    }

    fn path(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }
}
