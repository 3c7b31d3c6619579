//! What this process knows of its `held` keys.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pac_core::{RepositoryKey, Revision, SessionId};

use super::revision_of;

/// The repositories for which this process has written a `held` key, for each of its sessions, with
/// the revision of that write. Without this every commit would write the key again.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<HashMap<SessionId, HashMap<RepositoryKey, i64>>>);

impl Held {
    fn all(&self) -> MutexGuard<'_, HashMap<SessionId, HashMap<RepositoryKey, i64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn written_at(&self, session: SessionId, repository: &RepositoryKey) -> Option<i64> {
        self.all().get(&session)?.get(repository).copied()
    }

    pub(crate) fn note_written(
        &self,
        session: SessionId,
        repository: &RepositoryKey,
        at: Revision,
    ) {
        let mut all = self.all();
        let written = all.entry(session).or_default();
        written.insert(repository.clone(), revision_of(at));
    }

    pub(crate) fn note_deleted(&self, session: SessionId, repository: &RepositoryKey) {
        if let Some(written) = self.all().get_mut(&session) {
            written.remove(repository);
        }
    }

    pub(crate) fn forget(&self, session: SessionId) {
        self.all().remove(&session);
    }
}
