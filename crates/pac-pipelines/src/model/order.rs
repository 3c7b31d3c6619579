//! The order in which the runs of one event start, as an annotation has it.

use std::collections::HashSet;
use std::fmt;

use pac_core::PipelineRunKey;

/// The runs of one event, in the order in which they start.
///
/// Read from `namespace/name,namespace/name`. An entry that is no name of a run is set aside and
/// never stops the others: anybody who may edit a run can write anything there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecutionOrder {
    runs: Vec<PipelineRunKey>,
    malformed: Vec<Malformed>,
}

/// An entry of an execution order that is no name of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Malformed {
    /// The entry, shortened if it is long.
    pub entry: String,
    /// The rule that it breaks.
    pub rule: String,
}

impl ExecutionOrder {
    /// How much of a malformed entry is repeated, in characters.
    const SHOWN: usize = 80;

    /// Reads an annotation's value. Blanks around entries and empty entries are passed over; of
    /// an entry that comes twice the first place counts.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut malformed = Vec::new();
        let runs = entries(text).filter_map(|entry| match entry.parse::<PipelineRunKey>() {
            Ok(run) => Some(run),
            Err(invalid) => {
                malformed.push(Malformed {
                    entry: entry.chars().take(Self::SHOWN).collect(),
                    rule: invalid.rule().to_owned(),
                });
                None
            }
        });
        let runs = Self::of(runs).runs;
        Self { runs, malformed }
    }

    /// Of these runs, in this order.
    #[must_use]
    pub fn of(runs: impl IntoIterator<Item = PipelineRunKey>) -> Self {
        let mut named = HashSet::new();
        let runs = runs.into_iter().filter(|run| named.insert(run.clone()));
        Self {
            runs: runs.collect(),
            malformed: Vec::new(),
        }
    }

    /// Whether the value of an annotation names a run. It is read as far as its first one only.
    pub(super) fn names_a_run(text: &str) -> bool {
        entries(text).any(|entry| entry.parse::<PipelineRunKey>().is_ok())
    }

    /// The runs, first to start first.
    #[must_use]
    pub fn runs(&self) -> &[PipelineRunKey] {
        &self.runs
    }

    /// The entries that are no names of runs.
    #[must_use]
    pub fn malformed(&self) -> &[Malformed] {
        &self.malformed
    }

    /// Whether it names no run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The place of a run, from 0.
    #[must_use]
    pub fn position(&self, run: &PipelineRunKey) -> Option<usize> {
        self.runs.iter().position(|other| other == run)
    }
}

/// The entries of an annotation's value that are not empty.
fn entries(text: &str) -> impl Iterator<Item = &str> {
    let entries = text.split(',').map(str::trim);
    entries.filter(|entry| !entry.is_empty())
}

impl fmt::Display for ExecutionOrder {
    /// The annotation's value; malformed entries are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, run) in self.runs.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            f.write_str(run.as_str())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_and_written_as_it_is() {
        let text = "ci/pr1,ci/pr2,ci/pr10";
        let order = ExecutionOrder::parse(text);
        assert_eq!(order.to_string(), text);
        assert_eq!(order.position(&"ci/pr10".parse().unwrap()), Some(2));
        assert!(order.malformed().is_empty());
        assert!(ExecutionOrder::names_a_run(text));
        for empty in ["", " ,", "no-slash"] {
            assert!(ExecutionOrder::parse(empty).is_empty());
            assert!(!ExecutionOrder::names_a_run(empty), "{empty}");
        }
    }

    #[test]
    fn malformed_entries_never_stop_the_others() {
        let order = ExecutionOrder::parse(" ci/a,, no-slash,ci/b/c,ci/a,\0/x,ci/b ,é/");
        assert_eq!(order.to_string(), "ci/a,ci/b");
        let entries: Vec<_> = order.malformed().iter().map(|m| m.entry.as_str()).collect();
        assert_eq!(entries, ["no-slash", "ci/b/c", "\0/x", "é/"]);
        assert!(order.malformed()[0].rule.contains("<namespace>/<name>"));
        let long = ExecutionOrder::parse(&"x".repeat(10_000));
        assert_eq!(long.malformed()[0].entry.len(), 80);
    }
}
