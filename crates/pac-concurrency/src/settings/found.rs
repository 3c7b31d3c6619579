//! What stands in the sources, before it means anything.

use std::path::PathBuf;

use super::key::Key;
use super::problem::{Place, Problem, Source};
use super::typo;

/// A value under a key of ours. Not `Debug`: it may be a password.
pub(super) struct Found {
    pub(super) key: &'static Key,
    pub(super) value: FoundValue,
    pub(super) source: Source,
}

pub(super) enum FoundValue {
    Text(String),
    /// A password in a mounted Secret: read again whenever it is needed.
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

    /// An empty value counts as none.
    pub(super) fn is_empty(&self) -> bool {
        match &self.value {
            FoundValue::Text(text) => text.trim().is_empty(),
            FoundValue::Password(_) => false,
        }
    }
}

/// What the sources hold, and what is wrong with them.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) found: Vec<Found>,
    pub(super) problems: Vec<Problem>,
}

impl Findings {
    /// The key of ours that goes by a name in a ConfigMap or a Secret. A name that is nearly
    /// one of ours is a problem, any other belongs to somebody else.
    pub(super) fn key(&mut self, name: &str, source: &Source) -> Option<&'static Key> {
        let key = Key::named(name);
        if key.is_none()
            && let Some(complaint) = typo::in_a_map(name, matches!(source, Source::Secret(_)))
        {
            self.problem(source.clone(), Some(name), complaint);
        }
        key
    }

    pub(super) fn problem(
        &mut self,
        source: Source,
        key: Option<&str>,
        message: impl Into<String>,
    ) {
        self.problems.push(Problem::new(source, key, message));
    }

    /// Takes the entries of a map that is in memory; `whose` makes their source.
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
