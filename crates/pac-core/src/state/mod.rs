//! The state of a repository: its [`Head`], an [`Entry`] per run, and both together as a
//! [`Snapshot`] that drivers hand over or a [`RepositoryState`] that commands are applied to.

mod by_terms;
mod entry;
mod head;
mod json;
mod policy;
mod queue;
mod repository;
mod terms;
#[cfg(test)]
pub(crate) mod testing;

pub use entry::{Entry, EntryState, Moment, RunKind, RunOutcome};
pub use head::Head;
pub use json::UnreadablePart;
pub use policy::{Owner, Pause, Policy, Rules, RulesChange};
pub(crate) use queue::{Iter as QueueIter, Rank};
pub use repository::{Absorb, RepositoryState, Snapshot};
pub use terms::{Terms, Weight};
