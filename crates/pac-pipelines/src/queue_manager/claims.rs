//! Which granted runs have been handed to the caller: each grant is handed out once, until it is
//! offered again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pac_core::manager::{RepositoryStatus, RunningRun};
use pac_core::{FencingToken, PipelineRunKey, RepositoryKey, Revision, SessionId};

/// The grants that the caller has, by repository.
#[derive(Debug, Default)]
pub(super) struct Claims {
    all: Mutex<HashMap<RepositoryKey, HandedOut>>,
}

#[derive(Debug, Default)]
struct HandedOut {
    /// The newest state that grants were handed out from.
    revision: Revision,
    /// By their tokens: a later grant of the same run is another one. A grant that was given
    /// back stays here until a newer state shows that it is over, so that an older state, which
    /// another task is still looking at, does not hand it out again.
    tokens: HashMap<PipelineRunKey, FencingToken>,
}

impl Claims {
    /// Hands out the grants of this session that the caller does not have yet, oldest first, at
    /// most so many. None of a state that is older than one that was handed out from.
    pub(super) fn take(
        &self,
        status: &RepositoryStatus,
        session: SessionId,
        most: usize,
    ) -> Vec<PipelineRunKey> {
        let mut all = self.all();
        let mine = all.entry(status.repository.clone()).or_default();
        if status.revision < mine.revision {
            return Vec::new();
        }
        mine.revision = status.revision;
        mine.tokens.retain(|run, token| {
            let mut running = status.running.iter();
            running.any(|other| other.run == *run && other.token == *token)
        });
        let open = status
            .running
            .iter()
            .filter(|run| is_open(run, session, mine.tokens.get(&run.run)));
        let taken = open.take(most).map(|run| (run.run.clone(), run.token));
        let taken: Vec<_> = taken.collect();
        mine.tokens.extend(taken.iter().cloned());
        taken.into_iter().map(|(run, _)| run).collect()
    }

    /// The runs with a slot that the caller does not have; and those that it has, or that another
    /// controller looks after.
    pub(super) fn split(
        &self,
        status: &RepositoryStatus,
        session: SessionId,
    ) -> (Vec<PipelineRunKey>, Vec<PipelineRunKey>) {
        let all = self.all();
        let mine = all.get(&status.repository);
        let (mut open, mut handed_out) = (Vec::new(), Vec::new());
        for run in &status.running {
            let token = mine.and_then(|mine| mine.tokens.get(&run.run));
            if is_open(run, session, token) {
                open.push(run.run.clone());
            } else {
                handed_out.push(run.run.clone());
            }
        }
        (open, handed_out)
    }

    /// The caller has this grant.
    pub(super) fn mark(
        &self,
        repository: &RepositoryKey,
        run: &PipelineRunKey,
        token: FencingToken,
    ) {
        let mut all = self.all();
        let mine = all.entry(repository.clone()).or_default();
        mine.tokens.insert(run.clone(), token);
    }

    /// The token of the grant that the caller has.
    pub(super) fn token(
        &self,
        repository: &RepositoryKey,
        run: &PipelineRunKey,
    ) -> Option<FencingToken> {
        self.all().get(repository)?.tokens.get(run).copied()
    }

    /// The caller has the grant no more, although it holds: it is handed out again.
    pub(super) fn unmark(&self, repository: &RepositoryKey, run: &PipelineRunKey) {
        if let Some(mine) = self.all().get_mut(repository) {
            mine.tokens.remove(run);
        }
    }

    pub(super) fn forget(&self, repository: &RepositoryKey) {
        self.all().remove(repository);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<RepositoryKey, HandedOut>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_open(run: &RunningRun, session: SessionId, handed_out: Option<&FencingToken>) -> bool {
    run.session == session && !run.orphaned && handed_out != Some(&run.token)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pac_core::manager::{Admission, ConcurrencyManager, ManagerOptions};
    use pac_core::protocol::RunRequest;
    use pac_core::{Limit, LimitVersion};
    use pac_memory::{MemoryDriver, MemoryOptions};

    use super::*;

    /// Two tasks look at one repository, and the one with the older state comes last.
    #[tokio::test(start_paused = true)]
    async fn an_older_state_hands_out_nothing() {
        let driver = Arc::new(MemoryDriver::new(MemoryOptions::default()));
        let options = ManagerOptions::default();
        let manager = ConcurrencyManager::open(driver, options).await.unwrap();
        let repository: RepositoryKey = "ci/website".parse().unwrap();
        let run: PipelineRunKey = "ci/a".parse().unwrap();
        let request = RunRequest::durable(run.clone(), "u".parse().unwrap());
        let limit = Some((Limit::new(1), LimitVersion::new(1)));
        let admit = manager.admit_all(&repository, limit, vec![request]).await;
        let Some(Admission::Started(lease)) = admit.unwrap().pop() else {
            panic!("there is a slot");
        };
        let (claims, session) = (Claims::default(), manager.session());
        let older = manager.status(&repository).await.unwrap();
        assert_eq!(claims.take(&older, session, 1), std::slice::from_ref(&run));
        assert_eq!(claims.take(&older, session, 1), []);
        // It is given back, and granted again: the old state shows the old grant.
        manager.requeue(lease).await.unwrap();
        let newer = manager.status(&repository).await.unwrap();
        assert_eq!(claims.take(&newer, session, 1), std::slice::from_ref(&run));
        assert_eq!(claims.take(&older, session, 1), []);
        assert_ne!(
            claims.token(&repository, &run),
            Some(older.running[0].token)
        );
    }
}
