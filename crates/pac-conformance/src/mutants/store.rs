//! Stores that break the driver's contract, each in one way.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pac_core::driver::{
    BatchOutcome, CommitOutcome, RepositoryCommit, SessionTtl, Watch, WatchEvent,
};
use pac_core::protocol::{Changes, Death};
use pac_core::state::{Head, RepositoryState, Snapshot};
use pac_core::{
    Error, ErrorKind, RepositoryKey, SessionId, SessionIdentity, SessionInfo, Stamp, Timestamp,
    Version,
};
use tokio::time::Instant;

use super::forgotten;
use super::store_layer::{BrokenStore, Store, Wrong, commit_to};

/// Makes a broken store from a good one.
pub(crate) type Break = fn(Store) -> Store;

/// All stores: name, defect and constructor.
pub(crate) const ALL: [(&str, &str, Break); 18] = [
    (
        "commit-without-comparing",
        "a commit is written whatever revision the repository is at",
        |store| BrokenStore::over(store, WithoutComparing),
    ),
    (
        "commit-for-the-dead",
        "a commit does not ask whether the sessions live that it grants slots to",
        |store| BrokenStore::over(store, ForTheDead),
    ),
    (
        "commit-by-the-dead",
        "a commit of a session that is over is written",
        |store| BrokenStore::over(store, ByTheDead::default()),
    ),
    (
        "acknowledged-and-lost",
        "now and then a commit is acknowledged and not written",
        |store| BrokenStore::over(store, Lost::default()),
    ),
    (
        "counting-restarts",
        "revisions and tokens of a removed repository begin again",
        |store| BrokenStore::over(store, CountingRestarts),
    ),
    (
        "deltas-without-the-queue",
        "what changed since a revision is told without the waiting runs",
        |store| BrokenStore::over(store, DeltasWithoutTheQueue),
    ),
    (
        "stale-reads",
        "a read shows what the one before could have shown",
        |store| BrokenStore::over(store, StaleReads::default()),
    ),
    (
        "silent-watch",
        "the watch tells nothing, and does not say so",
        |store| BrokenStore::over(store, SilentWatch),
    ),
    (
        "expiry-on-the-clients-clock",
        "whether a session is dead is decided by the clock of whoever asks",
        |store| BrokenStore::over(store, ClientsClock::default()),
    ),
    (
        "session-comes-back",
        "a session that has been dead is kept alive again, and may commit",
        |store| BrokenStore::over(store, ComesBack::default()),
    ),
    (
        "keep-alive-says-yes",
        "a dead session is told that it was renewed",
        |store| BrokenStore::over(store, SaysYes),
    ),
    (
        "deaths-unseen",
        "nobody is told of dead sessions",
        |store| BrokenStore::over(store, DeathsUnseen),
    ),
    (
        "the-dead-have-no-name",
        "who a session belonged to is not told once it is dead",
        |store| BrokenStore::over(store, DeadWithoutNames),
    ),
    (
        "one-name-for-all",
        "every session is told to be that of whoever asked first",
        |store| BrokenStore::over(store, OneName::default()),
    ),
    (
        "pauses-are-lost",
        "a pause is acknowledged and not written",
        |store| BrokenStore::over(store, Forgets(forgotten::pause)),
    ),
    (
        "requests-to-end-are-lost",
        "that a holder is asked to end is acknowledged and not written",
        |store| BrokenStore::over(store, Forgets(forgotten::request_to_end)),
    ),
    (
        "groups-are-lost",
        "the group of a run is acknowledged and not written",
        |store| BrokenStore::over(store, Forgets(forgotten::group)),
    ),
    (
        "owners-are-lost",
        "who has set a limit is acknowledged and not written",
        |store| BrokenStore::over(store, Forgets(forgotten::owner)),
    ),
];

/// Writes a part of what it acknowledges.
#[derive(Debug)]
struct Forgets(fn(&mut Changes));

#[async_trait]
impl Wrong for Forgets {
    async fn commit(
        &self,
        store: &Store,
        session: SessionId,
        mut batch: Vec<RepositoryCommit>,
    ) -> BatchOutcome {
        for commit in &mut batch {
            (self.0)(&mut commit.changes);
        }
        commit_to(store, session, batch).await
    }
}

#[derive(Debug)]
struct WithoutComparing;

#[async_trait]
impl Wrong for WithoutComparing {
    async fn commit(
        &self,
        store: &Store,
        session: SessionId,
        mut batch: Vec<RepositoryCommit>,
    ) -> BatchOutcome {
        for commit in &mut batch {
            let changes = &mut commit.changes;
            let now = store.load(&commit.repository, None).await?;
            changes.expected = now.head.version();
            // Recompute the counts for the rewritten entries: only the comparison is to be
            // missing.
            let others = now.entries.iter().filter(|entry| {
                let written = &changes.entries;
                written.iter().all(|written| written.run != entry.run)
            });
            let (mut queued, mut started) = (0, 0);
            for entry in others.chain(&changes.entries) {
                queued += u32::from(entry.is_queued());
                started += u32::from(entry.is_started());
            }
            changes.head = Head {
                queued,
                started,
                last_ticket: changes.head.last_ticket.max(now.head.last_ticket),
                last_token: changes.head.last_token.max(now.head.last_token),
                ..changes.head.clone()
            };
        }
        commit_to(store, session, batch).await
    }
}

#[derive(Debug)]
struct ForTheDead;

#[async_trait]
impl Wrong for ForTheDead {
    async fn commit(
        &self,
        store: &Store,
        session: SessionId,
        mut batch: Vec<RepositoryCommit>,
    ) -> BatchOutcome {
        for commit in &mut batch {
            commit.changes.alive.clear();
        }
        commit_to(store, session, batch).await
    }
}

/// Commits of a dead session are made under a session that lives for good.
#[derive(Debug, Default)]
struct ByTheDead(Mutex<Option<SessionId>>);

#[async_trait]
impl Wrong for ByTheDead {
    async fn commit(
        &self,
        store: &Store,
        session: SessionId,
        batch: Vec<RepositoryCommit>,
    ) -> BatchOutcome {
        match commit_to(store, session, batch.clone()).await {
            Err(error) if error.kind() == ErrorKind::SessionLost => {
                let known = *self.0.lock().unwrap();
                let immortal = match known {
                    Some(immortal) => immortal,
                    None => {
                        store
                            .open_session(for_good(), &SessionIdentity::of_this_process())
                            .await?
                    }
                };
                *self.0.lock().unwrap() = Some(immortal);
                commit_to(store, immortal, batch).await
            }
            answer => answer,
        }
    }
}

fn for_good() -> SessionTtl {
    let years = Duration::from_secs(10 * 365 * 24 * 60 * 60);
    SessionTtl::new(years, years)
}

#[derive(Debug, Default)]
struct Lost(AtomicU64);

#[async_trait]
impl Wrong for Lost {
    async fn commit(
        &self,
        store: &Store,
        session: SessionId,
        batch: Vec<RepositoryCommit>,
    ) -> BatchOutcome {
        let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        if !number.is_multiple_of(5) {
            return commit_to(store, session, batch).await;
        }
        let written = batch.into_iter().map(|commit| {
            let changes = commit.changes;
            let version = Version::new(changes.expected.revision.next(), Stamp::default());
            CommitOutcome::Committed(match changes.remove {
                true => Snapshot::absent(changes.head.floor_after_removal()),
                false => changes.written(version, Timestamp::from_unix_millis(0)),
            })
        });
        Ok(written.collect())
    }
}

#[derive(Debug)]
struct CountingRestarts;

#[async_trait]
impl Wrong for CountingRestarts {
    async fn load(
        &self,
        store: &Store,
        repository: &RepositoryKey,
        since: Option<Version>,
    ) -> Result<Snapshot, Error> {
        let snapshot = store.load(repository, since).await?;
        Ok(match snapshot.exists {
            true => snapshot,
            false => Snapshot::absent(0),
        })
    }

    async fn commit(
        &self,
        store: &Store,
        session: SessionId,
        mut batch: Vec<RepositoryCommit>,
    ) -> BatchOutcome {
        for commit in &mut batch {
            let now = store.load(&commit.repository, None).await?;
            if !now.exists && commit.changes.expected == Version::default() {
                commit.changes.expected = now.head.version();
            }
        }
        let mut outcomes = commit_to(store, session, batch).await?;
        for outcome in &mut outcomes {
            if let CommitOutcome::Committed(snapshot) | CommitOutcome::Conflict(Some(snapshot)) =
                outcome
                && !snapshot.exists
            {
                *snapshot = Snapshot::absent(0);
            }
        }
        Ok(outcomes)
    }
}

#[derive(Debug)]
struct DeltasWithoutTheQueue;

#[async_trait]
impl Wrong for DeltasWithoutTheQueue {
    async fn load(
        &self,
        store: &Store,
        repository: &RepositoryKey,
        since: Option<Version>,
    ) -> Result<Snapshot, Error> {
        let mut snapshot = store.load(repository, since).await?;
        if snapshot.since.is_some() {
            snapshot.entries.retain(|entry| !entry.is_queued());
        }
        Ok(snapshot)
    }
}

/// The last snapshot read of each repository, which the next read returns.
#[derive(Debug, Default)]
struct StaleReads(Mutex<HashMap<RepositoryKey, Snapshot>>);

#[async_trait]
impl Wrong for StaleReads {
    async fn load(
        &self,
        store: &Store,
        repository: &RepositoryKey,
        _since: Option<Version>,
    ) -> Result<Snapshot, Error> {
        let now = store.load(repository, None).await?;
        let mut known = self.0.lock().unwrap();
        let before = known.insert(repository.clone(), now.clone());
        // A removal is not hidden.
        let before = before.filter(|before| now.exists && before.exists);
        let adds_up = |before: &Snapshot| RepositoryState::from_snapshot(before).is_ok();
        Ok(before.filter(adds_up).unwrap_or(now))
    }
}

#[derive(Debug)]
struct SilentWatch;

impl Wrong for SilentWatch {
    fn watch(&self, watch: Box<dyn Watch>) -> Box<dyn Watch> {
        Box::new(Silent(watch))
    }
}

/// The inner watch, kept alive so that the store can still send to it.
struct Silent(#[expect(dead_code, reason = "it is never asked")] Box<dyn Watch>);

#[async_trait]
impl Watch for Silent {
    async fn next(&mut self) -> Result<WatchEvent, Error> {
        pending().await
    }
}

/// The last keep-alive and TTL of each session, by a clock four times as fast as the store's.
#[derive(Debug, Default)]
struct ClientsClock(Mutex<HashMap<SessionId, (Instant, Duration)>>);

#[async_trait]
impl Wrong for ClientsClock {
    async fn open_session(
        &self,
        store: &Store,
        ttl: SessionTtl,
        identity: &SessionIdentity,
    ) -> Result<SessionId, Error> {
        let session = store.open_session(ttl, identity).await?;
        let mut heard = self.0.lock().unwrap();
        heard.insert(session, (Instant::now(), ttl.session));
        Ok(session)
    }

    async fn keep_alive(&self, store: &Store, session: SessionId) -> Result<(), Error> {
        store.keep_alive(session).await?;
        let mut heard = self.0.lock().unwrap();
        heard
            .entry(session)
            .and_modify(|(at, _)| *at = Instant::now());
        Ok(())
    }

    async fn dead_sessions(&self, store: &Store) -> Result<Vec<(SessionId, Death)>, Error> {
        let mut dead = store.dead_sessions().await?;
        let heard = self.0.lock().unwrap();
        let late = heard
            .iter()
            .filter(|(_, (at, ttl))| at.elapsed() * 4 > *ttl);
        for (session, _) in late {
            if !dead.iter().any(|(known, _)| known == session) {
                dead.push((*session, Death::Session));
            }
        }
        Ok(dead)
    }
}

/// The long-lived sessions under which dead ones continue.
#[derive(Debug, Default)]
struct ComesBack(Mutex<HashMap<SessionId, SessionId>>);

impl ComesBack {
    fn name(&self, session: SessionId) -> SessionId {
        let revived = self.0.lock().unwrap();
        revived.get(&session).copied().unwrap_or(session)
    }
}

#[async_trait]
impl Wrong for ComesBack {
    async fn keep_alive(&self, store: &Store, session: SessionId) -> Result<(), Error> {
        match store.keep_alive(self.name(session)).await {
            Err(error) if error.kind() == ErrorKind::SessionLost => {
                let revived = store
                    .open_session(for_good(), &SessionIdentity::of_this_process())
                    .await?;
                self.0.lock().unwrap().insert(session, revived);
                Ok(())
            }
            answer => answer,
        }
    }

    async fn commit(
        &self,
        store: &Store,
        session: SessionId,
        mut batch: Vec<RepositoryCommit>,
    ) -> BatchOutcome {
        for commit in &mut batch {
            for session in &mut commit.changes.alive {
                *session = self.name(*session);
            }
        }
        commit_to(store, self.name(session), batch).await
    }
}

#[derive(Debug)]
struct SaysYes;

#[async_trait]
impl Wrong for SaysYes {
    async fn keep_alive(&self, store: &Store, session: SessionId) -> Result<(), Error> {
        match store.keep_alive(session).await {
            Err(error) if error.kind() == ErrorKind::SessionLost => Ok(()),
            answer => answer,
        }
    }
}

#[derive(Debug)]
struct DeathsUnseen;

#[async_trait]
impl Wrong for DeathsUnseen {
    async fn dead_sessions(&self, _store: &Store) -> Result<Vec<(SessionId, Death)>, Error> {
        Ok(Vec::new())
    }
}

#[derive(Debug)]
struct DeadWithoutNames;

#[async_trait]
impl Wrong for DeadWithoutNames {
    async fn sessions(
        &self,
        store: &Store,
        sessions: &[SessionId],
    ) -> Result<Vec<(SessionId, SessionInfo)>, Error> {
        let mut known = store.sessions(sessions).await?;
        known.retain(|(_, info)| !info.dead);
        Ok(known)
    }
}

#[derive(Debug, Default)]
struct OneName(Mutex<Option<SessionIdentity>>);

#[async_trait]
impl Wrong for OneName {
    async fn open_session(
        &self,
        store: &Store,
        ttl: SessionTtl,
        identity: &SessionIdentity,
    ) -> Result<SessionId, Error> {
        let first = *self.0.lock().unwrap().get_or_insert(*identity);
        store.open_session(ttl, &first).await
    }
}
