//! Names, which are parsed once on input and are types of their own from there on.

mod slots;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

pub use slots::{SlotName, SlotNames};

/// Longest Kubernetes namespace, in bytes (RFC 1123 label).
const MAX_NAMESPACE: usize = 63;
/// Longest Kubernetes object name, in bytes (RFC 1123 subdomain).
const MAX_NAME: usize = 253;
/// Longest uid, in bytes. Kubernetes writes UUIDs (36); other callers may need a little more.
const MAX_UID: usize = 128;

/// `namespace/name`, held to the name rules of Kubernetes.
///
/// Neither part can contain a slash, so two different pairs never have the same text, and no
/// part can climb out of a store's key space (`..`, `%`, control characters are all refused).
#[derive(Clone, Eq)]
struct NamespacedName {
    text: Arc<str>,
    /// The hash of `text`, computed once: every command looks its run up several times.
    hash: u64,
}

impl PartialEq for NamespacedName {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && (Arc::ptr_eq(&self.text, &other.text) || self.text == other.text)
    }
}

impl PartialOrd for NamespacedName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for NamespacedName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for NamespacedName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl NamespacedName {
    fn checked(text: Arc<str>) -> Self {
        let hash = crate::hash::of_name(&text);
        Self { text, hash }
    }

    fn parse(what: &'static str, text: &str) -> Result<Self, InvalidValue> {
        let Some((namespace, name)) = text.split_once('/') else {
            return Err(InvalidValue::new(
                what,
                text,
                "must be written <namespace>/<name>",
            ));
        };
        Self::check(what, text, namespace, name)?;
        Ok(Self::checked(text.into()))
    }

    fn new(what: &'static str, namespace: &str, name: &str) -> Result<Self, InvalidValue> {
        let mut text = String::with_capacity(namespace.len() + 1 + name.len());
        text.push_str(namespace);
        text.push('/');
        text.push_str(name);
        Self::check(what, &text, namespace, name)?;
        Ok(Self::checked(text.into()))
    }

    fn check(
        what: &'static str,
        text: &str,
        namespace: &str,
        name: &str,
    ) -> Result<(), InvalidValue> {
        let broken = if !is_label(namespace) {
            "the namespace must be 1 to 63 lower-case letters, digits or '-', and start and end \
             with a letter or digit"
        } else if name.len() > MAX_NAME || !name.split('.').all(is_label_of_name) {
            "the name must be 1 to 253 lower-case letters, digits, '-' or '.', and each part \
             between dots must start and end with a letter or digit"
        } else {
            return Ok(());
        };
        Err(InvalidValue::new(what, text, broken))
    }

    fn parts(&self) -> (&str, &str) {
        // The constructors accept only texts with exactly one slash.
        self.text.split_once('/').unwrap_or((&self.text, ""))
    }
}

fn is_label(text: &str) -> bool {
    text.len() <= MAX_NAMESPACE && is_label_of_name(text)
}

fn is_label_of_name(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
}

macro_rules! namespaced {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(NamespacedName);

        impl $name {
            #[doc = concat!("A ", $what, " from its two parts.")]
            ///
            /// # Errors
            /// [`InvalidValue`] names the part and the Kubernetes rule that it breaks.
            pub fn new(namespace: &str, name: &str) -> Result<Self, InvalidValue> {
                NamespacedName::new($what, namespace, name).map(Self)
            }

            /// The Kubernetes namespace.
            #[must_use]
            pub fn namespace(&self) -> &str {
                self.0.parts().0
            }

            /// The name within the namespace.
            #[must_use]
            pub fn name(&self) -> &str {
                self.0.parts().1
            }

            /// The whole key, `<namespace>/<name>`.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0.text
            }
        }

        impl FromStr for $name {
            type Err = InvalidValue;

            /// Parses `<namespace>/<name>`.
            fn from_str(text: &str) -> Result<Self, InvalidValue> {
                NamespacedName::parse($what, text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.as_str())
            }
        }
    };
}

namespaced! {
    /// The key of a Repository, which has a queue and a limit. Cloning is cheap.
    RepositoryKey, "repository key"
}

namespaced! {
    /// The key of a PipelineRun, which waits in a queue and holds a slot. Cloning is cheap.
    PipelineRunKey, "pipeline run key"
}

/// Tells runs of the same name apart: a Kubernetes uid, or any text unique to one run.
///
/// 1 to 128 ASCII letters, digits, `-`, `_`, `.` or `:`. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(Arc<str>);

impl Uid {
    /// The text of the uid.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Uid {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if text.is_empty() || text.len() > MAX_UID || !text.bytes().all(is_of_uid) {
            return Err(InvalidValue::new(
                "uid",
                text,
                "must be 1 to 128 ASCII letters, digits, '-', '_', '.' or ':'",
            ));
        }
        Ok(Self(text.into()))
    }
}

fn is_of_uid(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-_.:".contains(&b)
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uid({})", self.0)
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal, $most:literal, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidValue;

            fn from_str(text: &str) -> Result<Self, InvalidValue> {
                let is_plain = text.chars().all(crate::text::is_plain);
                if text.trim() != text || text.is_empty() || text.len() > $most || !is_plain {
                    return Err(InvalidValue::new($what, text, $rule));
                }
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.as_str())
            }
        }
    };
}

words! {
    /// The group of a run within its repository: a branch, a pull request. Runs of a group can
    /// supersede one another, and be cancelled together.
    ///
    /// 1 to 253 bytes of characters that show themselves, without a space at its ends. Cloning is
    /// cheap.
    Group, "group", 253,
    "must be 1 to 253 bytes of visible characters, without a space at its ends"
}

words! {
    /// Why an operator did something, for people to read.
    ///
    /// 1 to 500 bytes of characters that show themselves, without a space at its ends. Cloning is
    /// cheap.
    Reason, "reason", 500,
    "must be one line of 1 to 500 bytes of visible characters, without a space at its ends"
}

/// A text that is not what it was to be parsed into: the thing, the text and the rule broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
// Debug escapes what a terminal or a log file would act on.
#[error("invalid {what} {text:?}: {rule}")]
pub struct InvalidValue {
    what: &'static str,
    text: String,
    rule: &'static str,
}

impl InvalidValue {
    /// How much of a refused text an error repeats, in characters.
    const SHOWN: usize = 80;

    pub(crate) fn new(what: &'static str, text: &str, rule: &'static str) -> Self {
        let mut shown: String = text.chars().take(Self::SHOWN).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        Self {
            what,
            text: shown,
            rule,
        }
    }

    /// The rule that the text breaks.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        self.rule
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule_broken_by(text: &str) -> String {
        text.parse::<RepositoryKey>().unwrap_err().to_string()
    }

    #[test]
    fn well_formed_keys_keep_their_parts() {
        let key: PipelineRunKey = "ci/push-a20bdc58.x".parse().unwrap();
        assert_eq!((key.namespace(), key.name()), ("ci", "push-a20bdc58.x"));
        assert_eq!(key, PipelineRunKey::new("ci", "push-a20bdc58.x").unwrap());
        assert_eq!(key.to_string(), "ci/push-a20bdc58.x");
    }

    #[test]
    fn the_longest_names_are_taken_and_longer_ones_refused() {
        let label = "a".repeat(63);
        let name = [label.as_str(); 4].join(".")[..253].to_owned();
        assert!(format!("{label}/{name}").parse::<RepositoryKey>().is_ok());
        assert!(rule_broken_by(&format!("{label}a/x")).contains("namespace must be 1 to 63"));
        assert!(rule_broken_by(&format!("ns/{name}a")).contains("name must be 1 to 253"));
    }

    #[test]
    fn hostile_keys_are_refused_with_the_rule_and_without_their_control_characters() {
        let long = format!("ns/{}", "x".repeat(10_000));
        for text in [
            "", "/", "ns", "ns/", "/name", "a/b/c", "../x", "ns/..", "ns/a%2f", "ns/a\0b",
            "ns/a\nb", "ns/a'b", "ns/a\"b", "NS/x", "ns/X", "ns/-x", "ns/x-", "ns/a..b", "ns/é",
            "ns.x/y", &long,
        ] {
            let message = rule_broken_by(text);
            assert!(message.contains("must be"), "{text:?}: {message}");
            assert!(!message.contains(['\0', '\n']), "{message:?}");
            assert!(
                message.len() < 400,
                "{} bytes for {text:.20}",
                message.len()
            );
        }
    }

    #[test]
    fn uids_are_opaque_but_printable() {
        assert!("0a1b-2c3d".parse::<Uid>().is_ok());
        for text in ["", "a b", "a/b", "a\n", "é", &"x".repeat(129)] {
            assert!(text.parse::<Uid>().is_err(), "{text:?}");
        }
    }
}
