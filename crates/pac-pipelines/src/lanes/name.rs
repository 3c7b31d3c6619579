//! The names of lanes: two different lanes never have the same one.

use pac_core::RepositoryKey;

/// What the names of all lanes begin with.
const PREFIX: &str = "lane.";

/// Stands before the two hexadecimal digits of a byte that may not stand in a name, and before the
/// words below, none of which begins with two such digits.
const ESCAPE: &str = "0--";

/// The lane of all runs of a namespace that belong nowhere else.
const ALL: &str = "0--all";

/// Stands for a label that a run does not have.
const NONE: &str = "0--none";

/// Stands for an empty text.
const EMPTY: &str = "0--empty";

/// Stands between the values of two labels.
const AND: &str = ".0--and.";

/// Whether a name is one of a lane, so that no Repository may have it.
#[must_use]
pub fn is_lane(key: &RepositoryKey) -> bool {
    key.name().starts_with(PREFIX)
}

/// The lane of all runs of a namespace that belong nowhere else; `None` where the namespace is no
/// name.
pub(crate) fn of_namespace(namespace: &str) -> Option<RepositoryKey> {
    RepositoryKey::new(namespace, &format!("{PREFIX}{ALL}")).ok()
}

/// The lane of these texts, in this order; `None` is one that a run does not have.
///
/// # Errors
/// What is wrong with the texts: they make a name that is too long.
pub(super) fn of_texts(
    namespace: &str,
    texts: &[Option<&str>],
) -> Result<RepositoryKey, &'static str> {
    let parts = texts
        .iter()
        .map(|text| text.map_or(NONE.to_owned(), escaped));
    let parts: Vec<String> = parts.collect();
    RepositoryKey::new(namespace, &format!("{PREFIX}{}", parts.join(AND))).map_err(|_| {
        "makes a name of a lane that is longer than 253 characters; capitals and signs count as 5"
    })
}

/// A text as a part of a name. Small letters and digits stand for themselves; so do single signs
/// `-` and `.` between them. All else is escaped, so that it can be read back: `--` is only ever a
/// part of an escape.
fn escaped(text: &str) -> String {
    if text.is_empty() {
        return EMPTY.to_owned();
    }
    let bytes = text.as_bytes();
    let is_plain = |at: Option<usize>| {
        let byte = at.and_then(|at| bytes.get(at));
        byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let mut name = String::with_capacity(text.len());
    for (at, byte) in bytes.iter().enumerate() {
        let is_between = is_plain(at.checked_sub(1)) && is_plain(at.checked_add(1));
        if is_plain(Some(at)) || (matches!(byte, b'-' | b'.') && is_between) {
            name.push(char::from(*byte));
        } else {
            name.push_str(ESCAPE);
            name.push_str(&format!("{byte:02x}"));
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn name(texts: &[Option<&str>]) -> String {
        of_texts("ci", texts).unwrap().as_str().to_owned()
    }

    #[test]
    fn usual_values_can_be_read() {
        for (text, expected) in [
            ("main", "ci/lane.main"),
            ("release-1.2", "ci/lane.release-1.2"),
            ("feature/x", "ci/lane.feature0--2fx"),
            ("A", "ci/lane.0--41"),
            ("a--b", "ci/lane.a0--2d0--2db"),
            ("-a.", "ci/lane.0--2da0--2e"),
            ("é", "ci/lane.0--c30--a9"),
            ("", "ci/lane.0--empty"),
        ] {
            assert_eq!(name(&[Some(text)]), expected);
        }
        assert_eq!(name(&[None]), "ci/lane.0--none");
        assert_eq!(name(&[Some("a"), Some("b")]), "ci/lane.a.0--and.b");
        assert_eq!(of_namespace("ci").unwrap().as_str(), "ci/lane.0--all");
        assert!(is_lane(&of_namespace("ci").unwrap()));
        assert!(!is_lane(&"ci/lanes".parse().unwrap()));
    }

    #[test]
    fn what_looks_like_an_escape_is_another_lane() {
        let texts = [
            "/",
            "0--2f",
            "0-2f",
            "--2f",
            "2f",
            "0--none",
            "0--all",
            "0--empty",
            "a.0--and.b",
        ];
        let mut names: Vec<_> = texts.iter().map(|text| name(&[Some(text)])).collect();
        names.extend([
            name(&[None]),
            name(&[Some("")]),
            name(&[Some("a"), Some("b")]),
        ]);
        names.push(of_namespace("ci").unwrap().as_str().to_owned());
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
    }

    #[test]
    fn a_name_that_is_too_long_is_refused() {
        assert!(of_texts("ci", &[Some(&"a".repeat(248))]).is_ok());
        assert!(of_texts("ci", &[Some(&"a".repeat(249))]).is_err());
        assert!(of_texts("ci", &[Some(&"A".repeat(63))]).is_err());
    }

    proptest! {
        /// Of few letters, so that most texts are near each other.
        #[test]
        fn two_lanes_never_have_the_same_name(
            lanes in prop::collection::vec(
                prop::collection::vec(prop::option::of("[0a2d.-]{0,6}"), 1..4), 2..40)
        ) {
            let mut known: HashMap<String, Vec<Option<String>>> = HashMap::new();
            for lane in lanes {
                let texts: Vec<_> = lane.iter().map(Option::as_deref).collect();
                let name = name(&texts);
                let before = known.entry(name.clone()).or_insert_with(|| lane.clone());
                prop_assert_eq!(&*before, &lane, "{}", name);
            }
        }
    }
}
