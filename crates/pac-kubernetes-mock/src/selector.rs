//! Label selectors and field selectors.

use serde_json::Value;

use crate::failure::Failure;
use crate::object;

/// The objects that a list or a watch is about.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

impl Selector {
    /// Parses the parameters `labelSelector` and `fieldSelector`; empty ones select everything.
    ///
    /// # Errors
    /// 400 when one of them is malformed, or the field is not one that can be selected by.
    pub(crate) fn parse(labels: &str, fields: &str) -> Result<Self, Failure> {
        let parse = |text: &str| -> Result<Vec<Requirement>, Failure> {
            split(text).into_iter().map(Requirement::parse).collect()
        };
        let fields = parse(fields)?;
        for requirement in &fields {
            if !FIELDS.contains(&requirement.key.as_str()) {
                let key = &requirement.key;
                return Err(Failure::bad_request(format!(
                    "field label not supported: {key}"
                )));
            }
        }
        let labels = parse(labels)?;
        Ok(Self { labels, fields })
    }

    /// Whether the object is selected.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.labels
            .iter()
            .all(|requirement| requirement.accepts(object::label(object, &requirement.key)))
            && self.fields.iter().all(|requirement| {
                let pointer = format!("/{}", requirement.key.replace('.', "/"));
                requirement.accepts(Some(object::text(object, &pointer)))
            })
    }

    /// Whether everything is selected.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }
}

const FIELDS: [&str; 2] = ["metadata.name", "metadata.namespace"];

/// One part of a selector.
#[derive(Debug, Clone)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    Absent,
}

impl Requirement {
    fn parse(text: &str) -> Result<Self, Failure> {
        let requirement = |key: &str, operator, values: Vec<String>| {
            let key = key.trim();
            if key.is_empty() || key.contains([' ', '(', ')', '!', '=']) {
                return Err(Failure::bad_request(format!(
                    "unable to parse requirement: {text:?}"
                )));
            }
            let key = key.to_owned();
            Ok(Self {
                key,
                operator,
                values,
            })
        };
        let one = |value: &str| vec![value.trim().to_owned()];
        if let Some((before, list)) = text.strip_suffix(')').and_then(|t| t.split_once('(')) {
            let values = list.split(',').map(|value| value.trim().to_owned());
            let before = before.trim();
            return if let Some(key) = before.strip_suffix(" notin") {
                requirement(key, Operator::NotIn, values.collect())
            } else if let Some(key) = before.strip_suffix(" in") {
                requirement(key, Operator::In, values.collect())
            } else {
                Err(Failure::bad_request(format!(
                    "unable to parse requirement: {text:?}"
                )))
            };
        }
        if let Some((key, value)) = text.split_once("!=") {
            requirement(key, Operator::NotIn, one(value))
        } else if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
            requirement(key, Operator::In, one(value))
        } else if let Some(key) = text.strip_prefix('!') {
            requirement(key, Operator::Absent, Vec::new())
        } else {
            requirement(text, Operator::Exists, Vec::new())
        }
    }

    fn accepts(&self, value: Option<&str>) -> bool {
        let listed = value.is_some_and(|value| self.values.iter().any(|wanted| wanted == value));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => value.is_some(),
            Operator::Absent => value.is_none(),
        }
    }
}

/// The parts of a selector: split at commas, but not at those between parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    text.split(|letter: char| {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
    .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_operator_selects_as_kubernetes_does() {
        let object = json!({"metadata": {"name": "a", "labels": {"state": "queued", "x/y": "1"}}});
        for (selector, expected) in [
            ("", true),
            ("state=queued", true),
            ("state==queued,x/y=1", true),
            ("state!=queued", false),
            ("absent!=queued", true),
            ("state in (queued, started)", true),
            ("state notin (completed,failed),x/y", true),
            ("absent notin (completed,failed)", true),
            ("state notin (queued)", false),
            ("absent", false),
            ("!absent", true),
            ("!state", false),
        ] {
            let parsed = Selector::parse(selector, "").unwrap();
            assert_eq!(parsed.matches(&object), expected, "{selector}");
        }
        assert!(
            Selector::parse("", "metadata.name=a")
                .unwrap()
                .matches(&object)
        );
        assert!(
            !Selector::parse("", "metadata.name!=a")
                .unwrap()
                .matches(&object)
        );
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for labels in ["a b", "a in b", "a near (b)", "=b"] {
            assert_eq!(
                Selector::parse(labels, "").unwrap_err().code,
                400,
                "{labels}"
            );
        }
        assert_eq!(Selector::parse("", "spec.status=x").unwrap_err().code, 400);
    }
}
