//! [`PostgresDriver`]: the `Driver` trait over the sessions, the store and the watches.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pac_core::driver::{
    BatchOutcome, Commit, CommitOutcome, Descriptor, Driver, Finding, ListFilter, Placement,
    RepositoryCommit, SessionTtl, Watch,
};
use pac_core::hints::Reached;
use pac_core::protocol::Death;
use pac_core::state::{Head, Snapshot};
use pac_core::{
    Error, ErrorKind, RepositoryKey, SessionId, SessionIdentity, SessionInfo, Timestamp, Version,
};
use tokio::time::timeout;

use crate::PostgresOptions;
use crate::client::Client;
use crate::lane::{By, Lane, Started};
use crate::schema::{self, Isolation};
use crate::sessions::Sessions;
use crate::snapshots::{self, Oldest, Snapshots};
use crate::store::Store;
use crate::watch::Watches;

/// How long one look for dead sessions may spend on letting finished runs go: less than its caller
/// waits for it.
const TIDY_FOR: Duration = Duration::from_secs(3);
/// How long closing a session waits for hints to be sent.
const LAST_HINTS: Duration = Duration::from_secs(1);

/// A store in a schema of a PostgreSQL database.
///
/// | operation | round trips | durable writes |
/// | --- | --- | --- |
/// | commit of any number of repositories | 1 | 1 |
/// | load, list, sessions, repositories of a session | 1 | none |
/// | open, renew or close a session | 1 | 1 |
/// | look for dead sessions | 1 | none, unless a session has died |
///
/// Looking for dead sessions also notes, in one row for all processes, that the server was seen: at
/// most every 2.25 s where the shortest session TTL is 15 s, without waiting for the disk.
///
/// Dropping it closes its connections.
#[derive(Debug)]
pub struct PostgresDriver {
    options: PostgresOptions,
    sessions: Sessions,
    store: Arc<Store>,
    watches: Arc<Watches>,
    snapshots: Snapshots,
    notified: bool,
    client: Client,
    lane: Lane,
}

impl PostgresDriver {
    /// Connects, and creates the schema or brings it up to this version where
    /// [`migrate`](PostgresOptions::migrate) allows that.
    ///
    /// A thread of the driver keeps one connection, on which it sends and hears hints and renews
    /// sessions. The others, for requests, live on the runtime that this is called on.
    ///
    /// Waits for a server that has no room for another connection, as long as
    /// [`full_server_timeout`](PostgresOptions::full_server_timeout) says.
    ///
    /// # Errors
    /// `Config` for settings that cannot be used and for a database or server that is not as they
    /// say, `Unauthorised` for a role that may not connect or create what is missing,
    /// `Incompatible` for a schema of a newer version, or of an older one that may not be changed,
    /// `TooManyClients` when the server has no room for it, `Unavailable` when no server can be
    /// reached that takes writes. Each says what to do about it.
    pub async fn connect(options: PostgresOptions) -> Result<Self, Error> {
        options.check()?;
        let opening = Opening::start(&options).await?;
        let usual = schema::prepare(&opening.client, options.migrate).await?;
        opening.at_read_committed(usual, options).await
    }

    /// Connects to a schema that is there, and changes nothing; `None` when there is none.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect), and `Incompatible` for a schema of an older version.
    pub async fn connect_existing(options: PostgresOptions) -> Result<Option<Self>, Error> {
        options.check()?;
        let opening = Opening::start(&options).await?;
        match schema::is_there(&opening.client).await? {
            Some(usual) => {
                let driver = opening.at_read_committed(usual, options);
                driver.await.map(Some)
            }
            None => Ok(None),
        }
    }

    async fn tidy(&self) {
        if let Err(error) = self.store.purge().await {
            tracing::warn!(%error, "could not let finished runs go; trying again");
        }
        if let Err(error) = self.snapshots.watch(&self.client).await {
            tracing::debug!(%error, "could not look for old snapshots");
        }
    }

    /// Connections like those of this driver, for others that read or write beside it.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Whether notifications of PostgreSQL got through when this driver connected. If not, as
    /// behind a proxy that pools transactions, the driver polls for changes of other processes.
    #[must_use]
    pub fn is_notified(&self) -> bool {
        self.notified
    }

    /// A finding for the transaction that has kept a snapshot of the database for longest, if that
    /// is for some minutes: it names the backend, its application and the cure. A role that may not
    /// read all statistics (`pg_read_all_stats`) sees those of its own alone. One request.
    ///
    /// # Errors
    /// The server's own.
    pub async fn old_snapshots(&self) -> Result<Vec<Finding>, Error> {
        let oldest = snapshots::oldest(&self.client).await?;
        Ok(oldest.iter().map(Oldest::finding).collect())
    }
}

#[async_trait]
impl Driver for PostgresDriver {
    fn descriptor(&self) -> Descriptor {
        // The server writes one to its disk while the next one is sent; more would only make the
        // batches of each flush smaller. The rest of the pool is for reading.
        let placement = Placement::Remote {
            batches_in_flight: (self.options.max_connections / 2).clamp(1, 2),
        };
        let (lease_ttl, retention) = (self.options.lease_ttl, self.options.retention);
        Descriptor::new("postgresql", placement, lease_ttl, retention).with_batches_of(64, 1_000)
    }

    async fn open_session(
        &self,
        ttl: SessionTtl,
        identity: &SessionIdentity,
    ) -> Result<SessionId, Error> {
        self.sessions.open(ttl, identity).await
    }

    async fn keep_alive(&self, session: SessionId) -> Result<(), Error> {
        self.sessions.renew(session).await
    }

    async fn close_session(&self, session: SessionId) -> Result<(), Error> {
        self.sessions.close(session).await?;
        self.watches.session_died();
        // The process may end now: others need not wait for their poll to hear of what it did last.
        match timeout(LAST_HINTS, self.watches.send()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the last hints could not be sent"),
            Err(_) => tracing::debug!("the last hints were not sent in time"),
        }
        Ok(())
    }

    async fn dead_sessions(&self) -> Result<Vec<(SessionId, Death)>, Error> {
        let (dead, fresh) = self.sessions.dead().await?;
        if fresh {
            self.watches.session_died();
        }
        self.client.trim();
        // The dead must not wait for it.
        let tidied = timeout(TIDY_FOR, self.tidy()).await;
        if tidied.is_err() {
            tracing::debug!("finished runs are not let go yet");
        }
        Ok(dead)
    }

    async fn sessions(
        &self,
        sessions: &[SessionId],
    ) -> Result<Vec<(SessionId, SessionInfo)>, Error> {
        self.sessions.info(sessions).await
    }

    async fn repositories_of(&self, session: SessionId) -> Result<Vec<RepositoryKey>, Error> {
        self.sessions.repositories(session).await
    }

    async fn load(
        &self,
        repository: &RepositoryKey,
        since: Option<Version>,
    ) -> Result<Snapshot, Error> {
        let snapshot = self.store.load(repository, since).await?;
        self.watches.dealt_with(repository, snapshot.head.revision);
        Ok(snapshot)
    }

    fn commit(&self, session: SessionId, batch: Vec<RepositoryCommit>) -> Commit {
        let (store, watches) = (Arc::clone(&self.store), Arc::clone(&self.watches));
        Commit::pending(async move {
            let commits = batch.iter().map(|commit| {
                let changes = &commit.changes;
                // Urgent: the run of another session starts; or the repository goes, so that its
                // waiters end; or a run waits, and the process that frees the slot has to know, or
                // else its commit is a conflict first. A waiter that was cancelled may learn of it
                // a little later.
                let urgent = !changes.alive.is_empty()
                    || changes.remove
                    || changes.entries.iter().any(|entry| entry.is_queued());
                let reached = Reached {
                    revision: changes.expected.revision.next(),
                    ..Reached::head(&changes.head)
                };
                (commit.repository.clone(), reached, urgent)
            });
            let mut unanswered = Unanswered {
                commits: commits.collect(),
                session,
                watches,
            };
            let answer = store.commit(session, batch).await;
            unanswered.hear(&answer);
            answer
        })
    }

    async fn watch(&self, session: SessionId) -> Result<Box<dyn Watch>, Error> {
        if !self.lane.is_alive() {
            let message = "the thread that sends and hears hints has ended, which is a bug; \
                           connect anew";
            return Err(Error::new(ErrorKind::Internal, "watch", message));
        }
        self.watches.subscribe(session).await
    }

    async fn list(
        &self,
        filter: ListFilter,
        after: Option<&RepositoryKey>,
        limit: usize,
    ) -> Result<Vec<(RepositoryKey, Head)>, Error> {
        self.store.list(filter, after, limit).await
    }

    async fn clock(&self) -> Result<Timestamp, Error> {
        self.store.now().await
    }

    async fn diagnose(&self) -> Result<Vec<Finding>, Error> {
        let missing = schema::missing_privileges(&self.client).await?;
        let sessions = match missing {
            None => self.sessions.diagnose().await?,
            // It may be the one that this needs.
            Some(_) => None,
        };
        let open = schema::open_to_all(&self.client).await?;
        let old = self.old_snapshots().await?;
        let key = self.client.exposed_key().await;
        let found = missing.into_iter().chain(sessions).chain(open).chain(old);
        let foreign = self.watches.foreign();
        Ok(found.chain(key).chain(foreign).collect())
    }

    async fn server_version(&self) -> Result<Option<String>, Error> {
        self.store.server_version().await.map(Some)
    }
}

/// A driver that is being opened: its link is up, and nothing else uses it yet.
struct Opening {
    client: Client,
    watches: Arc<Watches>,
    started: Started,
}

impl Opening {
    async fn start(options: &PostgresOptions) -> Result<Self, Error> {
        let client = Client::new(options)?;
        let watches = Arc::new(Watches::new(client.clone()));
        let started = Lane::start(client.clone(), Arc::clone(&watches)).await?;
        Ok(Self {
            client,
            watches,
            started,
        })
    }

    /// Commits lock first and read later, which works at READ COMMITTED alone: where another
    /// isolation is usual, each connection asks for it.
    async fn at_read_committed(
        self,
        usual: Isolation,
        mut options: PostgresOptions,
    ) -> Result<PostgresDriver, Error> {
        if usual == Isolation::ReadCommitted {
            return self.finish(options).await;
        }
        drop(self);
        options.sets_isolation = true;
        let opening = Self::start(&options).await;
        let opening = opening.map_err(|error| schema::with_isolation(&options, error))?;
        schema::check_isolation(&opening.client).await?;
        opening.finish(options).await
    }

    async fn finish(self, options: PostgresOptions) -> Result<PostgresDriver, Error> {
        let Self {
            client,
            watches,
            started,
        } = self;
        let notified = watches.try_to_listen().await?;
        let by = if notified {
            // A notification has come back, so connections keep their state: statements may have
            // names.
            client.name_statements();
            By::Notifications
        } else {
            tracing::warn!(
                "notifications of PostgreSQL do not get through, as behind a proxy that pools \
                 transactions; polling for changes instead, which takes a little longer"
            );
            watches.poll_from_now_on();
            By::Polling
        };
        Ok(PostgresDriver {
            sessions: Sessions::new(client.clone()),
            store: Arc::new(Store::new(client.clone())),
            lane: started.go_on(by),
            client,
            watches,
            snapshots: Snapshots::new(),
            notified,
            options,
        })
    }
}

/// Commits that were sent and are not answered. If no answer comes, dropping this sends their hints
/// all the same: the process that sent them will find them done by reading, and commit nothing
/// more.
struct Unanswered {
    /// Each with the state that the commit makes, and whether its hint is urgent.
    commits: Vec<(RepositoryKey, Reached, bool)>,
    session: SessionId,
    watches: Arc<Watches>,
}

impl Unanswered {
    fn hear(&mut self, answer: &BatchOutcome) {
        let outcomes = match answer {
            Ok(outcomes) => outcomes,
            Err(error) if error.kind() == ErrorKind::Indeterminate => return,
            Err(_) => return self.commits.clear(),
        };
        for ((key, _, urgent), outcome) in self.commits.drain(..).zip(outcomes) {
            if let CommitOutcome::Committed(snapshot) = outcome {
                let reached = Reached::head(&snapshot.head);
                self.watches.changed(self.session, &key, reached, urgent);
            }
        }
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        for (key, reached, urgent) in &self.commits {
            self.watches
                .may_have_changed(self.session, key, *reached, *urgent);
        }
    }
}
