//! The values found in the sources, not yet parsed.

use std::path::PathBuf;

use super::key::Key;
use super::problem::{Place, Problem, Source, TOLD};
use super::typo;

/// A value for a known key. Not `Debug`: it may be a password.
pub(super) struct Found {
    pub(super) key: &'static Key,
    pub(super) value: FoundValue,
    pub(super) source: Source,
}

pub(super) enum FoundValue {
    Text(String),
    /// A password in a mounted Secret, which is read again whenever it is needed.
    Password(PathBuf),
}

impl Found {
    pub(super) fn text(key: &'static Key, text: impl Into<String>, source: Source) -> Self {
        Self {
            key,
            value: FoundValue::Text(text.into()),
            source,
        }
    }

    /// Whether the value is empty, which counts as not set.
    pub(super) fn is_empty(&self) -> bool {
        match &self.value {
            FoundValue::Text(text) => text.trim().is_empty(),
            FoundValue::Password(_) => false,
        }
    }
}

/// The values found in the sources, and the problems found there.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) found: Vec<Found>,
    /// The first [`TOLD`] ones.
    pub(super) problems: Vec<Problem>,
    /// How many there are beside.
    pub(super) more_problems: usize,
}

impl Findings {
    /// The known key of this name in a ConfigMap or a Secret. A name that resembles a known one
    /// is recorded as a problem; any other is ignored, since it belongs to other software.
    pub(super) fn key(&mut self, name: &str, source: &Source) -> Option<&'static Key> {
        let key = Key::named(name);
        if key.is_none()
            && let Some(typo) = typo::in_a_map(name, matches!(source, Source::Secret(_)))
        {
            if self.problems.len() < TOLD {
                self.problem(source.clone(), Some(name), typo.complaint());
            } else {
                self.more_problems += 1;
            }
        }
        key
    }

    pub(super) fn problem(
        &mut self,
        source: Source,
        key: Option<&str>,
        message: impl Into<String>,
    ) {
        if self.problems.len() < TOLD {
            self.problems.push(Problem::new(source, key, message));
        } else {
            self.more_problems += 1;
        }
    }

    /// Adds the entries of a map in memory; `whose` makes their source.
    pub(super) fn map(
        &mut self,
        name: &str,
        entries: impl IntoIterator<Item = (String, String)>,
        whose: fn(Place) -> Source,
    ) {
        for (key, value) in entries {
            let source = whose(Place::new(name, None));
            if let Some(key) = self.key(&key, &source) {
                self.found.push(Found::text(key, value, source));
            }
        }
    }
}
