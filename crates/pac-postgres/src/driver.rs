//! The driver over the tables.

use std::sync::Arc;

use async_trait::async_trait;
use pac_core::driver::{
    BatchOutcome, Commit, CommitOutcome, Descriptor, Driver, ListFilter, RepositoryCommit,
    SessionTtl, Watch,
};
use pac_core::protocol::Death;
use pac_core::state::{Head, Snapshot};
use pac_core::{Error, ErrorKind, RepositoryKey, Revision, SessionId};
use tokio::task::{AbortHandle, JoinSet};

use crate::PostgresOptions;
use crate::client::Client;
use crate::schema;
use crate::sessions::Sessions;
use crate::store::Store;
use crate::watch::Watches;

/// A store in a schema of a PostgreSQL database.
///
/// | operation | round trips | durable writes |
/// | --- | --- | --- |
/// | commit of any number of repositories | 1 | 1 |
/// | load, list, repositories of a session | 1 | none |
/// | open, renew or close a session | 1 | 1 |
/// | look for dead sessions | 1 | none, if nobody has died |
///
/// Dropping it closes its connections.
#[derive(Debug)]
pub struct PostgresDriver {
    options: PostgresOptions,
    sessions: Sessions,
    store: Arc<Store>,
    watches: Arc<Watches>,
    notified: bool,
    /// What sends and hears hints; ended with the set.
    _hints: JoinSet<()>,
    alive: Vec<AbortHandle>,
}

impl PostgresDriver {
    /// Connects, and brings the schema up to this version.
    ///
    /// The hints of the driver are sent and heard by tasks of the runtime that this is called
    /// on; without them changes of other processes are found when a manager polls.
    ///
    /// # Errors
    /// `Config` for settings that cannot be used and for a database or server that is not as they
    /// say, `Unauthorised` for a role that may not connect or create what is missing,
    /// `Incompatible` for a schema of a newer version, `Unavailable` when no server can be
    /// reached that takes writes. Each says what to do about it.
    pub async fn connect(options: PostgresOptions) -> Result<Self, Error> {
        options.check()?;
        let client = Client::new(&options)?;
        schema::migrate(&client).await?;
        let store = Arc::new(Store::new(client.clone()));
        let watches = Arc::new(Watches::new(client.clone()));
        let (mut tasks, mut alive) = (JoinSet::new(), Vec::new());
        let listening = watches.try_to_listen().await?;
        let notified = listening.is_some();
        if let Some(session) = listening {
            // What one statement leaves on a connection, another one has just found.
            client.name_statements();
            alive.push(tasks.spawn(Arc::clone(&watches).notify()));
            alive.push(tasks.spawn(Arc::clone(&watches).keep_listening(session)));
        } else {
            tracing::warn!(
                "notifications of PostgreSQL do not get through, as behind a proxy that pools \
                 transactions; polling for changes instead, which takes a little longer"
            );
            alive.push(tasks.spawn(Arc::clone(&watches).poll(Arc::clone(&store))));
        }
        Ok(Self {
            sessions: Sessions::new(client),
            store,
            watches,
            notified,
            options,
            _hints: tasks,
            alive,
        })
    }

    /// Whether notifications of PostgreSQL got through when this driver connected. If not, as
    /// behind a proxy that pools transactions, changes of other processes are polled for.
    #[must_use]
    pub fn is_notified(&self) -> bool {
        self.notified
    }
}

#[async_trait]
impl Driver for PostgresDriver {
    fn descriptor(&self) -> Descriptor {
        Descriptor {
            name: "postgresql",
            remote: true,
            // One is at the disk while the next one travels; more would only share each flush
            // of the log among smaller batches. The rest of the pool is for reading.
            batches_in_flight: (self.options.max_connections / 2).clamp(1, 2),
            repositories_per_batch: 64,
            entries_per_commit: 1_000,
            lease_ttl: self.options.lease_ttl,
            retention: self.options.retention,
        }
    }

    async fn open_session(&self, ttl: SessionTtl) -> Result<SessionId, Error> {
        self.sessions.open(ttl).await
    }

    async fn keep_alive(&self, session: SessionId) -> Result<(), Error> {
        self.sessions.renew(session).await
    }

    async fn close_session(&self, session: SessionId) -> Result<(), Error> {
        self.sessions.close(session).await?;
        self.watches.session_died();
        Ok(())
    }

    async fn dead_sessions(&self) -> Result<Vec<(SessionId, Death)>, Error> {
        let (dead, fresh) = self.sessions.dead().await?;
        if fresh {
            self.watches.session_died();
        }
        if let Err(error) = self.store.purge().await {
            tracing::warn!(%error, "could not let finished runs go; trying again");
        }
        Ok(dead)
    }

    async fn repositories_of(&self, session: SessionId) -> Result<Vec<RepositoryKey>, Error> {
        self.sessions.repositories(session).await
    }

    async fn load(
        &self,
        repository: &RepositoryKey,
        since: Option<Revision>,
    ) -> Result<Snapshot, Error> {
        let snapshot = self.store.load(repository, since).await?;
        self.watches.dealt_with(repository, snapshot.head.revision);
        Ok(snapshot)
    }

    fn commit(&self, session: SessionId, batch: Vec<RepositoryCommit>) -> Commit {
        let (store, watches) = (Arc::clone(&self.store), Arc::clone(&self.watches));
        Commit::pending(async move {
            let revisions = batch.iter().map(|commit| {
                let changes = &commit.changes;
                // Somebody else's waiter starts, or there is nothing to wait for any more (one that
                // was cancelled hears of it a little later); or somebody waits, and whoever frees
                // the slot had better know: else that commit is a conflict first.
                let urgent = !changes.alive.is_empty()
                    || changes.remove
                    || changes.entries.iter().any(|entry| entry.is_queued());
                (commit.repository.clone(), changes.expected.next(), urgent)
            });
            let mut unanswered = Unanswered {
                revisions: revisions.collect(),
                session,
                watches,
            };
            let answer = store.commit(session, batch).await;
            unanswered.hear(&answer);
            answer
        })
    }

    async fn watch(&self, session: SessionId) -> Result<Box<dyn Watch>, Error> {
        if self.alive.iter().any(AbortHandle::is_finished) {
            let message = "what sends and hears hints has ended: the runtime that the driver was \
                           connected on was shut down, or there is a bug; connect anew";
            return Err(Error::new(ErrorKind::Internal, "watch", message));
        }
        Ok(self.watches.subscribe(session))
    }

    async fn list(
        &self,
        filter: ListFilter,
        after: Option<&RepositoryKey>,
        limit: usize,
    ) -> Result<Vec<(RepositoryKey, Head)>, Error> {
        self.store.list(filter, after, limit).await
    }

    async fn server_version(&self) -> Result<Option<String>, Error> {
        self.store.server_version().await.map(Some)
    }
}

/// Commits that are on their way. If their answer never comes, others still have to hear of them:
/// whoever sent them finds them done, and commits nothing more.
struct Unanswered {
    /// With whether somebody may wait for the word.
    revisions: Vec<(RepositoryKey, Revision, bool)>,
    session: SessionId,
    watches: Arc<Watches>,
}

impl Unanswered {
    fn hear(&mut self, answer: &BatchOutcome) {
        let outcomes = match answer {
            Ok(outcomes) => outcomes,
            Err(error) if error.kind() == ErrorKind::Indeterminate => return,
            Err(_) => return self.revisions.clear(),
        };
        for ((key, _, urgent), outcome) in self.revisions.drain(..).zip(outcomes) {
            if let CommitOutcome::Committed(snapshot) = outcome {
                let revision = snapshot.head.revision;
                self.watches.changed(self.session, &key, revision, urgent);
            }
        }
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        for (key, revision, urgent) in &self.revisions {
            self.watches
                .may_have_changed(self.session, key, *revision, *urgent);
        }
    }
}
