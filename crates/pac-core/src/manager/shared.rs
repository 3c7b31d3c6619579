//! What all parts of a manager share.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use dashmap::DashMap;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, broadcast, oneshot};
use tokio::time::timeout;

use super::event::{Event, GrantQueue};
use super::health::Pulse;
use super::lane::{Duty, Lanes};
use super::options::ManagerOptions;
use super::repository::Repository;
use super::request::{Answer, Reply, Request};
use super::session::Session;
use super::waiting::{Notice, Place};
use crate::driver::{BatchOutcome, Commit, Descriptor, Driver};
use crate::error::{Error, ErrorKind};
use crate::hash::RandomState;
use crate::name::{PipelineRunKey, RepositoryKey};
use crate::protocol::{Command, Issuer};
use crate::state::{Entry, Snapshot};
use crate::value::{Revision, SessionId};

pub(super) struct Shared {
    pub(super) driver: Arc<dyn Driver>,
    pub(super) descriptor: Descriptor,
    pub(super) options: ManagerOptions,
    pub(super) session: Session,
    pub(super) repositories: DashMap<RepositoryKey, Arc<Repository>, RandomState>,
    pub(super) lanes: Lanes,
    pub(super) grants: GrantQueue,
    /// `None` is the end.
    pub(super) events: broadcast::Sender<Option<Event>>,
    pub(super) pulse: Arc<Pulse>,
    /// A session may have died.
    pub(super) death: Notify,
    /// Set when the last handle was dropped.
    pub(super) gone: AtomicBool,
    /// Reads of repositories that may be on their way at once.
    loads: Semaphore,
    /// Where the manager was opened, and its work is done.
    runtime: Handle,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyManager")
            .field("driver", &self.descriptor.name)
            .field("session", &self.session.id())
            .field("repositories", &self.repositories.len())
            .finish_non_exhaustive()
    }
}

/// Shards of the map of repositories, a power of two. Many more than cores, so that two
/// repositories in use at the same moment seldom share one.
const SHARDS: usize = 256;

/// A store that was away makes every repository be read again: not all at once.
const LOADS: usize = 64;

impl Shared {
    pub(super) fn new(driver: Arc<dyn Driver>, options: ManagerOptions, session: Session) -> Self {
        let descriptor = driver.descriptor();
        Self {
            driver,
            descriptor,
            options,
            session,
            repositories: DashMap::with_hasher_and_shard_amount(RandomState::default(), SHARDS),
            lanes: Lanes::new(descriptor.batches_in_flight),
            grants: GrantQueue::default(),
            events: broadcast::Sender::new(super::event::EVENTS),
            pulse: Arc::default(),
            death: Notify::new(),
            gone: AtomicBool::new(false),
            loads: Semaphore::new(LOADS),
            runtime: Handle::current(),
        }
    }

    pub(super) fn issuer(&self) -> Issuer {
        Issuer {
            session: self.session.id(),
            // A manager that closes leaves what it disowns to others.
            takes_ownerless: self.grants.is_read() && !self.is_gone(),
        }
    }

    pub(super) fn repository(&self, key: &RepositoryKey) -> Arc<Repository> {
        if let Some(known) = self.repositories.get(key) {
            return Arc::clone(&known);
        }
        let new = || Arc::new(Repository::new(key.clone()));
        Arc::clone(&self.repositories.entry(key.clone()).or_insert_with(new))
    }

    /// All repositories known to this manager now.
    pub(super) fn known_repositories(&self) -> Vec<Arc<Repository>> {
        self.repositories
            .iter()
            .map(|known| Arc::clone(&known))
            .collect()
    }

    /// Puts a command in that nobody waits for. It is tried until it succeeds.
    pub(super) fn send(self: &Arc<Self>, repository: &Arc<Repository>, command: Command) {
        let request = std::iter::once(Request::new(command, None));
        let lead = repository.desk().submit(request);
        self.follow_up(repository, lead);
    }

    /// Puts a command in, and says what comes of it. It is carried out, or fails, whether or
    /// not the future is polled; only an admission that nobody awaits any more is taken back.
    pub(super) fn submit(
        self: &Arc<Self>,
        repository: &Arc<Repository>,
        command: Command,
    ) -> Answer {
        let (reply, answer) = oneshot::channel();
        let request = std::iter::once(Request::new(command, Some(reply)));
        let lead = repository.desk().submit(request);
        if lead {
            self.attend(Duty::new(Arc::clone(repository)));
        }
        answer
    }

    /// Puts commands in that are planned together and in this order.
    pub(super) fn submit_all(
        self: &Arc<Self>,
        repository: &Arc<Repository>,
        commands: Vec<Command>,
    ) -> Vec<Answer> {
        let channels = commands
            .into_iter()
            .map(|command| (command, oneshot::channel()));
        let (requests, answers): (Vec<_>, Vec<_>) = channels
            .map(|(command, (reply, answer))| (Request::new(command, Some(reply)), answer))
            .unzip();
        let lead = repository.desk().submit(requests.into_iter());
        if lead {
            self.attend(Duty::new(Arc::clone(repository)));
        }
        answers
    }

    /// Has a repository seen to in a task, if its desk has said that the caller has to.
    pub(super) fn follow_up(self: &Arc<Self>, repository: &Arc<Repository>, lead: bool) {
        if lead {
            self.attend_later(Duty::new(Arc::clone(repository)));
        }
    }

    /// Has a repository read again, now if that matters to anybody, else when it is next used.
    pub(super) fn look_again(self: &Arc<Self>, repository: &Arc<Repository>) {
        let mut desk = repository.desk();
        desk.recheck = true;
        let lead = desk.needs_attention();
        drop(desk);
        self.follow_up(repository, lead);
    }

    /// Has a repository read again if it is at a later revision than is known.
    pub(super) fn look_if_behind(self: &Arc<Self>, repository: &Arc<Repository>, at: Revision) {
        let mut desk = repository.desk();
        desk.is_said_to_be_at(at);
        let lead = desk.needs_attention();
        drop(desk);
        self.follow_up(repository, lead);
    }

    /// In the name of a new session: what still waits is waited for again. Ephemeral runs ended
    /// with the old session; their waiters hear of it when that has been recorded.
    pub(super) fn reclaim_waiting(self: &Arc<Self>) {
        for repository in self.known_repositories() {
            let lead = repository.reclaim(self);
            self.follow_up(&repository, lead);
        }
        self.death.notify_one();
    }

    /// Gives a place in the queue up, and the slot if it was granted in this instant, unless
    /// somebody else waits for the same run. What comes of it can be awaited, but need not.
    pub(super) fn give_up(
        self: &Arc<Self>,
        repository: &Arc<Repository>,
        entry: &Entry,
        place: &mut Place,
        granted: bool,
    ) -> Option<Answer> {
        let mut desk = repository.desk();
        let last = desk.waiting.remove(&entry.run, place.number);
        // Nothing is sent to a place that is not there any more: this is the final answer.
        let started = matches!(place.notice.try_recv(), Ok(Notice::Started(_)));
        if !(last || started || granted) {
            return None;
        }
        let (reply, answer) = oneshot::channel();
        let abandon = Request::new(self.abandon(entry), Some(reply));
        let lead = desk.submit_first(abandon.never_given_up());
        drop(desk);
        self.follow_up(repository, lead);
        Some(answer)
    }

    /// The command that takes a run back which was asked for in this manager's name.
    pub(super) fn abandon(&self, entry: &Entry) -> Command {
        Command::Abandon {
            run: entry.run.clone(),
            uid: entry.uid.clone(),
            owner: entry.owner().unwrap_or_else(|| self.session.id()),
            ticket: entry.ticket,
            token: entry.token(),
        }
    }

    /// Takes back what an answer gave to somebody who did not wait for it.
    pub(super) fn unheard(self: &Arc<Self>, repository: &Arc<Repository>, reply: &mut Reply) {
        let mut desk = repository.desk();
        repository.unheard(&mut desk, self, reply);
        let lead = desk.needs_attention();
        drop(desk);
        self.follow_up(repository, lead);
    }

    /// Leaves a run in the queue, to the stream of grants.
    pub(super) fn detach(&self, repository: &Repository, run: &PipelineRunKey, place: &mut Place) {
        let mut desk = repository.desk();
        if !desk.waiting.remove(run, place.number)
            && let Ok(Notice::Started(grant)) = place.notice.try_recv()
        {
            self.grants.push(grant);
        }
    }

    /// Why an answer did not come although its question was taken.
    pub(super) fn closed(&self, operation: &'static str) -> Error {
        let message = "the work ended before the answer came";
        let other = || Error::new(ErrorKind::Closed, operation, message);
        self.pulse.check(operation).err().unwrap_or_else(other)
    }

    pub(super) fn tell(&self, event: Event) {
        // Nobody may be listening.
        let _ = self.events.send(Some(event));
    }

    /// Runs `work` as far as it goes without waiting, and the rest in a task of the manager's.
    pub(super) fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        // The caller may be on another runtime, or on none.
        let runtime = self.runtime.enter();
        let mut work = Box::pin(work);
        let first = work.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        drop(runtime);
        if first.is_pending() {
            self.spawn(work);
        }
    }

    /// Runs `work` in a task of the manager's. One that panics is counted in the health.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let watched = self.pulse.watch_task();
        self.runtime.spawn(async move {
            let _watched = watched;
            work.await;
        });
    }

    /// How many entries a plan may have before it starts no further run.
    pub(super) fn room(&self) -> usize {
        // The other half is for what commands change themselves, before anything starts.
        (self.descriptor.entries_per_commit / 2).max(1)
    }

    /// How long a command is tried.
    pub(super) fn patience(&self) -> Duration {
        self.options.command_timeout
    }

    /// Nobody holds this manager any more.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// The manager has ended, by whatever cause: nothing goes on waiting in its name.
    pub(super) fn end(&self, part: &'static str) {
        self.pulse.died(part);
        for repository in self.known_repositories() {
            repository.end();
        }
        self.grants.end();
        let _ = self.events.send(None);
    }

    /// The answer to a batch, within the deadline of a request.
    pub(super) async fn committed(&self, session: SessionId, commit: Commit) -> BatchOutcome {
        let answer = match commit {
            Commit::Done(answer) => answer,
            Commit::Pending(request) => {
                self.within_deadline(request, ErrorKind::Indeterminate, "commit")
                    .await
            }
        };
        self.heard(session, answer)
    }

    /// Takes notice of what an answer says of the session.
    pub(super) fn heard<T>(
        &self,
        session: SessionId,
        answer: Result<T, Error>,
    ) -> Result<T, Error> {
        if let Err(error) = &answer
            && error.kind() == ErrorKind::SessionLost
        {
            self.lost(session, error);
        }
        answer
    }

    /// Within the deadline of a request.
    pub(super) async fn load(
        &self,
        repository: &RepositoryKey,
        since: Option<Revision>,
    ) -> Result<Snapshot, Error> {
        // Closed never: then nothing is limited.
        let _permit = self.loads.acquire().await.ok();
        let request = self.driver.load(repository, since);
        self.read(request, "load").await
    }

    /// Within the deadline of a request that changes nothing.
    pub(super) async fn read<T>(
        &self,
        request: impl Future<Output = Result<T, Error>>,
        operation: &'static str,
    ) -> Result<T, Error> {
        self.within_deadline(request, ErrorKind::Unavailable, operation)
            .await
    }

    pub(super) async fn within_deadline<T>(
        &self,
        request: impl Future<Output = Result<T, Error>>,
        missed: ErrorKind,
        operation: &'static str,
    ) -> Result<T, Error> {
        if !self.descriptor.remote {
            return request.await;
        }
        match timeout(self.options.request_timeout, request).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::new(
                missed,
                operation,
                "the store did not answer in time",
            )),
        }
    }
}
