//! Chooses and reads the value of each key.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pac_core::file;
use pac_core::text::one_line;

use super::Password;
use super::found::{Findings, Found, FoundValue};
use super::key::{self, Key};
use super::parse::{self, Parsed};
use super::problem::{Problem, SettingsError, Source};

/// How many characters of a value that breaks a rule are repeated.
const SHOWN: usize = 120;

/// The values in effect, which are read one key after the other; problems are collected.
pub(super) struct Reader {
    chosen: BTreeMap<&'static str, Found>,
    problems: Vec<Problem>,
    more_problems: usize,
}

impl Reader {
    /// Chooses for each key the value of the source with the highest precedence; among equals,
    /// the last one. An empty value counts as not set, so a source of lower precedence may have
    /// one; an empty explicit value means the default.
    pub(super) fn choose(findings: Findings) -> Self {
        let Findings {
            mut found,
            problems,
            more_problems,
        } = findings;
        found.sort_by_key(|found| found.source.rank());
        let mut chosen = BTreeMap::new();
        for value in found {
            match (value.is_empty(), &value.source) {
                (true, Source::Explicit) => drop(chosen.remove(value.key.name())),
                (true, _) => {}
                (false, _) => drop(chosen.insert(value.key.name(), value)),
            }
        }
        let mut reader = Self {
            chosen,
            problems,
            more_problems,
        };
        reader.take_apart();
        reader
    }

    /// Puts the parts of a connection URL in the place of the keys that it stands for. A key from a
    /// source of higher precedence holds; from one of the same, it contradicts the URL.
    fn take_apart(&mut self) {
        let key = &key::POSTGRESQL_URL;
        let Some(url) = self.chosen.get(key.name()) else {
            return;
        };
        let source = url.source.clone();
        let text = match &url.value {
            FoundValue::Text(text) => Ok(text.trim().to_owned()),
            FoundValue::Password(path) => file::read_password(path),
        };
        let parts = match text {
            Ok(text) => super::url::postgresql(&text).map_err(|rule| format!("the value {rule}")),
            Err(reason) => Err(format!("the file {reason}")),
        };
        let parts = match parts {
            Ok(parts) => parts,
            Err(message) => return self.problem(key, message),
        };
        for (part, value) in parts {
            let rank = self
                .chosen
                .get(part.name())
                .map(|found| found.source.rank());
            if rank == Some(source.rank()) {
                let message = format!(
                    "is set beside {}, which names it too, in the same kind of source; keep one of \
                     them",
                    key.name()
                );
                self.problem(part, message);
            } else if rank.is_none_or(|rank| rank < source.rank()) {
                let found = Found::text(part, value, source.clone());
                self.chosen.insert(part.name(), found);
            }
        }
    }

    /// All problems, or `None` if there are none.
    pub(super) fn error(self) -> Option<SettingsError> {
        SettingsError::of(self.problems, self.more_problems)
    }

    /// The source of a key's value.
    pub(super) fn source(&self, key: &Key) -> Source {
        let chosen = self.chosen.get(key.name());
        chosen.map_or(Source::Default, |found| found.source.clone())
    }

    /// Whether a source sets the key.
    pub(super) fn is_set(&self, key: &Key) -> bool {
        self.chosen.contains_key(key.name())
    }

    /// The value of a key as it may be shown, and whether that is the value itself. `None` if no
    /// source sets it and it has no default.
    pub(super) fn shown(&self, key: &Key) -> Option<(String, bool)> {
        let Some(found) = self.chosen.get(key.name()) else {
            return key.default().map(|default| (default.to_owned(), true));
        };
        Some(match &found.value {
            FoundValue::Password(path) => (format!("(read from {})", file::shown(path)), false),
            FoundValue::Text(_) if hides(found) => ("(redacted)".to_owned(), false),
            FoundValue::Text(text) if key.is_file() => {
                let shown = file::shown(Path::new(text.trim()));
                let is_itself = shown == text.trim();
                (shown.into_owned(), is_itself)
            }
            FoundValue::Text(text) => (without_users(text.trim()), true),
        })
    }

    /// Parses the value of a key, or its default. `None` if there is neither, or if it is wrong.
    pub(super) fn value<T>(
        &mut self,
        key: &'static Key,
        parse: impl FnOnce(&str) -> Parsed<T>,
    ) -> Option<T> {
        let found = self.chosen.get(key.name());
        let text = match found.map(|found| &found.value) {
            Some(FoundValue::Text(text)) => text.trim(),
            // Only passwords are stored so, and `password` reads those.
            Some(FoundValue::Password(_)) => return None,
            None => key.default()?,
        };
        match parse(text) {
            Ok(value) => Some(value),
            Err(rule) => {
                let message = match (found.is_some_and(hides), rule) {
                    // The text of a key or a password, where the name of its file should be.
                    (false, rule) if key.is_file() => format!("the value {rule}"),
                    (false, rule) => format!("\"{}\" {rule}", shown_part(text)),
                    (true, Cow::Borrowed(rule)) => format!("the value {rule}"),
                    (true, Cow::Owned(_)) => {
                        "the value is wrong; it is not shown, since it is in a Secret".to_owned()
                    }
                };
                self.problem(key, message);
                None
            }
        }
    }

    pub(super) fn file(&mut self, key: &'static Key) -> Option<PathBuf> {
        self.value(key, parse::line).map(PathBuf::from)
    }

    /// Reads a password, or the key naming its file. The one of lower precedence is dropped.
    pub(super) fn password(
        &mut self,
        key: &'static Key,
        file_key: &'static Key,
    ) -> Option<Password> {
        let rank = |reader: &Self, key: &Key| {
            let found = reader.chosen.get(key.name());
            found.map(|found| found.source.rank())
        };
        match (rank(self, key), rank(self, file_key)) {
            (Some(value), Some(file)) if value == file => {
                let message = format!(
                    "{} is set in the same kind of source ({}); keep one of them",
                    file_key.name(),
                    self.source(file_key)
                );
                self.problem(key, message);
                return None;
            }
            (Some(value), Some(file)) if value > file => drop(self.chosen.remove(file_key.name())),
            (Some(_), Some(_)) => drop(self.chosen.remove(key.name())),
            _ => {}
        }
        let text = match self.chosen.get(key.name()).map(|found| &found.value) {
            None => return self.file(file_key).map(Password::in_file),
            Some(FoundValue::Password(path)) => return Some(Password::in_file(path)),
            Some(FoundValue::Text(text)) => text,
        };
        match file::password(text) {
            Ok(password) => Some(Password::new(password)),
            Err(rule) => {
                self.problem(key, format!("the value {rule}"));
                None
            }
        }
    }

    /// Records a problem with the value of a key, or with its absence.
    pub(super) fn problem(&mut self, key: &Key, message: impl Into<String>) {
        let source = self.source(key);
        self.problems
            .push(Problem::new(source, Some(key.name()), message));
    }
}

/// The beginning of a value that breaks a rule.
fn shown_part(text: &str) -> String {
    let shown = without_users(text);
    let mut part: String = shown.chars().take(SHOWN).collect();
    if part.len() < shown.len() {
        part.push('…');
    }
    one_line(&part).into_owned()
}

fn hides(found: &Found) -> bool {
    found.key.is_secret() || matches!(found.source, Source::Secret(_))
}

/// Hides the user and password in addresses, which should contain neither.
fn without_users(text: &str) -> String {
    let part = |part: &str| match part.rsplit_once('@') {
        Some((before, after)) => {
            let scheme = before.split_once("://");
            let scheme = scheme.map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
            format!("{scheme}(redacted)@{after}")
        }
        None => part.to_owned(),
    };
    let parts: Vec<String> = text.split(',').map(part).collect();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_in_addresses_are_not_repeated() {
        for (text, shown) in [
            ("db:5432", "db:5432"),
            ("postgres://me:hunter2@db/x", "postgres://(redacted)@db/x"),
            ("a:1,me:hunter@2@b:1", "a:1,(redacted)@b:1"),
        ] {
            assert_eq!(without_users(text), shown);
        }
    }
}
