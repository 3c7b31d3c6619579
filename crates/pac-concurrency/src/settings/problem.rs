//! Problems of settings, and where they are.

use std::fmt;
use std::path::PathBuf;

use pac_core::{Error, ErrorKind};

/// The source of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// No source sets the key.
    Default,
    /// A ConfigMap, or a plain map of settings.
    ConfigMap(Place),
    /// A Secret.
    Secret(Place),
    /// A variable of the environment.
    Variable(String),
    /// Set in code, or with `--set`.
    Explicit,
}

impl Source {
    /// Its precedence: a source of higher rank overrides one of lower rank.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::ConfigMap(_) => 1,
            Self::Secret(_) => 2,
            Self::Variable(_) => 3,
            Self::Explicit => 4,
        }
    }

    /// The order of reporting: files from first to last line, then the rest.
    fn order(&self) -> (bool, Option<Place>) {
        match self {
            Self::ConfigMap(place) | Self::Secret(place) => (false, Some(place.clone())),
            Self::Default | Self::Variable(_) | Self::Explicit => (true, None),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::ConfigMap(place) | Self::Secret(place) => place.fmt(f),
            // `Debug` escapes control characters, which a terminal or a log viewer would act on.
            Self::Variable(name) => name.escape_debug().fmt(f),
            Self::Explicit => f.write_str("--set"),
        }
    }
}

/// A file, and the line in it, if lines apply.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, or the name given for a map in memory.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: Option<usize>,
}

impl Place {
    pub(super) fn new(file: impl Into<PathBuf>, line: Option<usize>) -> Self {
        Self {
            file: file.into(),
            line,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        match self.line {
            Some(line) => write!(f, ":{line}"),
            None => Ok(()),
        }
    }
}

/// One problem of the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    source: Source,
    key: Option<String>,
    message: String,
}

impl Problem {
    /// `key` as written in the source; `None` for a problem of the source as a whole. `message`
    /// names the rule and the cure.
    pub(super) fn new(source: Source, key: Option<&str>, message: impl Into<String>) -> Self {
        Self {
            source,
            key: key.map(str::to_owned),
            message: message.into(),
        }
    }

    /// The source that has the problem. [`Source::Default`] if a key is missing in all of them.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The key as written in the source.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The broken rule, and the cure.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names_itself = matches!(self.source, Source::Default | Source::Variable(_));
        match &self.key {
            Some(key) if self.source == Source::Default => write!(f, "{}: ", key.escape_debug())?,
            Some(key) if !names_itself => write!(f, "{}: {}: ", self.source, key.escape_debug())?,
            _ => write!(f, "{}: ", self.source)?,
        }
        f.write_str(&self.message)
    }
}

/// All problems of the settings, displayed one per line, with its source. No value of a Secret
/// is repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} in the settings:{}", counted(.problems), listed(.problems))]
pub struct SettingsError {
    problems: Vec<Problem>,
}

impl SettingsError {
    /// `None` if there are no problems. Problems of a file are sorted by line.
    pub(super) fn of(mut problems: Vec<Problem>) -> Option<Self> {
        problems.sort_by_key(|problem| problem.source.order());
        (!problems.is_empty()).then_some(Self { problems })
    }

    /// The problems; at least one.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

fn counted(problems: &[Problem]) -> String {
    match problems.len() {
        1 => "1 problem".to_owned(),
        many => format!("{many} problems"),
    }
}

/// Each on a line of its own.
fn listed(problems: &[Problem]) -> String {
    let lines = problems.iter();
    lines.map(|problem| format!("\n  {problem}")).collect()
}

impl From<SettingsError> for Error {
    fn from(error: SettingsError) -> Self {
        Self::new(ErrorKind::Config, "read settings", error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_where_it_is_and_moves_no_cursor() {
        let place = Place::new("a.yaml", Some(3));
        for (source, key, shown) in [
            (
                Source::ConfigMap(place),
                "etcd-\u{1b}[2J",
                "a.yaml:3: etcd-\\u{1b}[2J: wrong",
            ),
            (Source::Variable("PAC_\n".to_owned()), "x", "PAC_\\n: wrong"),
            (Source::Default, "etcd-endpoints", "etcd-endpoints: wrong"),
            (Source::Explicit, "x", "--set: x: wrong"),
        ] {
            let problem = Problem::new(source, Some(key), "wrong");
            assert_eq!(problem.to_string(), shown);
        }
    }
}
