//! Names of sections and of holders, and where they stand.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use pac_core::RepositoryKey;
use thiserror::Error;

use crate::model::RunView;
use crate::vocabulary::{SECTION_PREFIX, SECTION_TOKEN_PREFIX};

/// The longest name, in bytes: the name part of an annotation has 63, and `section-token.` is 14.
const LONGEST: usize = 49;

/// What the name of a section's repository begins with in the store.
const STORED: &str = "section.";

/// A text is no name of a section or of a holder.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{what} {text:?}: must be 1 to 49 lower-case letters, digits or '-', and start and end with a \
     letter or digit"
)]
pub struct InvalidSection {
    what: &'static str,
    text: String,
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The text of the name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidSection;

            fn from_str(text: &str) -> Result<Self, InvalidSection> {
                if is_label(text) {
                    return Ok(Self(text.to_owned()));
                }
                Err(InvalidSection {
                    what: $what,
                    text: text.chars().take(60).collect(),
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

label! {
    /// The name of a section within its namespace: 1 to 49 lower-case letters, digits or `-`, which
    /// starts and ends with a letter or digit.
    SectionName, "section"
}

label! {
    /// One of those in a run that hold a section together; the rule is that of a section's name.
    SectionHolder, "holder"
}

impl SectionName {
    /// The annotation by which the steps of a run ask for it.
    #[must_use]
    pub fn request_annotation(&self) -> String {
        format!("{SECTION_PREFIX}{self}")
    }

    /// The annotation by which the controller answers.
    #[must_use]
    pub fn answer_annotation(&self) -> String {
        format!("{SECTION_TOKEN_PREFIX}{self}")
    }
}

impl SectionHolder {
    /// The holder of a step that names none.
    pub const DEFAULT: &str = "run";
}

/// Whether a repository of the store is a section, and not a Repository of the cluster.
#[must_use]
pub fn is_section(key: &RepositoryKey) -> bool {
    key.name().starts_with(STORED)
}

/// The section that a repository of the store is; `None` for a Repository of the cluster, and for a
/// name that no section has.
#[must_use]
pub fn section_of(key: &RepositoryKey) -> Option<SectionName> {
    key.name().strip_prefix(STORED)?.parse().ok()
}

/// The repository of the store that a section of a namespace is.
fn key_of(namespace: &str, section: &SectionName) -> Option<RepositoryKey> {
    RepositoryKey::new(namespace, &format!("{STORED}{section}")).ok()
}

/// The sections that annotations of a run are about.
pub(crate) fn sections_of(run: &RunView) -> BTreeSet<RepositoryKey> {
    let from_the_first = run.annotations.range(SECTION_PREFIX.to_owned()..);
    from_the_first
        .map_while(|(name, _)| name.starts_with(SECTION_PREFIX).then_some(name))
        .filter_map(|name| key_of(run.key.namespace(), &requested_by(name)?))
        .collect()
}

/// The section that an annotation of this name asks for.
pub(crate) fn requested_by(annotation: &str) -> Option<SectionName> {
    annotation.strip_prefix(SECTION_PREFIX)?.parse().ok()
}

/// Whether a view of a run keeps an annotation of this name because it is about a section.
pub(crate) fn keeps(annotation: &str) -> bool {
    let section = annotation
        .strip_prefix(SECTION_PREFIX)
        .or_else(|| annotation.strip_prefix(SECTION_TOKEN_PREFIX));
    section.is_some_and(is_label)
}

fn is_label(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.len() <= LONGEST
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_both_annotations_and_the_store() {
        let longest = "a".repeat(49);
        let name: SectionName = longest.parse().unwrap();
        for annotation in [name.request_annotation(), name.answer_annotation()] {
            let (_, part) = annotation.split_once('/').unwrap();
            assert!(part.len() <= 63, "{annotation}");
            assert!(keeps(&annotation), "{annotation}");
        }
        let key = key_of("ci", &name).unwrap();
        assert_eq!(section_of(&key), Some(name));
        for bad in ["", "A", "a.b", "-a", "a-", "a b", &"a".repeat(50)] {
            let error = bad.parse::<SectionName>().unwrap_err().to_string();
            assert!(error.contains("must be 1 to 49"), "{error}");
            assert!(!keeps(&format!("{SECTION_PREFIX}{bad}")), "{bad}");
        }
    }

    #[test]
    fn a_section_is_told_from_a_repository() {
        for (key, section) in [
            ("ci/section.gpu", Some("gpu")),
            ("ci/section.g.pu", None),
            ("ci/sections", None),
            ("ci/website", None),
        ] {
            let key: RepositoryKey = key.parse().unwrap();
            let found = section_of(&key);
            assert_eq!(found.as_ref().map(SectionName::as_str), section, "{key}");
        }
        assert!(is_section(&"ci/section.g.pu".parse().unwrap()));
        assert!(!is_section(&"ci/website".parse().unwrap()));
    }

    #[test]
    fn the_sections_of_a_run_are_those_of_its_namespace_that_it_asks_for() {
        let mut run = RunView::new("ci/a".parse().unwrap(), "u".parse().unwrap());
        for name in [
            "section.gpu",
            "section-token.other",
            "section.B",
            "section.staging",
            "sections",
        ] {
            let name = format!("concurrency.pipelinesascode.tekton.dev/{name}");
            run.annotations.insert(name, "x".to_owned());
        }
        let found: Vec<_> = sections_of(&run).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["ci/section.gpu", "ci/section.staging"]);
    }
}
