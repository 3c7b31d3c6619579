//! The repositories that a manager knows, and the lock of each.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use tokio::sync::{Notify, oneshot, watch};

use super::repository::effects::{AnswerResult, Grant, TurnMessage};
use super::repository::env::Port;
use super::repository::{HolderId, Repository};
use super::session::fence::Fence;
use crate::error::Error;
use crate::event::LeaseLoss;
use crate::hash::RandomState;
use crate::name::{PipelineRunKey, RepositoryKey};
use crate::value::FencingToken;

/// Shards of the map of repositories, a power of two. Many more than cores, so that two
/// repositories in use at the same moment seldom share one.
const SHARDS: usize = 256;

/// A thread that finds a repository locked pauses for so long before it tries again, so that each does
/// a few commands in a row. A command on a store in this process takes a microsecond if the
/// processor has the state in its cache, and several if another one has changed it: threads that take
/// turns with every command are slower together than one of them alone.
const PAUSE: Duration = Duration::from_micros(20);

/// After so many pauses it waits for the lock without taking processor time.
const PAUSES: usize = 8;

/// The ends of the manager's channels.
#[derive(Debug)]
pub(super) struct Channels;

/// Where the answer to a request arrives.
pub(super) type AnswerReceiver = oneshot::Receiver<AnswerResult<Channels>>;

impl Port for Channels {
    type Asker = oneshot::Sender<AnswerResult<Self>>;
    type Notice = oneshot::Sender<TurnMessage>;
    type Place = oneshot::Receiver<TurnMessage>;
    type Loss = oneshot::Sender<LeaseLoss>;

    fn place(_: u64) -> (Self::Notice, Self::Place) {
        oneshot::channel()
    }
}

/// What a lease asks of the manager that keeps its repository.
pub(super) trait Keeper: fmt::Debug + Send + Sync {
    /// The session of the manager, as its holders see it.
    fn fence(&self) -> &Arc<Fence>;

    /// Has a holder told when its slot is taken away. Names it, to be
    /// [forgotten](super::repository::Repository::unwatch_lease) again.
    fn watch_lease(
        self: Arc<Self>,
        cell: &Arc<Cell>,
        grant: &Grant,
        taker: oneshot::Sender<LeaseLoss>,
    ) -> HolderId;

    /// Runs `work` in a task of the manager's.
    fn spawn(&self, work: Pin<Box<dyn Future<Output = ()> + Send>>);
}

/// One repository: its state machine under a lock, and what belongs to it outside of that.
#[derive(Debug)]
pub(super) struct Cell {
    key: RepositoryKey,
    /// What keeps it; nobody needs it any more once that is gone.
    pub(super) keeper: Weak<dyn Keeper>,
    inner: Mutex<Inner>,
    /// Held while events and grants are delivered, so that they keep the order in which they
    /// came about. Taken under the lock of `inner`; under it no other lock is taken but those of
    /// the queues that they go to.
    pub(super) delivery: Mutex<()>,
    /// Something came that admissions which are held back can go along with.
    pub(super) wake: Notify,
    /// Whether the task that keeps time limits knows of it, and looks at it in its time.
    pub(super) is_timed: AtomicBool,
}

/// Only ever held between two awaits, and never while another repository's is taken. A store in
/// this process commits under it.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) machine: Repository<Channels>,
    /// Counts the states that watchers could have seen; `None` until somebody watches.
    pub(super) steps: Option<watch::Sender<u64>>,
    /// Holders that wait to be asked to end.
    pub(super) asked: Vec<(FencingToken, oneshot::Sender<()>)>,
    /// Why the streams of steps have ended, if the records could not be understood then.
    pub(super) unreadable: Option<Arc<Error>>,
}

impl Inner {
    /// Ready when the run that holds this slot is asked to end; `None` if it was already. Never ready
    /// for a slot that is lost.
    pub(super) fn await_asked(
        &mut self,
        run: &PipelineRunKey,
        token: FencingToken,
    ) -> Option<oneshot::Receiver<()>> {
        if self.machine.is_asked_to_end(run, token) {
            return None;
        }
        let (tell, told) = oneshot::channel();
        self.asked.retain(|(_, known)| !known.is_closed());
        self.asked.push((token, tell));
        Some(told)
    }

    pub(super) fn tell_asked(&mut self, token: FencingToken) {
        let holders = self.asked.extract_if(.., |(holds, _)| *holds == token);
        for (_, tell) in holders {
            // Whoever waited may have gone.
            let _ = tell.send(());
        }
    }
}

impl Cell {
    pub(super) fn key(&self) -> &RepositoryKey {
        &self.key
    }

    /// A panic under this lock is a bug that the end of the combiner's right reports; what is
    /// cached is checked against the store by every commit. So a poisoned lock is taken as it is.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        for _ in 0..PAUSES {
            match self.inner.try_lock() {
                Ok(inner) => return inner,
                Err(TryLockError::Poisoned(inner)) => return inner.into_inner(),
                Err(TryLockError::WouldBlock) => pause(),
            }
        }
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the thread that has a lock go on with it for a while.
fn pause() {
    let start = Instant::now();
    while start.elapsed() < PAUSE {
        // On a busy machine, for a thread that has the lock and was interrupted.
        thread::yield_now();
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Registry {
    cells: DashMap<RepositoryKey, Arc<Cell>, RandomState>,
    keeper: Weak<dyn Keeper>,
    fence: Arc<Fence>,
}

impl Registry {
    pub(super) fn new(keeper: Weak<dyn Keeper>, fence: Arc<Fence>) -> Self {
        Self {
            cells: DashMap::with_hasher_and_shard_amount(RandomState::default(), SHARDS),
            keeper,
            fence,
        }
    }

    /// The repository, and whether it is known only from now on.
    pub(super) fn get_or_insert(&self, key: &RepositoryKey) -> (Arc<Cell>, bool) {
        if let Some(known) = self.get(key) {
            return (known, false);
        }
        let mut new = false;
        let cell = self.cells.entry(key.clone()).or_insert_with(|| {
            new = true;
            // Read under the lock of the map's shard: a session that is opened after this finds
            // the repository there.
            let (session, _) = self.fence.session();
            let machine = Repository::new(key.clone(), session, self.fence.former());
            Arc::new(Cell {
                key: key.clone(),
                keeper: Weak::clone(&self.keeper),
                inner: Mutex::new(Inner {
                    machine,
                    steps: None,
                    asked: Vec::new(),
                    unreadable: None,
                }),
                delivery: Mutex::default(),
                wake: Notify::new(),
                is_timed: AtomicBool::new(false),
            })
        });
        let cell = Arc::clone(&cell);
        (cell, new)
    }

    /// The repository, if it is known.
    pub(super) fn get(&self, key: &RepositoryKey) -> Option<Arc<Cell>> {
        self.cells.get(key).map(|cell| Arc::clone(&cell))
    }

    /// All repositories that are known now.
    pub(super) fn all(&self) -> Vec<Arc<Cell>> {
        self.cells.iter().map(|cell| Arc::clone(&cell)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    /// Forgets the repositories that nobody holds and in which nothing is of interest.
    pub(super) fn evict(&self) {
        // Nobody can come by one that is not held elsewhere while its shard is locked.
        self.cells
            .retain(|_, cell| Arc::strong_count(cell) > 1 || !cell.lock().machine.is_idle());
    }
}
