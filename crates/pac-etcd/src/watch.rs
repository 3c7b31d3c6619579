//! Hints for managers: one stream of changes for the whole prefix, passed on to all subscribers
//! with what changed.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use pac_core::driver::Watch;
use pac_core::hints::{Hints, Reached};
use pac_core::state::Snapshot;
use pac_core::{Error, PipelineRunKey, RepositoryKey, Revision, SessionId};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::client::failure::{Cause, Effect, Failure};
use crate::client::{Change, Changes, Client};
use crate::keys::Place;
use crate::record::{StoredHead, decode_entry};
use crate::store::{Store, one_key, revision};

/// How long to try to resume a broken stream before the subscribers get the error.
const RESUME_FOR: Duration = Duration::from_secs(10);
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// The stream, if there is one, and its subscribers.
#[derive(Debug, Default)]
pub(crate) struct Watches(tokio::sync::Mutex<Option<Running>>);

#[derive(Debug)]
struct Running {
    hub: Arc<Hub>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watches {
    /// Adds a subscriber. The first one opens the stream, with two requests; later ones need none.
    pub(crate) async fn subscribe(
        &self,
        store: &Arc<Store>,
        session: SessionId,
    ) -> Result<Box<dyn Watch>, Error> {
        let subscriber = Arc::<Hints>::default();
        let mut running = self.0.lock().await;
        if let Some(running) = &*running
            && running.hub.add(session, &subscriber)
        {
            return Ok(subscriber.watch());
        }
        let next = now(store).await? + 1;
        let opened = open(store, next).await;
        let stream = opened.map_err(|failure| failure.error("watch", Effect::Read))?;
        let hub = Arc::new(Hub::default());
        hub.add(session, &subscriber);
        store.recent.forget();
        store.recent.begin(next - 1);
        let end = End(Arc::clone(&hub));
        let follower = follow(Arc::clone(store), end, stream, next);
        *running = Some(Running {
            hub,
            task: tokio::spawn(follower),
        });
        Ok(subscriber.watch())
    }
}

/// The store's revision.
async fn now(store: &Store) -> Result<i64, Error> {
    let read = store.cluster.range(one_key(store.keys.floor()), "watch");
    Ok(read.await?.revision)
}

/// The stream, and the member that it comes from.
async fn open(store: &Store, from: i64) -> Result<(Changes, usize), Failure> {
    let watch = |client: Client| {
        let prefix = store.keys.prefix().to_owned();
        async move { client.watch(&prefix, from).await }
    };
    let changes = store.cluster.call(Effect::Read, watch).await?;
    Ok((changes, store.cluster.current()))
}

/// Passes the stream on to the subscribers, and resumes it at another member when it breaks. Ends
/// when it cannot be resumed, or when no subscriber is left.
async fn follow(store: Arc<Store>, end: End, stream: (Changes, usize), mut next: i64) {
    let hub = &end.0;
    let (mut changes, mut member) = stream;
    let mut delay = FIRST_DELAY;
    loop {
        let failure = match changes.next().await {
            Ok(batch) => {
                // A stream that breaks before it tells anything is not opened again at once.
                if batch.revision >= next {
                    delay = FIRST_DELAY;
                }
                next = batch.revision.saturating_add(1);
                if !hub.tell(&store, batch.changes) {
                    store.recent.pause();
                    return;
                }
                store.recent.told(batch.revision);
                continue;
            }
            Err(failure) => failure,
        };
        if failure.may_pass_elsewhere() {
            store.cluster.turn_away_from(member);
        }
        match resume(&store, hub, failure, &mut next, &mut delay).await {
            Ok(resumed) => (changes, member) = resumed,
            Err(failure) => return hub.end(&failure),
        }
    }
}

async fn resume(
    store: &Store,
    hub: &Hub,
    mut failure: Failure,
    next: &mut i64,
    delay: &mut Duration,
) -> Result<(Changes, usize), Failure> {
    let until = Instant::now() + RESUME_FOR;
    store.recent.pause();
    loop {
        tracing::debug!(%failure, "the watch is interrupted");
        match failure.cause {
            Cause::Denied | Cause::Credentials | Cause::TooManyOperations => return Err(failure),
            // The stream cannot continue where it broke, because that revision was compacted or the
            // answer is too large: it goes on from now.
            Cause::Compacted | Cause::Other | Cause::TooLarge => {
                if let Ok(now) = now(store).await {
                    *next = now + 1;
                    store.recent.forget();
                    hub.missed();
                }
            }
            Cause::Token => {
                let renewed = store.cluster.authenticate(store.cluster.current());
                match timeout(store.cluster.request_timeout(), renewed).await {
                    Ok(Err(refused)) if refused.cause == Cause::Credentials => return Err(refused),
                    Ok(Err(refused)) => tracing::debug!(%refused, "no new token"),
                    Ok(Ok(())) | Err(_) => {}
                }
            }
            _ => {}
        }
        if Instant::now() >= until {
            return Err(failure);
        }
        sleep(delay.mul_f64(0.5 + fastrand::f64())).await;
        *delay = (*delay * 2).min(LONGEST_DELAY);
        if let Ok(now) = now(store).await
            && now < *next - 1
        {
            // The store has gone back in time: etcd would say nothing until it comes to that
            // revision again.
            *next = now + 1;
            store.recent.forget();
            hub.missed();
        }
        match open(store, *next).await {
            Ok(stream) => {
                store.recent.begin(*next - 1);
                return Ok(stream);
            }
            Err(again) => failure = again,
        }
    }
}

/// The subscribers of the stream.
#[derive(Debug, Default)]
struct Hub(Mutex<Subscribers>);

#[derive(Debug, Default)]
struct Subscribers {
    ended: bool,
    all: Vec<(SessionId, Weak<Hints>)>,
}

/// Tells the subscribers that the stream has ended when its task ends, even by a panic.
struct End(Arc<Hub>);

impl Drop for End {
    fn drop(&mut self) {
        let reason = "the stream of changes ended with its runtime, or by a bug";
        self.0.end(&Failure::new(Cause::Unanswered, reason));
    }
}

impl Hub {
    fn subscribers(&self) -> MutexGuard<'_, Subscribers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a subscriber. False when the stream has ended.
    fn add(&self, session: SessionId, subscriber: &Arc<Hints>) -> bool {
        let mut subscribers = self.subscribers();
        if !subscribers.ended {
            subscribers
                .all
                .retain(|(_, known)| known.strong_count() > 0);
            let subscriber = Arc::downgrade(subscriber);
            subscribers.all.push((session, subscriber));
        }
        !subscribers.ended
    }

    fn each(&self, mut told: impl FnMut(SessionId, &Hints)) {
        let subscribers = self.subscribers().all.clone();
        for (session, subscriber) in subscribers {
            if let Some(subscriber) = subscriber.upgrade() {
                told(session, &subscriber);
            }
        }
    }

    /// Whether any session but `by` listens.
    fn interests_any_but(&self, by: Option<SessionId>) -> bool {
        let subscribers = self.subscribers();
        subscribers
            .all
            .iter()
            .any(|(session, _)| Some(*session) != by)
    }

    fn end(&self, failure: &Failure) {
        if !mem::replace(&mut self.subscribers().ended, true) {
            self.each(|_, hints| hints.broken(failure.error("watch", Effect::Read)));
        }
    }

    fn missed(&self) {
        self.each(|_, hints| hints.missed());
    }

    /// Passes changes on. False when no subscriber is left: the stream has ended then.
    fn tell(&self, store: &Store, changes: Vec<Change>) -> bool {
        let mut at = 0;
        let mut told = BTreeMap::new();
        let mut session_died = false;
        for change in changes {
            if change.revision != at {
                self.changed(store, mem::take(&mut told));
                at = change.revision;
            }
            match store.keys.place(&change.key) {
                Some(Place::Head(repository)) => told
                    .entry(repository)
                    .or_insert_with(|| Told::at(at))
                    .head(&change),
                Some(Place::Entry(repository, run)) => {
                    let told = told.entry(repository).or_insert_with(|| Told::at(at));
                    told.entries.push((run, change));
                }
                Some(Place::Alive(_) | Place::Lease(_)) => {
                    session_died |= change.value.is_none();
                }
                Some(Place::Record(_) | Place::Held(..) | Place::Floor) | None => {}
            }
        }
        self.changed(store, told);
        if session_died {
            self.each(|_, hints| hints.session_died());
        }
        let mut subscribers = self.subscribers();
        let heard = subscribers.all.iter().any(|(_, s)| s.strong_count() > 0);
        subscribers.ended |= !heard;
        heard
    }

    fn changed(&self, store: &Store, told: BTreeMap<RepositoryKey, Told>) {
        for (repository, told) in told {
            // Entries without a head are those that retention deletes.
            let Some(head) = told.head else {
                continue;
            };
            let by = head.map(|head| head.by);
            // Mostly the only subscriber made the change itself, and needs no hint.
            if !self.interests_any_but(by) {
                continue;
            }
            let entries = told.entries.iter().filter_map(|(run, change)| {
                let value = change.value.as_ref()?;
                let entry = decode_entry(run.clone(), &change.key, value, told.revision);
                Some(entry.map(Arc::new))
            });
            let entries: Result<Vec<_>, _> = entries.collect();
            let snapshot = match (head, entries) {
                (Some(head), Ok(entries)) => Some(Snapshot {
                    since: Some(head.previous),
                    exists: true,
                    head: head.head,
                    entries,
                }),
                _ => None,
            };
            if let Some(snapshot) = &snapshot {
                store.recent.add(&repository, snapshot);
            }
            let reached = match &head {
                Some(head) => Reached {
                    revision: told.revision,
                    ..Reached::head(&head.head)
                },
                None => Reached::revision(told.revision),
            };
            self.each(|session, hints| match snapshot.clone() {
                _ if by == Some(session) => {}
                Some(snapshot) => hints.changed_to(&repository, snapshot),
                None => hints.changed(&repository, reached),
            });
        }
    }
}

/// What one revision changed in one repository.
struct Told {
    revision: Revision,
    /// `None` when it did not change; `Some(None)` when it was deleted or cannot be decoded.
    head: Option<Option<StoredHead>>,
    /// The entries that were written or deleted.
    entries: Vec<(PipelineRunKey, Change)>,
}

impl Told {
    fn at(at: i64) -> Self {
        Self {
            revision: revision(at),
            head: None,
            entries: Vec::new(),
        }
    }

    fn head(&mut self, change: &Change) {
        let value = change.value.as_ref();
        let head = value.map(|value| StoredHead::decode(&change.key, value, self.revision));
        self.head = Some(head.and_then(Result::ok));
    }
}
