//! Damage to what is read of a repository.

use std::sync::Arc;

use pac_core::state::{EntryState, Snapshot};
use pac_core::{Error, ErrorKind, FencingToken, MAX_COUNTER, RepositoryKey};

/// The way in which a repository is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruin {
    /// The driver reports that it cannot understand the repository.
    Unreadable,
    /// The driver reports that a newer version wrote the repository.
    Newer,
    /// The head counts more waiting runs than there are.
    MiscountedQueue,
    /// The head counts fewer running runs than there are.
    MiscountedSlots,
    /// A run occurs twice.
    Twice,
    /// A run has a token that the head has not given out yet.
    TokenFromNowhere,
    /// The head has given out a token near the end of what a store can hold.
    CounterAtItsEnd,
    /// The head has given out the last token that a store may hold.
    LastToken,
}

impl Ruin {
    pub(super) fn of(
        self,
        repository: &RepositoryKey,
        mut snapshot: Snapshot,
    ) -> Result<Snapshot, Error> {
        let refuse = |kind| {
            let message = "the test has ruined this repository";
            Err(Error::new(kind, "load", message).in_repository(repository))
        };
        match self {
            Self::Unreadable => return refuse(ErrorKind::Corrupt),
            Self::Newer => return refuse(ErrorKind::Incompatible),
            Self::MiscountedQueue => snapshot.head.queued += 1,
            Self::MiscountedSlots => {
                snapshot.head.started = snapshot.head.started.saturating_sub(1);
            }
            Self::Twice => snapshot.entries.extend(snapshot.entries.first().cloned()),
            Self::TokenFromNowhere => {
                for entry in &mut snapshot.entries {
                    if entry.is_started()
                        && let EntryState::Started { token, .. } = &mut Arc::make_mut(entry).state
                    {
                        *token = FencingToken::new(u64::MAX);
                    }
                }
            }
            Self::LastToken => snapshot.head.last_token = FencingToken::new(MAX_COUNTER),
            Self::CounterAtItsEnd => snapshot.head.last_token = FencingToken::new(1 << 63),
        }
        Ok(snapshot)
    }
}
