//! What a store has to provide. Five ideas: sessions, load, commit, watch, list.
//!
//! A driver stores, compares and notifies; it decides nothing. All it has to get right is to
//! replace rows *if the repository's head is still at the version that they were planned at,
//! and the sessions that they name are alive*, in one atomic step.

mod finding;
mod slots;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::error::{Error, ErrorKind};
use crate::identity::{SessionIdentity, SessionInfo};
use crate::name::RepositoryKey;
use crate::protocol::{Changes, Death};
use crate::state::{Head, Snapshot};
use crate::value::{Revision, SessionId, Timestamp, Version};

pub use finding::{Finding, Level};
pub use slots::check_slots;

/// A store that can keep the state of repositories.
///
/// Every method is one request to the store and may be called from many tasks at once. Errors
/// have the kind [`Unavailable`](crate::ErrorKind::Unavailable) only where certainly nothing
/// changed, and [`Indeterminate`](crate::ErrorKind::Indeterminate) where something may have. All
/// are cancel-safe in that a dropped future leaves the store consistent; a dropped `commit` may
/// or may not have happened.
///
/// # Deadlines
///
/// There are two. A driver bounds what it does itself (connecting, one attempt at one server) by
/// settings of its own. The manager bounds the request as a whole by
/// [`ManagerOptions::request_timeout`](crate::manager::ManagerOptions::request_timeout), drops the
/// future when that has passed, and takes the outcome of a commit for unknown. The shorter one
/// wins; a driver's own should be, since it can say what it waited for. Two are bounded more
/// closely: a renewal, and the opening of a session after the first, by a third of the session TTL.
/// A store in this process is never waited for in vain, and has no deadline.
///
/// # Threads
///
/// [`open_session`](Self::open_session), [`keep_alive`](Self::keep_alive) and
/// [`close_session`](Self::close_session) may be called from a separate thread with its own
/// current-thread runtime; tasks spawned there end with that thread. A call to
/// [`commit`](Self::commit) of a store in this process, and the first poll of
/// [`load`](Self::load), may come from the thread on which the manager is called. Everything is
/// polled with the runtime entered that the manager was opened on. `commit` of a store in this
/// process is called under the lock of the repository in the manager: it does not wait, and does not
/// call that manager.
///
/// # What a driver decides, and what not
///
/// It never decides who may run. It judges the conditions of a commit (version, sessions), and
/// refuses what no correct manager sends, so that a broken one cannot break the state:
///
/// - a head that does not count the queued and started entries that there would be
///   ([`RepositoryState::check`](crate::state::RepositoryState::check));
/// - more started entries than the limit of the head admits, by their weights, but for those that
///   were started before and those of [`Changes::adopted`] ([`check_slots`]);
/// - an entry that is there twice, or a repository that is there twice in a batch;
/// - counters that nobody counted ([`Changes::check_counters`]): they would reach the other
///   repositories through the floor of the store.
///
/// These are bugs of the caller: what a driver answers to them is free, as long as it writes
/// nothing.
#[async_trait]
pub trait Driver: fmt::Debug + Send + Sync + 'static {
    /// What the store can do, in figures. Constant for the life of the driver.
    fn descriptor(&self) -> Descriptor;

    /// Opens a session that lives for `ttl` and can be renewed. Its id is never used again. Who
    /// opens it is stored with it, and when, in the same write.
    ///
    /// # Errors
    /// `InvalidInput` when the store cannot keep such a TTL, and the store's own.
    async fn open_session(
        &self,
        ttl: SessionTtl,
        identity: &SessionIdentity,
    ) -> Result<SessionId, Error>;

    /// Renews both TTLs of a session from now on, by the store's clock.
    ///
    /// # Errors
    /// `SessionLost` once the session TTL has passed without a renewal, or the session was
    /// closed: it never comes back. Else the store's own.
    async fn keep_alive(&self, session: SessionId) -> Result<(), Error>;

    /// Ends a session at once, as if its session TTL had passed. The slots of durable runs
    /// still have the lease TTL.
    ///
    /// # Errors
    /// The store's own. A session that has ended already is no error.
    async fn close_session(&self, session: SessionId) -> Result<(), Error>;

    /// The sessions that are dead by the store's clock and may still have entries. Once here,
    /// a session stays dead. One that has no queued or started entries may be forgotten, since it
    /// gets no new ones.
    ///
    /// A store that nobody could reach for a while, or whose clock was set, gives every session a
    /// TTL from then on: only a process that could have renewed its session is dead.
    ///
    /// # Errors
    /// The store's own.
    async fn dead_sessions(&self) -> Result<Vec<(SessionId, Death)>, Error>;

    /// What is known of each of these sessions, in no particular order: alive, or dead and with
    /// queued or started entries. One that the store does not know, or of which it keeps nothing that
    /// can be understood, is left out. Changes nothing.
    ///
    /// # Errors
    /// The store's own.
    async fn sessions(
        &self,
        sessions: &[SessionId],
    ) -> Result<Vec<(SessionId, SessionInfo)>, Error>;

    /// The repositories in which a session has queued or started entries; perhaps also some
    /// in which it had.
    ///
    /// # Errors
    /// The store's own.
    async fn repositories_of(&self, session: SessionId) -> Result<Vec<RepositoryKey>, Error>;

    /// Reads a repository: what changed after `since` when the store still knows, else all.
    /// Linearizable: shows every commit that was answered before this was called.
    ///
    /// What changed since is only told where `since` is known to belong to the history of what is
    /// there now: a store that was restored from an older copy may have come to that revision, or
    /// beyond, with other content.
    ///
    /// # Errors
    /// `Corrupt` or `Incompatible` for a repository whose records cannot be understood, and
    /// the store's own.
    async fn load(
        &self,
        repository: &RepositoryKey,
        since: Option<Version>,
    ) -> Result<Snapshot, Error>;

    /// Commits to many repositories, each on its own condition and with its own outcome, in the
    /// order of `batch`; each repository is there at most once.
    ///
    /// Per repository, atomically: if it is at `changes.expected`, and `session` and all of
    /// `changes.alive` live, then write the head with a new and higher revision and a new stamp,
    /// write the entries with that revision and the store's time put in ([`Entry::stamp`]), or delete all.
    ///
    /// What it returns owns what it needs: a commit on its way outlives its caller. It is no async
    /// function because a store without round trips answers at once, in the caller's own time,
    /// and boxing that answer as a future would cost more than the commit.
    ///
    /// [`CommitOutcome::Committed`] carries what was written, stamped, as the part of the state
    /// that changed since the revision that it was planned at. After a removal it carries the
    /// whole state instead ([`Snapshot::since`] is `None`): a repository that does not exist, with
    /// the floor from which its revisions and tokens go on.
    ///
    /// A stamp is such that no commit to the same repository ever gets it again together with the
    /// same revision, even if the store is set back to an earlier state in between. Where the store
    /// can be restored from a copy, it has a random part.
    ///
    /// # Errors
    /// `SessionLost` when `session` is dead; nothing was written. Else the store's own, for
    /// the whole batch.
    ///
    /// [`Entry::stamp`]: crate::state::Entry::stamp
    fn commit(&self, session: SessionId, batch: Vec<RepositoryCommit>) -> Commit;

    /// Opens a stream of hints of what changes from now on. Commits by `session` may be left out,
    /// since their manager knows of them; that session need not live, and a reader passes the
    /// default, which no session ever has. A manager that has opened another session keeps its
    /// stream: commits by the new session are then told to it as well, and those by the old one,
    /// which cannot commit any more, are left out.
    ///
    /// # Errors
    /// The store's own.
    async fn watch(&self, session: SessionId) -> Result<Box<dyn Watch>, Error>;

    /// A page of the repositories that exist and pass `filter`, in the order of their keys: at
    /// most `limit`, those after `after`.
    ///
    /// # Errors
    /// The store's own.
    async fn list(
        &self,
        filter: ListFilter,
        after: Option<&RepositoryKey>,
        limit: usize,
    ) -> Result<Vec<(RepositoryKey, Head)>, Error>;

    /// What the clock shows that the times of entries are taken from: that of the store, or of this
    /// process where the store tells its clients no time, as etcd. By it runs are ended whose time is
    /// over, so the clocks of such processes have to agree as well as those times have to be kept.
    ///
    /// # Errors
    /// The store's own.
    async fn clock(&self) -> Result<Timestamp, Error> {
        Ok(SystemTime::now().into())
    }

    /// The version of the server's software in its own words, for people to read: `15.8`. `None`
    /// where there is no server, and from drivers that do not tell.
    ///
    /// # Errors
    /// The store's own.
    async fn server_version(&self) -> Result<Option<String>, Error> {
        Ok(None)
    }

    /// What an operator should know about the store: missing privileges, a server that will be
    /// full. Only reads. Empty where there is nothing to see to, and from drivers that do not look.
    ///
    /// # Errors
    /// The store's own.
    async fn diagnose(&self) -> Result<Vec<Finding>, Error> {
        Ok(Vec::new())
    }
}

/// Which repositories to list. A driver has to know each of these: one more would be a breaking
/// change, on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListFilter {
    /// All.
    All,
    /// Those where the next run waits although nothing is paused and there are as many slots left as it
    /// needs ([`Head::could_start`]): rare, and short-lived unless all that wait there have lost their
    /// owners.
    Startable,
    /// Those with runs that may wait, or hold their slots, only for some time. Asked for seldom: once by
    /// each manager, and after deaths, once per poll interval at most. May go through all heads.
    Timed,
}

impl ListFilter {
    /// Whether a repository with this head passes.
    #[must_use]
    pub fn passes(self, head: &Head) -> bool {
        match self {
            Self::All => true,
            Self::Startable => head.could_start(),
            Self::Timed => head.policy.as_ref().is_some_and(|policy| policy.timed > 0),
        }
    }
}

/// A stream of hints. They may come late, twice, merged, or not at all (the manager polls as
/// well); a stream that knows it missed some says [`WatchEvent::Missed`].
#[async_trait]
pub trait Watch: Send {
    /// Waits for the next hint. Cancel-safe: nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// The stream is broken and has to be opened anew.
    async fn next(&mut self) -> Result<WatchEvent, Error>;
}

/// Something may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// A repository is at this revision now, or a later one.
    Changed {
        /// Which.
        repository: RepositoryKey,
        /// At least this; tells a hint for what is known already.
        revision: Revision,
        /// Runs wait there although the limit admits one more ([`ListFilter::Startable`]), as
        /// far as the store sent along: those have lost their owners, and start only where a
        /// manager takes such runs. False where the store cannot tell; polling finds them then.
        startable: bool,
        /// What changed, when the store sent it along.
        snapshot: Option<Snapshot>,
    },
    /// A session has died, or more than one.
    SessionDied,
    /// Hints were lost: read whatever matters again.
    Missed,
}

/// What one commit to one repository is to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryCommit {
    /// To which repository.
    pub repository: RepositoryKey,
    /// What, on which condition.
    pub changes: Changes,
}

/// What came of a batch, one outcome for each of its repositories.
pub type BatchOutcome = Result<Vec<CommitOutcome>, Error>;

/// A batch on its way.
pub enum Commit {
    /// Nothing had to be waited for.
    Done(BatchOutcome),
    /// The answer comes with this.
    Pending(Pin<Box<dyn Future<Output = BatchOutcome> + Send>>),
}

impl Commit {
    /// A batch whose answer comes with `answer`.
    pub fn pending(answer: impl Future<Output = BatchOutcome> + Send + 'static) -> Self {
        Self::Pending(Box::pin(answer))
    }
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(outcome) => f.debug_tuple("Done").field(outcome).finish(),
            Self::Pending(_) => f.write_str("Pending"),
        }
    }
}

/// What came of the commit to one repository.
#[derive(Debug)]
#[non_exhaustive]
pub enum CommitOutcome {
    /// It is durable. What was written, stamped; see [`Driver::commit`].
    Committed(Snapshot),
    /// The repository was at another revision; nothing was written. With what has changed
    /// since the expected revision, if the driver could tell for less than a read of it costs.
    Conflict(Option<Snapshot>),
    /// A session of `changes.alive` is dead; nothing was written.
    SessionDead(SessionId),
    /// This repository cannot be written, and nothing was: its records cannot be understood, or
    /// the changes are such as no correct manager plans. The rest of the batch is not affected.
    Refused(Error),
    /// What an error for the whole batch says, for this repository alone: its part of the batch
    /// went to the store in a request of its own. `Indeterminate` where it may be written.
    Failed(Error),
}

/// How long a session outlives the last time it was renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionTtl {
    /// Until the process counts as dead.
    pub session: Duration,
    /// Until the slots of its durable runs are given up too; not below `session`.
    pub lease: Duration,
}

impl SessionTtl {
    /// A process that counts as dead after `session`, and whose durable runs keep their slots for
    /// `lease`.
    #[must_use]
    pub const fn new(session: Duration, lease: Duration) -> Self {
        Self { session, lease }
    }

    /// Whether a store can keep it that keeps none above `longest`: for a driver, before it opens
    /// a session.
    ///
    /// # Errors
    /// `InvalidInput` when one of the two is zero or above `longest`, or the lease TTL is below
    /// the session TTL.
    pub fn check(self, longest: Duration) -> Result<(), Error> {
        let wrong =
            |message: String| Err(Error::new(ErrorKind::InvalidInput, "open session", message));
        for (name, ttl) in [("session", self.session), ("lease", self.lease)] {
            if ttl.is_zero() {
                return wrong(format!("the {name} TTL must be longer than zero"));
            }
            if ttl > longest {
                let most = longest.as_secs();
                return wrong(format!(
                    "the {name} TTL is {} s; this store keeps none above {most} s",
                    ttl.as_secs()
                ));
            }
        }
        if self.lease < self.session {
            return wrong("the lease TTL must not be shorter than the session TTL".to_owned());
        }
        Ok(())
    }
}

/// How long finished runs can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// For this long after they ended.
    pub age: Duration,
    /// But at most this many a repository, the latest.
    pub per_repository: usize,
}

impl Retention {
    /// For `age` after a run ended, and the latest `per_repository` at most.
    #[must_use]
    pub const fn new(age: Duration, per_repository: usize) -> Self {
        Self {
            age,
            per_repository,
        }
    }
}

/// Where a store is: decides whether commits gather into batches, and whether requests have
/// deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Placement {
    /// In this process, without round trips: every request is answered at once, and is made in
    /// the caller's own time.
    InProcess,
    /// Behind a network. Requests have deadlines, commits of many repositories gather into
    /// batches, and the session is kept alive from a thread of its own, which no load of the
    /// application can starve.
    Remote {
        /// Batches worth having in flight at once, at least 1; what comes meanwhile gathers for
        /// the next one.
        batches_in_flight: usize,
    },
}

/// What a store can do, in figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Descriptor {
    /// What the driver is called in settings: `memory`, `etcd`, `postgresql`.
    pub name: &'static str,
    /// Where it is.
    pub placement: Placement,
    /// Most repositories in a batch.
    pub repositories_per_batch: usize,
    /// Most entries in a commit to one repository.
    pub entries_per_commit: usize,
    /// How long the slots of durable runs usually outlive their controller.
    pub lease_ttl: Duration,
    /// How long finished runs can be read.
    pub retention: Retention,
}

impl Descriptor {
    /// A store that takes one repository in a batch, with any number of entries.
    #[must_use]
    pub const fn new(
        name: &'static str,
        placement: Placement,
        lease_ttl: Duration,
        retention: Retention,
    ) -> Self {
        Self {
            name,
            placement,
            repositories_per_batch: 1,
            entries_per_commit: usize::MAX,
            lease_ttl,
            retention,
        }
    }

    /// The same in another place.
    #[must_use]
    pub const fn with_placement(self, placement: Placement) -> Self {
        Self { placement, ..self }
    }

    /// The same with so many repositories in a batch at most, and so many entries in a commit to
    /// one of them.
    #[must_use]
    pub const fn with_batches_of(self, repositories: usize, entries_of_each: usize) -> Self {
        Self {
            repositories_per_batch: repositories,
            entries_per_commit: entries_of_each,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ttls_that_no_store_can_keep_are_refused() {
        let [second, minute, hour] = [1, 60, 3_600].map(Duration::from_secs);
        SessionTtl::new(second, minute).check(minute).unwrap();
        for (session, lease, rule) in [
            (Duration::ZERO, minute, "session TTL must be longer"),
            (Duration::ZERO, Duration::ZERO, "session TTL must be longer"),
            (minute, second, "not be shorter than the session TTL"),
            (second, hour, "lease TTL is 3600 s"),
            (hour, hour, "session TTL is 3600 s"),
        ] {
            let refused = SessionTtl::new(session, lease).check(minute).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput);
            assert!(refused.to_string().contains(rule), "{refused}");
        }
    }
}
