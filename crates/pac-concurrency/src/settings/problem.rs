//! Problems of settings, and where they are.

use std::fmt;
use std::path::PathBuf;

use pac_core::text::one_line;
use pac_core::{Error, ErrorKind};

/// How many problems are told; of the rest the number is. A file of the wrong kind has thousands,
/// and the first of them tell which it is.
pub(super) const TOLD: usize = 20;

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
            Self::Variable(name) => one_line(name).fmt(f),
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
        f.write_str(&one_line(&self.file.to_string_lossy()))?;
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
            key: key.map(|key| one_line(key).into_owned()),
            message: one_line(&message.into()).into_owned(),
        }
    }

    /// The source that has the problem. [`Source::Default`] if a key is missing in all of them.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The key as written in the source, as one line ([`one_line`]).
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
            Some(key) if self.source == Source::Default => write!(f, "{key}: ")?,
            Some(key) if !names_itself => write!(f, "{}: {key}: ", self.source)?,
            _ => write!(f, "{}: ", self.source)?,
        }
        f.write_str(&self.message)
    }
}

/// The problems of the settings, displayed one per line, with its source. No value of a Secret
/// is repeated, and nothing that a terminal would act on. Of many problems the first 20 are told,
/// and the number of the rest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} in the settings:{}", counted(.problems.len() + .more), listed(.problems, *.more, "\n  "))]
pub struct SettingsError {
    problems: Vec<Problem>,
    more: usize,
}

impl SettingsError {
    /// `None` if there are no problems; `more` were found and not kept. Problems of a file are
    /// sorted by line.
    pub(super) fn of(mut problems: Vec<Problem>, more: usize) -> Option<Self> {
        problems.sort_by_key(|problem| problem.source.order());
        let more = more + problems.len().saturating_sub(TOLD);
        problems.truncate(TOLD);
        (!problems.is_empty()).then_some(Self { problems, more })
    }

    /// The problems that are told: at least one, and at most 20.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// How many problems there are beside those that are told.
    #[must_use]
    pub fn more(&self) -> usize {
        self.more
    }
}

fn counted(problems: usize) -> String {
    match problems {
        1 => "1 problem".to_owned(),
        many => format!("{many} problems"),
    }
}

/// Each behind `before`.
fn listed(problems: &[Problem], more: usize, before: &str) -> String {
    let told = problems.iter().map(|problem| format!("{before}{problem}"));
    let rest = (more > 0).then(|| format!("{before}and {more} more"));
    told.chain(rest).collect()
}

impl From<SettingsError> for Error {
    fn from(error: SettingsError) -> Self {
        // On one line, as every error of this type.
        let problems = listed(&error.problems, error.more, "; ");
        let problems = problems.trim_start_matches("; ").to_owned();
        Self::new(ErrorKind::Config, "read settings", problems)
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
