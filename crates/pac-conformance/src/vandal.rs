//! Damage to stored records.

use std::fmt;

use async_trait::async_trait;
use pac_core::RepositoryKey;

/// Writes into a store past its driver, as a foreign program, a failing disk or a newer version
/// of this software would.
#[async_trait]
pub trait Vandal: fmt::Debug + Send + Sync + 'static {
    /// Damages a repository that exists, and keeps what is needed to repair it.
    async fn damage(&self, repository: &RepositoryKey, harm: Harm);

    /// Restores the records as they were before the damage.
    async fn mend(&self, repository: &RepositoryKey);
}

/// The kinds of damage to a repository's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// Its head cannot be understood: not the format, or foreign bytes.
    CorruptHead,
    /// The record of one of its runs cannot be understood.
    CorruptEntry,
    /// Its head says that a newer version of this software has written it.
    NewerHead,
    /// Its policy has a field of a newer version of this software.
    NewerPolicy,
    /// The record of one of its runs has terms with such a field.
    NewerTerms,
}
