//! Compares what is installed with what this version would install.

use serde_json::Value;

/// The first field in which `found` is not as `wanted`: its path, such as
/// `spec.matchConditions[0].expression`. What the API server has filled in counts as no difference
/// where it is empty.
pub(super) fn difference(wanted: &Value, found: &Value) -> Option<String> {
    first(wanted, found, "")
}

fn first(wanted: &Value, found: &Value, path: &str) -> Option<String> {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => {
            let below = |key: &str| match path {
                "" => key.to_owned(),
                path => format!("{path}.{key}"),
            };
            let missing = wanted.iter().find_map(|(key, value)| match found.get(key) {
                Some(there) => first(value, there, &below(key)),
                None if is_empty(value) => None,
                None => Some(below(key)),
            });
            let extra = || {
                let mut others = found.iter().filter(|(key, _)| !wanted.contains_key(*key));
                others
                    .find(|(_, value)| !is_empty(value))
                    .map(|(key, _)| below(key))
            };
            missing.or_else(extra)
        }
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            let mut pairs = wanted.iter().zip(found).enumerate();
            pairs.find_map(|(at, (wanted, found))| first(wanted, found, &format!("{path}[{at}]")))
        }
        _ if wanted == found => None,
        _ => Some(path.to_owned()),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_difference_is_named_by_its_path() {
        let wanted = json!({"a": {"b": [1, {"c": "x"}]}, "n": {}});
        for (found, path) in [
            (json!({"a": {"b": [1, {"c": "x"}]}}), None),
            (
                json!({"a": {"b": [1, {"c": "x"}], "new": {}}, "n": {}}),
                None,
            ),
            (json!({"a": {"b": [1, {"c": "y"}]}}), Some("a.b[1].c")),
            (json!({"a": {"b": [1]}}), Some("a.b")),
            (json!({"a": {}}), Some("a.b")),
            (
                json!({"a": {"b": [1, {"c": "x", "d": true}]}}),
                Some("a.b[1].d"),
            ),
        ] {
            assert_eq!(difference(&wanted, &found).as_deref(), path, "{found}");
        }
    }
}
