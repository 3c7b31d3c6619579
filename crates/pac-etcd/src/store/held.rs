//! What this process knows of its `held` keys.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pac_core::{RepositoryKey, Revision, SessionId};

use super::revision_of;

/// Most repositories that are remembered for one session. Beyond that all are forgotten, and the
/// next commit to each of them writes its key again, which costs little.
const REMEMBERED: usize = 10_000;

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
        if written.len() >= REMEMBERED && !written.contains_key(repository) {
            written.clear();
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_repositories_is_remembered_for_ever() {
        let (held, session) = (Held::default(), SessionId::new(7));
        let repository = |n: usize| {
            format!("ns/repository-{n}")
                .parse::<RepositoryKey>()
                .unwrap()
        };
        for n in 0..=REMEMBERED {
            held.note_written(session, &repository(n), Revision::new(5));
        }
        assert_eq!(held.written_at(session, &repository(0)), None);
        assert_eq!(held.written_at(session, &repository(REMEMBERED)), Some(5));
        held.forget(session);
        assert!(held.all().is_empty());
    }
}
