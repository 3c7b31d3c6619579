//! Hints for managers: one stream of changes for the whole prefix, passed on to all subscribers
//! with what changed.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pac_core::driver::Watch;
use pac_core::effect::Effect;
use pac_core::hints::{Hints, Reached, Subscribers};
use pac_core::pauses::{Pauses, jittered};
use pac_core::state::Snapshot;
use pac_core::{Error, PipelineRunKey, RepositoryKey, Revision, SessionId};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::client::failure::{Cause, Failure};
use crate::client::{Change, Changes, Client};
use crate::keys::Place;
use crate::record::{StoredHead, decode_entry};
use crate::store::{Store, malformed, one_key, revision};

/// How long to try to resume a broken stream before the subscribers get the error, and with it the
/// health of their managers: longer than the election of a leader. What they read anew after that
/// costs more than to resume.
const RESUME_FOR: Duration = Duration::from_secs(5);
/// The pauses between attempts to resume it. A process that only waits hears of an etcd that answers
/// again as late as twice the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// After how long without a change to look whether the member that tells of them still answers, if
/// there are others. HTTP/2's own pings find out much later.
const QUIET: Duration = Duration::from_secs(2);

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
        let mut running = self.0.lock().await;
        if let Some(running) = &*running
            && let Some(watch) = running.hub.add(session)
        {
            return Ok(watch);
        }
        let next = now(store).await? + 1;
        let opened = open(store, next).await;
        let stream = opened.map_err(|failure| failure.error("watch", Effect::Read))?;
        let hub = Arc::new(Hub::default());
        let watch = hub.add(session).ok_or_else(malformed)?;
        store.recent.forget();
        store.recent.begin(next - 1);
        let end = End(Arc::clone(&hub));
        let follower = follow(Arc::clone(store), end, stream, next);
        *running = Some(Running {
            hub,
            task: tokio::spawn(follower),
        });
        Ok(watch)
    }
}

/// The store's revision.
async fn now(store: &Store) -> Result<i64, Error> {
    let read = store.cluster.range(one_key(store.keys.floor()), "watch");
    Ok(read.await?.revision)
}

/// The stream of changes, and the member that it comes from.
struct Stream {
    changes: Changes,
    client: Client,
    member: usize,
}

async fn open(store: &Store, from: i64) -> Result<Stream, Failure> {
    let watch = |client: Client| {
        let range = store.keys.all_but_signs();
        let member = store.cluster.current();
        async move {
            let changes = client.watch(range, from).await?;
            Ok(Stream {
                changes,
                client,
                member,
            })
        }
    };
    store.cluster.call(Effect::Read, watch).await
}

/// Passes the stream on to the subscribers, and resumes it at another member when it breaks. Ends
/// when it cannot be resumed, or when no subscriber is left.
async fn follow(store: Arc<Store>, end: End, mut stream: Stream, mut next: i64) {
    let hub = &end.0;
    let mut pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        store.upkeep.await_from(next);
        let failure = tokio::select! {
            biased;
            told = stream.changes.next() => match told {
                Ok(batch) => {
                    // A stream that breaks before it tells anything is not opened again at once.
                    if batch.revision >= next {
                        pauses.reset();
                    }
                    next = batch.revision.saturating_add(1);
                    if !hub.tell(&store, batch.changes) {
                        store.recent.pause();
                        store.upkeep.await_from(0);
                        return;
                    }
                    store.recent.told(batch.revision);
                    continue;
                }
                Err(failure) => {
                    if failure.may_pass_elsewhere() {
                        store.cluster.turn_away_from(stream.member);
                    }
                    Some(failure)
                }
            },
            () = left_alone(&store, &stream.client, stream.member) => None,
        };
        match resume(&store, hub, failure, &mut next, &mut pauses).await {
            Ok(resumed) => stream = resumed,
            Err(failure) => {
                store.upkeep.await_from(0);
                return hub.end(&failure);
            }
        }
    }
}

/// Waits until changes had better be told by another member: this one is silent, or the requests of
/// this process go to another one by now.
async fn left_alone(store: &Store, client: &Client, member: usize) {
    if store.cluster.size() < 2 {
        return std::future::pending().await;
    }
    let is_silent = async {
        loop {
            sleep(jittered(QUIET)).await;
            if !client.is_heard().await {
                return;
            }
        }
    };
    tokio::select! {
        () = store.cluster.turned_away_from(member) => {}
        () = is_silent => {
            store.cluster.forget(member);
            store.cluster.turn_away_from(member);
        }
    }
}

/// Opens the stream again where it ended. Without a failure it is opened at once.
async fn resume(
    store: &Store,
    hub: &Hub,
    mut failure: Option<Failure>,
    next: &mut i64,
    pauses: &mut Pauses,
) -> Result<Stream, Failure> {
    let until = Instant::now() + RESUME_FOR;
    store.recent.pause();
    loop {
        if let Some(failure) = failure {
            tracing::debug!(%failure, "the watch is interrupted");
            see_to(store, hub, &failure, next).await?;
            if Instant::now() >= until {
                return Err(failure);
            }
            let pause = pauses.grow();
            if failure.may_pass_with_time() {
                store.cluster.pause(pause).await;
            } else {
                sleep(pause).await;
            }
        }
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
            Err(again) => failure = Some(again),
        }
    }
}

/// Does what a failure of the stream asks for, before it is opened again.
///
/// # Errors
/// The failure, or another one, with which trying again makes no sense.
async fn see_to(
    store: &Store,
    hub: &Hub,
    failure: &Failure,
    next: &mut i64,
) -> Result<(), Failure> {
    match failure.cause {
        Cause::Denied | Cause::Credentials | Cause::TooManyOperations => {
            return Err(failure.clone());
        }
        // The stream cannot continue where it broke, because that revision was compacted or the
        // answer is too large: it goes on from now.
        Cause::Compacted | Cause::Other | Cause::TooLarge | Cause::AnswerTooLarge => {
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
    Ok(())
}

/// The subscribers of the stream.
#[derive(Debug, Default)]
struct Hub(Mutex<Listening>);

#[derive(Debug, Default)]
struct Listening {
    ended: bool,
    subscribers: Subscribers,
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
    fn listening(&self) -> MutexGuard<'_, Listening> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a subscriber. `None` when the stream has ended.
    fn add(&self, session: SessionId) -> Option<Box<dyn Watch>> {
        let mut listening = self.listening();
        (!listening.ended).then(|| listening.subscribers.subscribe(session))
    }

    fn end(&self, failure: &Failure) {
        let mut listening = self.listening();
        if !mem::replace(&mut listening.ended, true) {
            let error = failure.error("watch", Effect::Read);
            listening.subscribers.break_off(&error);
        }
    }

    fn missed(&self) {
        self.listening().subscribers.tell(Hints::missed);
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
                Some(
                    Place::Record(_)
                    | Place::Sign(_)
                    | Place::Held(..)
                    | Place::Removed(_)
                    | Place::Floor,
                )
                | None => {}
            }
        }
        self.changed(store, told);
        let mut listening = self.listening();
        if session_died {
            listening.subscribers.tell(Hints::session_died);
        }
        let heard = listening.subscribers.is_heard();
        listening.ended |= !heard;
        heard
    }

    fn changed(&self, store: &Store, told: BTreeMap<RepositoryKey, Told>) {
        for (repository, told) in told {
            // Entries without a head are those that retention deletes.
            let Some(head) = told.head else {
                continue;
            };
            let by = head.as_ref().map(|head| head.by).unwrap_or_default();
            // Mostly the only subscriber made the change itself, and needs no hint.
            if !self.listening().subscribers.others_than(by) {
                continue;
            }
            let entries = told.entries.iter().filter_map(|(run, change)| {
                let value = change.value.as_ref()?;
                let entry = decode_entry(run.clone(), &change.key, value, told.revision);
                Some(entry.map(Arc::new))
            });
            let entries: Result<Vec<_>, _> = entries.collect();
            let snapshot = match (&head, entries) {
                (Some(head), Ok(entries)) => Some(Snapshot {
                    since: Some(head.previous),
                    exists: true,
                    head: head.head.clone(),
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
            let listening = self.listening();
            listening
                .subscribers
                .tell_others(by, |hints| match snapshot.clone() {
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
