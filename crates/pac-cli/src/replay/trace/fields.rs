//! The JSON object of a line: every field known, and present at most once.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::error::Category;

const FIELDS: [&str; 12] = [
    "at",
    "repository",
    "run",
    "limit",
    "duration_s",
    "priority",
    "set_limit",
    "cancel",
    "weight",
    "group",
    "supersede",
    "pause",
];
/// The number of characters of a refused value that a message repeats.
const SHOWN: usize = 60;

/// The fields of an object, all known and without repetition. `null` is the same as absent.
pub(super) struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    /// Parses a line.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|error| {
            let byte = error.valid_up_to() + 1;
            format!("byte {byte} is not UTF-8; a trace is UTF-8 text")
        })?;
        // Some editors put a byte order mark in front of the first line.
        let text = text.trim_start_matches('\u{feff}');
        if !text.trim_start().starts_with('{') {
            return Err(format!(
                "a row must be a JSON object such as {{\"at\": …}}, not {}",
                shown(text.trim())
            ));
        }
        serde_json::from_str(text).map_err(|error| explain(&error))
    }

    /// Removes the field and returns its value.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        let index = self.0.iter().position(|(field, _)| *field == name)?;
        Some(self.0.swap_remove(index).1)
    }

    /// Whether the field is present.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(field, _)| *field == name)
    }

    /// One of the fields that remain.
    pub(super) fn any(&self) -> Option<&'static str> {
        self.0.first().map(|(field, _)| *field)
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut seen = Vec::new();
        let mut fields = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let field = known(&name).map_err(de::Error::custom)?;
            if seen.contains(&field) {
                return Err(de::Error::custom(format!(
                    "{field:?} is there twice; a row has each field once"
                )));
            }
            seen.push(field);
            let value = map.next_value::<Value>()?;
            if !value.is_null() {
                fields.push((field, value));
            }
        }
        Ok(Fields(fields))
    }
}

fn known(name: &str) -> Result<&'static str, String> {
    if let Some(field) = FIELDS.into_iter().find(|field| *field == name) {
        return Ok(field);
    }
    let name = shown(name);
    let nearest = FIELDS
        .into_iter()
        .map(|field| (strsim::jaro_winkler(&name, field), field))
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map_or("", |(_, field)| field);
    Err(format!(
        "unknown field {name:?}; the nearest known one is {nearest:?}"
    ))
}

/// serde_json's error without its "line 1", which is not the line of the trace.
fn explain(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let message = message.strip_suffix(&place).unwrap_or(&message);
    match error.classify() {
        Category::Data => message.to_owned(),
        Category::Eof => "the line ends before its JSON object does".to_owned(),
        Category::Syntax | Category::Io => {
            let column = error.column();
            format!("not valid JSON: {message} at column {column}; a row is one JSON object")
        }
    }
}

/// `text` as a message may repeat it: shortened, and without characters that control a terminal.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .take(SHOWN)
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}
