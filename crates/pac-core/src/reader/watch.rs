//! Reports the changes in a store, and keeps no more of its state than that needs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::driver::{Driver, ListFilter, Watch, WatchEvent};
use crate::error::{Error, ErrorKind};
use crate::name::{PipelineRunKey, RepositoryKey, Uid};
use crate::pauses::Pauses;
use crate::state::{Entry, EntryState, Head, Moment, Owner, RunOutcome, Snapshot, Terms};
use crate::status::Paused;
use crate::value::{FencingToken, Limit, Priority, SessionId, Timestamp, Version};

/// How often the heads of all watched repositories are compared even if no hint came.
const POLL: Duration = Duration::from_secs(10);

/// The number of repositories read in one request.
const PAGE: usize = 500;

/// Between attempts to reach the store again: the first pause.
const FIRST_RECONNECT: Duration = Duration::from_millis(50);
/// The longest of these, without its jitter: the store's return is noticed within half a second.
const LONGEST_RECONNECT: Duration = Duration::from_millis(250);

/// A change in a store, or in the connection to it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Change {
    /// A run took a step. If it took several between two reads, only the last is reported; the
    /// times tell of the others. But that it was started is reported before that it was asked to end.
    Run(RunChange),
    /// A limit or its owner changed, or a repository is new.
    Limit {
        /// The repository.
        repository: RepositoryKey,
        /// The limit in force.
        limit: Limit,
        /// Who has set it; `None` if nobody did.
        owner: Option<Owner>,
    },
    /// A repository was paused, for another reason than before, or goes on.
    Pause {
        /// The repository.
        repository: RepositoryKey,
        /// The pause; `None` once it is over.
        pause: Option<Paused>,
    },
    /// A repository was removed, and all its runs with it.
    Removed(RepositoryKey),
    /// The state of a repository cannot be understood; the others go on.
    Unreadable(Error),
    /// The store cannot be reached. Changes made meanwhile are reported once it is back.
    Interrupted(Error),
    /// The store can be reached again.
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
    /// Its state now.
    pub step: RunStep,
    terms: Option<Box<Terms>>,
    /// When it was queued, by the store's clock.
    pub queued_at: Option<Timestamp>,
    /// When it was started, by the store's clock.
    pub started_at: Option<Timestamp>,
    /// When it ended, by the store's clock.
    pub finished_at: Option<Timestamp>,
    /// The limit of its repository now.
    pub limit: Limit,
    /// The number of runs that hold a slot there now.
    pub running: u32,
    /// The number of runs that wait there now.
    pub queued: u32,
}

/// The state that a run has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStep {
    /// It waits.
    Queued {
        /// The session that its grant goes to; `None` if that session is dead and no other has
        /// admitted the run since.
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

/// The part of a repository's last seen state that tells whether it changed.
#[derive(Debug, Clone)]
struct Known {
    version: Version,
    limit: Limit,
    owner: Option<Owner>,
    pause: Option<Paused>,
    last_token: FencingToken,
}

impl Known {
    fn of(head: &Head) -> Self {
        Self {
            version: head.version(),
            limit: head.limit,
            owner: head.owner(),
            pause: Paused::of(head),
            last_token: head.last_token,
        }
    }
}

/// A stream of the changes in a store, starting when this was opened.
pub struct StoreWatch {
    driver: Arc<dyn Driver>,
    only: Option<RepositoryKey>,
    hints: Option<Box<dyn Watch>>,
    known: BTreeMap<RepositoryKey, Known>,
    /// Repositories to read again. Each is removed only once that read has succeeded, so that
    /// dropping a future loses nothing.
    changed: BTreeSet<RepositoryKey>,
    /// The repositories that were reported as unreadable.
    unreadable: BTreeSet<RepositoryKey>,
    untold: VecDeque<Change>,
    next_poll: Instant,
    /// Set when a request fails, until one succeeds again.
    pauses: Option<Pauses>,
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
            pauses: None,
        };
        // The hints were opened before, so no change between this read and the first hint is
        // lost.
        let heads = heads(&*watch.driver, watch.only.as_ref()).await?;
        watch.known = heads
            .iter()
            .map(|(k, h)| (k.clone(), Known::of(h)))
            .collect();
        Ok(watch)
    }

    /// Waits for the next change. If the store fails, keeps reconnecting until it is back.
    /// Cancel-safe.
    ///
    /// # Errors
    /// Those that a retry does not cure: `Unauthorised`, `Config` and the like.
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

    /// Makes one request, or waits for one hint.
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
                let known = self.known.get(&repository);
                let is_ours = self.only.as_ref().is_none_or(|only| *only == repository);
                if is_ours && known.is_none_or(|known| known.version.revision < revision) {
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
        if self.pauses.is_none() {
            self.pauses = Some(Pauses::new(FIRST_RECONNECT, LONGEST_RECONNECT));
            self.untold.push_back(Change::Interrupted(error));
        }
    }

    async fn reconnect(&mut self) -> Result<(), Error> {
        if let Some(pauses) = &mut self.pauses {
            sleep(pauses.grow()).await;
        }
        let hints = self.driver.watch(SessionId::default()).await?;
        self.compare().await?;
        self.hints = Some(hints);
        Ok(())
    }

    /// Reports that the store can be reached again, if it could not.
    fn resumed(&mut self) {
        if self.pauses.take().is_some() {
            self.untold.push_back(Change::Resumed);
        }
    }

    /// Marks the repositories that changed as read from the store, without relying on hints.
    async fn compare(&mut self) -> Result<(), Error> {
        if let Some(only) = &self.only {
            // Reading this one repository costs no more than asking whether it changed.
            self.changed.insert(only.clone());
            self.next_poll = Instant::now() + POLL;
            return Ok(());
        }
        let heads = heads(&*self.driver, None).await?;
        let gone = self.known.keys().filter(|key| !heads.contains_key(*key));
        self.changed.extend(gone.cloned());
        for (repository, head) in heads {
            let known = self.known.get(&repository);
            if known.is_none_or(|known| known.version != head.version()) {
                self.changed.insert(repository);
            }
        }
        self.next_poll = Instant::now() + POLL;
        Ok(())
    }

    async fn read(&mut self, repository: &RepositoryKey) -> Result<(), Error> {
        let known = self.known.get(repository).cloned();
        let since = known.as_ref().map(|known| known.version);
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
        let now = Known::of(&head);
        let before = known.as_ref();
        let same = |before: &Known| (before.limit, before.owner) == (now.limit, now.owner);
        if !before.is_some_and(same) {
            self.untold.push_back(Change::Limit {
                repository: repository.clone(),
                limit: now.limit,
                owner: now.owner,
            });
        }
        if before.and_then(|before| before.pause.as_ref()) != now.pause.as_ref() {
            self.untold.push_back(Change::Pause {
                repository: repository.clone(),
                pause: now.pause.clone(),
            });
        }
        self.known.insert(repository.clone(), now);
        let told = known.as_ref().map(|known| known.last_token);
        let mut since = known.map(|known| known.version).unwrap_or_default();
        if snapshot.since.is_none() && head.version().is_rewound_from(since) {
            // The store has gone back in time: which of its runs are news, nobody can tell.
            since = Version::default();
        }
        let mut changed = snapshot.entries;
        // A store that no longer knows what changed since a revision sends all entries.
        changed.retain(|entry| entry.revision > since.revision);
        changed.sort_by_key(|entry| (entry.revision, !entry.is_finished(), entry.ticket));
        for entry in &changed {
            let change = RunChange::of(repository, &head, entry);
            if change.was_asked_since(told) {
                self.untold
                    .push_back(Change::Run(change.before_it_was_asked()));
            }
            self.untold.push_back(Change::Run(change));
        }
    }
}

/// The heads of the watched repositories that exist. No method: a future that borrows a whole
/// [`StoreWatch`] could not be sent to another thread.
async fn heads(
    driver: &dyn Driver,
    only: Option<&RepositoryKey>,
) -> Result<BTreeMap<RepositoryKey, Head>, Error> {
    let mut heads = BTreeMap::new();
    if let Some(only) = only {
        let snapshot = driver.load(only, None).await?;
        if snapshot.exists {
            heads.insert(only.clone(), snapshot.head);
        }
        return Ok(heads);
    }
    loop {
        let after = heads.last_key_value().map(|(key, _)| key);
        let page = driver.list(ListFilter::All, after, PAGE).await?;
        let last = page.len() < PAGE;
        heads.extend(page);
        if last {
            return Ok(heads);
        }
    }
}

impl RunChange {
    /// What it asked for beyond a slot, which slots it has, and when it was asked to end.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        Terms::or_none(self.terms.as_deref())
    }

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
            terms: entry.terms.clone(),
            queued_at: entry.queued.at(),
            started_at: entry.started.at(),
            finished_at: entry.finished.at(),
            limit: head.limit,
            running: head.started,
            queued: head.queued,
        }
    }
}

impl RunChange {
    /// Whether it holds a slot that was granted after the last grant which was told, and was asked to end
    /// already.
    fn was_asked_since(&self, told: Option<FencingToken>) -> bool {
        let is_new = match self.step {
            RunStep::Started { token, .. } => told.is_none_or(|told| token > told),
            _ => false,
        };
        is_new && self.terms().asked != Moment::NEVER
    }

    fn before_it_was_asked(&self) -> Self {
        let mut before = self.clone();
        if let Some(terms) = &mut before.terms {
            terms.asked = Moment::NEVER;
        }
        before
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

/// Whether a failure of this kind may pass without intervention.
fn is_passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::Indeterminate)
}

/// Whether a failure of this kind concerns one repository only.
fn is_of_one(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Corrupt | ErrorKind::Incompatible)
}
