//! YAML as Kubernetes and people write it, turned into JSON values.
//!
//! The only file that talks to the YAML parser. Aliases and tags are refused and not resolved, so
//! a document is never bigger in memory than it is on disk, whatever is in it.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};
use serde_json::{Map, Number, Value};

/// Kubernetes objects of any kind stay far below.
const MAX_DEPTH: usize = 64;

/// A document and the line, counted from 1, in which it starts.
#[derive(Debug, PartialEq)]
pub(super) struct Document {
    pub(super) line: usize,
    pub(super) value: Value,
}

/// What is wrong with a text, and in which line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct YamlError {
    pub(super) line: usize,
    pub(super) message: String,
}

/// The documents of a text; empty ones are left out. JSON is YAML.
pub(super) fn parse(text: &str) -> Result<Vec<Document>, YamlError> {
    let mut builder = Builder::default();
    // A byte order mark is no part of the text.
    for event in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        let (event, span) = event.map_err(syntax)?;
        builder.take(event, span.start.line())?;
    }
    Ok(builder.documents)
}

#[allow(clippy::needless_pass_by_value, reason = "the signature of `map_err`")]
fn syntax(error: ScanError) -> YamlError {
    let message = format!("is not YAML: {}", error.info());
    wrong(error.marker().line(), message)
}

fn wrong(line: usize, message: impl Into<String>) -> YamlError {
    YamlError {
        line,
        message: message.into(),
    }
}

#[derive(Debug, Default)]
struct Builder {
    documents: Vec<Document>,
    /// The collections that are open, outermost first.
    open: Vec<Open>,
}

#[derive(Debug)]
enum Open {
    Sequence(usize, Vec<Value>),
    /// With the key whose value comes next.
    Mapping(usize, Map<String, Value>, Option<String>),
}

impl Builder {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), YamlError> {
        let open = match event {
            Event::Scalar(_, _, _, Some(_)) => {
                return Err(wrong(line, "has a YAML tag (`!name`); leave it out"));
            }
            Event::Scalar(text, style, _, None) => {
                return self.scalar(line, &text, style == ScalarStyle::Plain);
            }
            Event::SequenceEnd | Event::MappingEnd => return self.close(),
            Event::Alias(_) => {
                let message = "has a YAML alias (`*name`); write the value itself";
                return Err(wrong(line, message));
            }
            Event::SequenceStart(..) => Open::Sequence(line, Vec::new()),
            Event::MappingStart(..) => Open::Mapping(line, Map::new(), None),
            _ => return Ok(()),
        };
        if self.open.len() == MAX_DEPTH {
            let message = format!("is nested more than {MAX_DEPTH} deep");
            return Err(wrong(line, message));
        }
        self.open.push(open);
        Ok(())
    }

    fn scalar(&mut self, line: usize, text: &str, plain: bool) -> Result<(), YamlError> {
        if let Some(Open::Mapping(_, map, pending @ None)) = self.open.last_mut() {
            if map.contains_key(text) {
                let message = format!("has the key {text:?} a second time; keep one of them");
                return Err(wrong(line, message));
            }
            *pending = Some(text.to_owned());
            return Ok(());
        }
        let value = if plain {
            plain_value(text)
        } else {
            Value::String(text.to_owned())
        };
        self.add(line, value)
    }

    fn close(&mut self) -> Result<(), YamlError> {
        match self.open.pop() {
            Some(Open::Sequence(line, items)) => self.add(line, Value::Array(items)),
            Some(Open::Mapping(line, map, _)) => self.add(line, Value::Object(map)),
            None => Ok(()),
        }
    }

    fn add(&mut self, line: usize, value: Value) -> Result<(), YamlError> {
        match self.open.last_mut() {
            None if value.is_null() => {}
            None => self.documents.push(Document { line, value }),
            Some(Open::Sequence(_, items)) => items.push(value),
            Some(Open::Mapping(_, map, pending)) => match pending.take() {
                Some(key) => {
                    map.insert(key, value);
                }
                None => return Err(wrong(line, "has a key that is not text; write a text")),
            },
        }
        Ok(())
    }
}

/// The core schema of YAML 1.2, as far as objects of Kubernetes use it.
fn plain_value(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return Value::String(text.to_owned());
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(number) = text.parse::<i64>()
    {
        return Value::Number(number.into());
    }
    let decimal = |byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'-' | b'+');
    let number = Some(text)
        .filter(|text| text.bytes().all(decimal))
        .and_then(|text| text.parse::<f64>().ok())
        .and_then(Number::from_f64);
    number.map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_have_the_types_that_kubernetes_gives_them() {
        let text = "a: 1\nb: '1'\nc: true\nd: ~\ne: 2026-06-01T14:47:16Z\nf: -2\ng: 1.5\n\
                    h: a20bdc58\ni: 12e\nj: [x, {y: z}]\nk: |\n  two\n  lines\n";
        let documents = parse(&format!("---\n---\n{text}")).unwrap();
        assert_eq!(documents.len(), 1);
        assert_eq!(
            documents[0].value,
            json!({
                "a": 1, "b": "1", "c": true, "d": null, "e": "2026-06-01T14:47:16Z", "f": -2,
                "g": 1.5, "h": "a20bdc58", "i": "12e", "j": ["x", {"y": "z"}],
                "k": "two\nlines\n",
            })
        );
        assert_eq!(
            parse("{\"a\": [1, \"b\"]}").unwrap()[0].value,
            json!({"a": [1, "b"]})
        );
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        fn error(text: &str) -> (usize, String) {
            let error = parse(text).unwrap_err();
            (error.line, error.message)
        }
        assert_eq!(error("a: 1\nb: [1,\n").0, 3);
        assert!(error("a: 1\na: 3\n").1.contains("\"a\" a second time"));
        assert!(error("a: &x 1\nb: *x\n").1.contains("alias"));
        assert!(error("a: !!binary x\n").1.contains("tag"));
        assert!(error("? [b]\n: 2\n").1.contains("not text"));
        assert!(error(&"[".repeat(100_000)).1.contains("recursion limit"));
        let deep: String = (0..100).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        assert!(error(&deep).1.contains("nested"));
    }
}
