//! What a migration does, or would do.

use super::legacy::LeftOut;
use crate::name::{PipelineRunKey, RepositoryKey};
use crate::value::{Limit, Revision};

/// What a migration has done, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MigrationReport {
    /// Every Repository of the source.
    pub repositories: Vec<MigratedRepository>,
    /// What of the source is not brought along.
    pub left_out: Vec<LeftOut>,
}

impl MigrationReport {
    /// Whether nothing of the source is needed any more, if the migration was carried out: every
    /// run has its place, and what was left out is over.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let open = self.left_out.iter().any(|left| left.is_open);
        !open && self.repositories.iter().all(|one| one.problems.is_empty())
    }
}

/// One Repository of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MigratedRepository {
    /// The Repository.
    pub repository: RepositoryKey,
    /// The limit that it has afterwards.
    pub limit: Limit,
    /// Nothing said its limit: this one lets no waiting run start until a controller or `pac limit`
    /// sets the real one, unless a running one ends.
    pub limit_is_provisional: bool,
    /// Its runs: those that run in the order of their start, then those that wait, next first,
    /// then those that have ended.
    pub runs: Vec<MigratedRun>,
    /// Why it is not as it should be, each with the cure; empty when it was verified.
    pub problems: Vec<String>,
    /// The source as it was read; a removal depends on it.
    pub(super) source: Revision,
}

/// One run of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MigratedRun {
    /// The run.
    pub run: PipelineRunKey,
    /// What is done about it.
    pub action: Action,
    /// What was not certain, and what was assumed.
    pub remark: Option<&'static str>,
}

/// What is done about one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// It gets a slot, even above the limit: it runs already.
    Adopt,
    /// It gets the next place in the queue.
    Enqueue,
    /// It has ended, and can be read as before.
    Record,
    /// It is there already.
    Present,
    /// Another run of its name is live in the new state: nothing is written.
    Conflict,
}

impl Action {
    /// One word: `adopt`, `enqueue`, `record`, `present` or `conflict`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Adopt => "adopt",
            Self::Enqueue => "enqueue",
            Self::Record => "record",
            Self::Present => "present",
            Self::Conflict => "conflict",
        }
    }
}
