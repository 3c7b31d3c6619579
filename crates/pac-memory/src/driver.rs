//! [`MemoryDriver`]: the `Driver` trait over the store, the sessions and the watches.

use std::time::Duration;

use async_trait::async_trait;
use pac_core::driver::{
    Commit, CommitOutcome, Descriptor, Driver, ListFilter, Placement, RepositoryCommit, SessionTtl,
    Watch,
};
use pac_core::hints::{Hints, Reached};
use pac_core::protocol::Death;
use pac_core::state::{EntryState, Head, Snapshot};
use pac_core::{Error, RepositoryKey, SessionId, SessionIdentity, SessionInfo, Timestamp, Version};

use crate::MemoryOptions;
use crate::clock::Clock;
use crate::sessions::Sessions;
use crate::store::{Conditions, Store};
use crate::watch::Watches;

/// The default of the setting `memory-lease-ttl`.
const LEASE_TTL: Duration = Duration::from_secs(30 * 60);

/// A store in the memory of this process.
///
/// No method waits: each is done when it is first polled.
#[derive(Debug)]
pub struct MemoryDriver {
    options: MemoryOptions,
    clock: Clock,
    sessions: Sessions,
    store: Store,
    watches: Watches,
}

impl MemoryDriver {
    /// An empty store. Its clock starts now.
    #[must_use]
    pub fn new(options: MemoryOptions) -> Self {
        Self {
            clock: Clock::starting_at(options.epoch),
            sessions: Sessions::default(),
            store: Store::new(options.retention),
            watches: Watches::default(),
            options,
        }
    }

    /// What the store's clock shows.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

#[async_trait]
impl Driver for MemoryDriver {
    fn descriptor(&self) -> Descriptor {
        let retention = self.options.retention;
        Descriptor::new("memory", Placement::InProcess, LEASE_TTL, retention)
            .with_batches_of(1, 10_000)
    }

    async fn open_session(
        &self,
        ttl: SessionTtl,
        identity: &SessionIdentity,
    ) -> Result<SessionId, Error> {
        ttl.check(Duration::MAX)?;
        Ok(self.sessions.open(ttl, *identity, self.clock.now()))
    }

    async fn keep_alive(&self, session: SessionId) -> Result<(), Error> {
        if self.sessions.renew(session, self.clock.now()) {
            Ok(())
        } else {
            Err(Error::session_lost("keep alive", session))
        }
    }

    async fn close_session(&self, session: SessionId) -> Result<(), Error> {
        self.sessions.close(session, self.clock.now());
        if self.repositories_with(session).is_empty() {
            self.sessions.forget(session);
        }
        self.watches.read().tell(Hints::session_died);
        Ok(())
    }

    async fn dead_sessions(&self) -> Result<Vec<(SessionId, Death)>, Error> {
        let now = self.clock.now();
        self.store.forget_finished(now);
        let mut dead = self.sessions.dead(now);
        dead.retain(|(session, death)| {
            let over = *death == Death::Lease && self.repositories_with(*session).is_empty();
            if over {
                self.sessions.forget(*session);
            }
            !over
        });
        Ok(dead)
    }

    async fn sessions(
        &self,
        sessions: &[SessionId],
    ) -> Result<Vec<(SessionId, SessionInfo)>, Error> {
        let now = self.clock.now();
        let known = |id: &SessionId| Some((*id, self.sessions.info(*id, now)?));
        Ok(sessions.iter().filter_map(known).collect())
    }

    async fn repositories_of(&self, session: SessionId) -> Result<Vec<RepositoryKey>, Error> {
        Ok(self.repositories_with(session))
    }

    async fn load(
        &self,
        repository: &RepositoryKey,
        since: Option<Version>,
    ) -> Result<Snapshot, Error> {
        Ok(self.store.load(repository, since, self.clock.now()))
    }

    fn commit(&self, session: SessionId, batch: Vec<RepositoryCommit>) -> Commit {
        let sessions = self.sessions.read();
        let conditions = Conditions {
            clock: &self.clock,
            sessions: &sessions,
            session,
            log: !self.watches.is_alone(session) && self.watches.read().others_than(session),
        };
        let mut outcomes = Vec::with_capacity(batch.len());
        for RepositoryCommit {
            repository,
            changes,
        } in batch
        {
            let outcome = self.store.commit(&repository, changes, &conditions);
            match &outcome {
                CommitOutcome::SessionDead(dead) if *dead == session && outcomes.is_empty() => {
                    return Commit::Done(Err(Error::session_lost("commit", session)));
                }
                // Read only after the commit: a watch that was opened before it must get the hint.
                CommitOutcome::Committed(snapshot) if !self.watches.is_alone(session) => {
                    let watches = self.watches.read();
                    let reached = Reached::head(&snapshot.head);
                    watches.tell_others(session, |hints| hints.changed(&repository, reached));
                }
                _ => {}
            }
            outcomes.push(outcome);
        }
        Commit::Done(Ok(outcomes))
    }

    async fn clock(&self) -> Result<Timestamp, Error> {
        Ok(self.clock.now())
    }

    async fn watch(&self, session: SessionId) -> Result<Box<dyn Watch>, Error> {
        Ok(self.watches.subscribe(session))
    }

    async fn list(
        &self,
        filter: ListFilter,
        after: Option<&RepositoryKey>,
        limit: usize,
    ) -> Result<Vec<(RepositoryKey, Head)>, Error> {
        Ok(self.store.list(filter, after, limit))
    }
}

impl MemoryDriver {
    /// The repositories in which the session has queued or started entries.
    fn repositories_with(&self, session: SessionId) -> Vec<RepositoryKey> {
        self.store.with_live_entry(|entry| match entry.state {
            EntryState::Queued { owner } => owner == Some(session),
            EntryState::Started {
                session: holder, ..
            } => holder == session,
            EntryState::Finished { .. } => false,
        })
    }
}
