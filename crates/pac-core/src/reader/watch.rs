//! What changes in a store, for somebody who keeps none of its state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::{Instant, sleep, sleep_until};

use crate::driver::{Driver, ListFilter, Watch, WatchEvent};
use crate::error::{Error, ErrorKind};
use crate::name::{PipelineRunKey, RepositoryKey, Uid};
use crate::state::{Entry, EntryState, Head, RunOutcome, Snapshot};
use crate::value::{FencingToken, Limit, Priority, Revision, SessionId, Timestamp};

/// How often everything is compared although no hint came.
const POLL: Duration = Duration::from_secs(10);

/// Repositories looked at in one request.
const PAGE: usize = 500;

const RECONNECT: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(50))
    .with_max_delay(LONGEST_RECONNECT)
    .with_jitter()
    .without_max_times();
const LONGEST_RECONNECT: Duration = Duration::from_secs(5);

/// Something that is otherwise than it was.
#[derive(Debug)]
#[non_exhaustive]
pub enum Change {
    /// A run took a step. Of several steps between two looks only the last is told; its times
    /// tell the others.
    Run(RunChange),
    /// A limit changed, or a repository is there that was not.
    Limit {
        /// The repository.
        repository: RepositoryKey,
        /// The limit in force.
        limit: Limit,
    },
    /// A repository was removed, and all its runs with it.
    Removed(RepositoryKey),
    /// The state of a repository cannot be understood; the others go on.
    Unreadable(Error),
    /// The store cannot be reached. What happens meanwhile is told when it is back.
    Interrupted(Error),
    /// The store is back.
    Resumed,
}

/// A step of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunChange {
    /// The repository.
    pub repository: RepositoryKey,
    /// The run.
    pub run: PipelineRunKey,
    /// Tells it apart from other runs of the same name.
    pub uid: Uid,
    /// Its urgency.
    pub priority: Priority,
    /// Where it stands now.
    pub step: RunStep,
    /// When it was queued, by the store's clock.
    pub queued_at: Option<Timestamp>,
    /// When it was started, by the store's clock.
    pub started_at: Option<Timestamp>,
    /// When it ended, by the store's clock.
    pub finished_at: Option<Timestamp>,
    /// The limit of its repository now.
    pub limit: Limit,
    /// How many hold a slot there now.
    pub running: u32,
    /// How many wait there now.
    pub queued: u32,
}

/// Where a run has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStep {
    /// It waits, in the name of this session if that lives.
    Queued {
        /// Whom its grant goes to.
        owner: Option<SessionId>,
    },
    /// It holds a slot.
    Started {
        /// The token of its grant.
        token: FencingToken,
        /// The session that holds it.
        session: SessionId,
        /// That session is dead: the slot is kept until the lease TTL has passed.
        orphaned: bool,
    },
    /// It ended.
    Finished(RunOutcome),
}

/// What is known of a repository: enough to tell what changed.
#[derive(Debug, Clone, Copy)]
struct Known {
    revision: Revision,
    limit: Limit,
}

impl Known {
    fn of(head: &Head) -> Self {
        Self {
            revision: head.revision,
            limit: head.limit,
        }
    }
}

/// The changes of a store from the moment on at which this was opened.
pub struct StoreWatch {
    driver: Arc<dyn Driver>,
    only: Option<RepositoryKey>,
    hints: Option<Box<dyn Watch>>,
    known: BTreeMap<RepositoryKey, Known>,
    /// Changed since they were last read. Taken out only when that has succeeded, so that a
    /// dropped future loses nothing.
    changed: BTreeSet<RepositoryKey>,
    /// Those of which it was told that they cannot be understood.
    unreadable: BTreeSet<RepositoryKey>,
    untold: VecDeque<Change>,
    next_poll: Instant,
    /// Since something failed, until something has been read again.
    backoff: Option<ExponentialBackoff>,
}

impl StoreWatch {
    pub(super) async fn open(
        driver: Arc<dyn Driver>,
        only: Option<RepositoryKey>,
    ) -> Result<Self, Error> {
        let mut watch = Self {
            hints: Some(driver.watch(SessionId::default()).await?),
            driver,
            only,
            known: BTreeMap::new(),
            changed: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            untold: VecDeque::new(),
            next_poll: Instant::now() + POLL,
            backoff: None,
        };
        // Hints come from before on, so nothing can fall between.
        let heads = watch.heads().await?;
        watch.known = heads
            .iter()
            .map(|(k, h)| (k.clone(), Known::of(h)))
            .collect();
        Ok(watch)
    }

    /// Waits for the next change. Goes on after an error of the store as soon as that is back.
    /// Cancel-safe.
    ///
    /// # Errors
    /// Those that trying again does not mend: `Unauthorised`, `Config` and the like.
    pub async fn next(&mut self) -> Result<Change, Error> {
        loop {
            if let Some(change) = self.untold.pop_front() {
                return Ok(change);
            }
            match self.step().await {
                Err(error) if is_passing(error.kind()) => self.interrupted(error),
                done => done?,
            }
        }
    }

    /// One request, or one wait.
    async fn step(&mut self) -> Result<(), Error> {
        if self.hints.is_none() {
            return self.reconnect().await;
        }
        if let Some(repository) = self.changed.first().cloned() {
            self.read(&repository).await?;
            self.changed.remove(&repository);
            return Ok(());
        }
        self.resumed();
        let Some(hints) = self.hints.as_mut().filter(|_| self.untold.is_empty()) else {
            return Ok(());
        };
        let hint = tokio::select! {
            hint = hints.next() => hint,
            () = sleep_until(self.next_poll) => Ok(WatchEvent::Missed),
        };
        let hint = match hint {
            Ok(hint) => hint,
            Err(broken) => {
                self.interrupted(broken);
                return Ok(());
            }
        };
        match hint {
            WatchEvent::Changed {
                repository,
                revision,
                ..
            } => {
                let known = self.known.get(&repository).map(|known| known.revision);
                let is_ours = self.only.as_ref().is_none_or(|only| *only == repository);
                if is_ours && known.is_none_or(|known| known < revision) {
                    self.changed.insert(repository);
                }
                Ok(())
            }
            WatchEvent::Missed => self.compare().await,
            WatchEvent::SessionDied => Ok(()),
        }
    }

    fn interrupted(&mut self, error: Error) {
        self.hints = None;
        if self.backoff.is_none() {
            self.backoff = Some(RECONNECT.build());
            self.untold.push_back(Change::Interrupted(error));
        }
    }

    async fn reconnect(&mut self) -> Result<(), Error> {
        if let Some(backoff) = &mut self.backoff {
            sleep(backoff.next().unwrap_or(LONGEST_RECONNECT)).await;
        }
        let hints = self.driver.watch(SessionId::default()).await?;
        self.compare().await?;
        self.hints = Some(hints);
        Ok(())
    }

    /// Everything works again, if it did not.
    fn resumed(&mut self) {
        if self.backoff.take().is_some() {
            self.untold.push_back(Change::Resumed);
        }
    }

    /// Finds what changed, whatever was hinted.
    async fn compare(&mut self) -> Result<(), Error> {
        if let Some(only) = &self.only {
            // Reading it costs no more than asking whether it changed.
            self.changed.insert(only.clone());
            self.next_poll = Instant::now() + POLL;
            return Ok(());
        }
        let heads = self.heads().await?;
        let gone = self.known.keys().filter(|key| !heads.contains_key(*key));
        self.changed.extend(gone.cloned());
        for (repository, head) in heads {
            let known = self.known.get(&repository);
            if known.is_none_or(|known| known.revision != head.revision) {
                self.changed.insert(repository);
            }
        }
        self.next_poll = Instant::now() + POLL;
        Ok(())
    }

    async fn heads(&self) -> Result<BTreeMap<RepositoryKey, Head>, Error> {
        let mut heads = BTreeMap::new();
        if let Some(only) = &self.only {
            let snapshot = self.driver.load(only, None).await?;
            if snapshot.exists {
                heads.insert(only.clone(), snapshot.head);
            }
            return Ok(heads);
        }
        loop {
            let after = heads.last_key_value().map(|(key, _)| key);
            let page = self.driver.list(ListFilter::All, after, PAGE).await?;
            let last = page.len() < PAGE;
            heads.extend(page);
            if last {
                return Ok(heads);
            }
        }
    }

    async fn read(&mut self, repository: &RepositoryKey) -> Result<(), Error> {
        let known = self.known.get(repository).copied();
        let since = known.map(|known| known.revision);
        match self.driver.load(repository, since).await {
            Ok(snapshot) => {
                self.resumed();
                self.unreadable.remove(repository);
                self.tell(repository, known, snapshot);
                Ok(())
            }
            Err(error) if is_of_one(error.kind()) => {
                if self.unreadable.insert(repository.clone()) {
                    self.untold.push_back(Change::Unreadable(error));
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn tell(&mut self, repository: &RepositoryKey, known: Option<Known>, snapshot: Snapshot) {
        if !snapshot.exists {
            if self.known.remove(repository).is_some() {
                self.untold.push_back(Change::Removed(repository.clone()));
            }
            return;
        }
        let head = snapshot.head;
        self.known.insert(repository.clone(), Known::of(&head));
        if known.is_none_or(|known| known.limit != head.limit) {
            self.untold.push_back(Change::Limit {
                repository: repository.clone(),
                limit: head.limit,
            });
        }
        let since = known.map(|known| known.revision).unwrap_or_default();
        let mut changed = snapshot.entries;
        // All come where the store does not know any more what changed.
        changed.retain(|entry| entry.revision > since);
        changed.sort_by_key(|entry| (entry.revision, !entry.is_finished(), entry.ticket));
        let changes = changed
            .iter()
            .map(|entry| RunChange::of(repository, &head, entry));
        self.untold.extend(changes.map(Change::Run));
    }
}

impl RunChange {
    fn of(repository: &RepositoryKey, head: &Head, entry: &Entry) -> Self {
        Self {
            repository: repository.clone(),
            run: entry.run.clone(),
            uid: entry.uid.clone(),
            priority: entry.priority,
            step: match entry.state {
                EntryState::Queued { owner } => RunStep::Queued { owner },
                EntryState::Started {
                    token,
                    session,
                    orphaned,
                } => RunStep::Started {
                    token,
                    session,
                    orphaned,
                },
                EntryState::Finished { outcome, .. } => RunStep::Finished(outcome),
            },
            queued_at: entry.queued.at(),
            started_at: entry.started.at(),
            finished_at: entry.finished.at(),
            limit: head.limit,
            running: head.started,
            queued: head.queued,
        }
    }
}

impl fmt::Debug for StoreWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreWatch")
            .field("only", &self.only)
            .field("repositories", &self.known.len())
            .finish_non_exhaustive()
    }
}

/// Whether it may be over soon, by itself.
fn is_passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::Indeterminate)
}

/// Whether it says something of one repository alone.
fn is_of_one(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Corrupt | ErrorKind::Incompatible)
}
