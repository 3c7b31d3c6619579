//! YAML as Kubernetes writes it: mappings, sequences and scalars, each with its line.
//!
//! The only file that calls the YAML parser. Features that settings do not need (aliases, tags,
//! merge keys) are refused, not resolved. So a document is never larger in memory than on disk.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

/// More than the largest ConfigMap and Secret together (1 MiB each).
pub(super) const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Deeper than any Kubernetes object.
const MAX_DEPTH: usize = 64;

/// A node of a document.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value {
    Scalar {
        text: String,
        /// Neither quoted nor a block: Kubernetes then reads a number or `true` not as text.
        plain: bool,
    },
    Sequence(Vec<Node>),
    /// In the order of the file; keys are distinct.
    Mapping(Vec<(Node, Node)>),
}

impl Node {
    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            Value::Sequence(_) | Value::Mapping(_) => None,
        }
    }

    /// The entries of a mapping.
    pub(super) fn entries(&self) -> Option<&[(Self, Self)]> {
        match &self.value {
            Value::Mapping(entries) => Some(entries),
            Value::Scalar { .. } | Value::Sequence(_) => None,
        }
    }

    /// The value of a key in a mapping.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let mut entries = self.entries()?.iter();
        entries
            .find(|(name, _)| name.text() == Some(key))
            .map(|(_, value)| value)
    }

    /// Whether a scalar is empty or null.
    pub(super) fn is_null(&self) -> bool {
        let Value::Scalar { text, plain } = &self.value else {
            return false;
        };
        *plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}

/// A problem of a document, and its line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct YamlError {
    pub(super) line: usize,
    pub(super) message: String,
}

/// Parses the documents of a file, leaving out empty ones.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, YamlError> {
    let mut builder = Builder::default();
    // A byte order mark is not part of the text.
    for event in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        let (event, span) = event.map_err(syntax)?;
        builder.take(event, span.start.line())?;
    }
    Ok(builder.documents)
}

/// The parser's own messages name what it expected and quote at most one character.
#[allow(clippy::needless_pass_by_value, reason = "the signature of `map_err`")]
fn syntax(error: ScanError) -> YamlError {
    wrong(
        error.marker().line(),
        format!("is not YAML: {}", error.info()),
    )
}

fn wrong(line: usize, message: impl Into<String>) -> YamlError {
    YamlError {
        line,
        message: message.into(),
    }
}

#[derive(Debug, Default)]
struct Builder {
    documents: Vec<Node>,
    /// The open collections, outermost first.
    open: Vec<Open>,
}

#[derive(Debug)]
enum Open {
    Sequence(usize, Vec<Node>),
    /// With the line, the entries so far, and the key whose value comes next.
    Mapping(usize, Vec<(Node, Node)>, Option<Node>),
}

impl Builder {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), YamlError> {
        let open = match event {
            Event::Scalar(text, style, _, tag) => {
                if tag.is_some() {
                    return Err(wrong(line, "has a YAML tag; settings have none"));
                }
                let value = Value::Scalar {
                    text: text.into_owned(),
                    plain: style == ScalarStyle::Plain,
                };
                return self.add(Node { line, value });
            }
            Event::SequenceEnd | Event::MappingEnd => return self.close(),
            Event::Alias(_) => {
                let message = "has a YAML alias (`*name`); write the value itself";
                return Err(wrong(line, message));
            }
            Event::SequenceStart(..) => Open::Sequence(line, Vec::new()),
            Event::MappingStart(..) => Open::Mapping(line, Vec::new(), None),
            _ => return Ok(()),
        };
        if self.open.len() == MAX_DEPTH {
            let message = format!("is nested more than {MAX_DEPTH} deep");
            return Err(wrong(line, message));
        }
        self.open.push(open);
        Ok(())
    }

    fn close(&mut self) -> Result<(), YamlError> {
        let node = match self.open.pop() {
            Some(Open::Sequence(line, nodes)) => Node {
                line,
                value: Value::Sequence(nodes),
            },
            Some(Open::Mapping(line, entries, _)) => {
                unique(&entries)?;
                Node {
                    line,
                    value: Value::Mapping(entries),
                }
            }
            None => return Ok(()),
        };
        self.add(node)
    }

    fn add(&mut self, node: Node) -> Result<(), YamlError> {
        match self.open.last_mut() {
            None if node.is_null() => {}
            None => self.documents.push(node),
            Some(Open::Sequence(_, nodes)) => nodes.push(node),
            Some(Open::Mapping(_, entries, pending)) => match pending.take() {
                Some(key) => entries.push((key, node)),
                None if node.text().is_some() => *pending = Some(node),
                None => return Err(wrong(node.line, "has a key that is not text")),
            },
        }
        Ok(())
    }
}

/// Refuses duplicate keys: it would be unclear which value is meant.
fn unique(entries: &[(Node, Node)]) -> Result<(), YamlError> {
    let mut keys: Vec<&Node> = entries.iter().map(|(key, _)| key).collect();
    // The sort is stable: equal keys stay in the order of the file.
    keys.sort_by_key(|key| key.text());
    for pair in keys.windows(2) {
        if let [first, second] = pair
            && first.text() == second.text()
        {
            let key = second.text().unwrap_or_default();
            let message = format!(
                "has the key {key:?} a second time; the first is in line {}",
                first.line
            );
            return Err(wrong(second.line, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn message(text: &str) -> (usize, String) {
        let error = parse(text).unwrap_err();
        (error.line, error.message)
    }

    #[test]
    fn values_keep_their_lines() {
        let text = "# a comment\na: 1\nb:\n  c: \"x\"\n---\n---\nd: |\n  two\n  lines\n";
        let documents = parse(text).unwrap();
        let [first, second] = documents.as_slice() else {
            panic!("{documents:?}");
        };
        assert_eq!(first.get("a").unwrap().line, 2);
        let c = first.get("b").unwrap().get("c").unwrap();
        assert_eq!((c.line, c.text()), (4, Some("x")));
        assert_eq!(second.get("d").unwrap().text(), Some("two\nlines\n"));
    }

    #[test]
    fn json_is_yaml() {
        let documents = parse("{\"kind\": \"Secret\", \"data\": {\"a\": \"YQ==\"}}").unwrap();
        let data = documents[0].get("data").unwrap();
        assert_eq!(data.get("a").unwrap().text(), Some("YQ=="));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        assert_eq!(message("a: 1\nb: [1,\n").0, 3);
        assert_eq!(message("a: 1\nb: c: d\n").0, 2);
        let (line, text) = message("a: 1\nb: 2\na: 3\n");
        assert_eq!(line, 3);
        assert!(
            text.contains("\"a\" a second time; the first is in line 1"),
            "{text}"
        );
        assert!(message("a: 1\n? [b]\n: 2\n").1.contains("not text"));
        assert!(message("a: !!binary x\n").1.contains("tag"));
    }

    #[test]
    fn documents_that_grow_are_refused_at_once() {
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..60 {
            let alias = format!("*a{}", level - 1);
            bomb.push_str(&format!(
                "a{level}: &a{level} [{}]\n",
                vec![alias; 9].join(",")
            ));
        }
        let deep = "[".repeat(100_000);
        let block = (0..2_000)
            .map(|n| format!("{}a:\n", " ".repeat(n)))
            .collect::<String>();
        for (text, expected) in [
            (bomb.as_str(), "alias"),
            (&deep, "recursion limit"),
            (&block, "nested"),
        ] {
            let start = Instant::now();
            let (_, error) = message(text);
            assert!(error.contains(expected), "{error}");
            assert!(start.elapsed() < Duration::from_secs(2), "{expected}");
        }
    }

    /// Parses pieces of YAML in many random orders.
    #[test]
    fn no_text_makes_the_parser_panic() {
        const PIECES: [&str; 28] = [
            "kind",
            ": ",
            "\n",
            "  ",
            "- ",
            "\"",
            "'",
            "[",
            "]",
            "{",
            "}",
            ",",
            "|\n",
            ">-\n",
            "&a ",
            "*a",
            "!!str ",
            "!<x> ",
            "---",
            "...",
            "#",
            "? ",
            "%YAML 1.2\n",
            "\t",
            "\\u{1F4A9}",
            "é",
            "\u{feff}",
            "<<: ",
        ];
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..5_000 {
            let mut text = String::new();
            for _ in 0..24 {
                // xorshift64: Marsaglia, "Xorshift RNGs", 2003.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                text.push_str(PIECES[(state % 28) as usize]);
            }
            let _ = parse(&text);
        }
    }
}
