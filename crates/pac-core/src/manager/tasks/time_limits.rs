//! Ends runs that have waited for as long as they may, and asks those to end that have held their
//! slots for as long as they may: in every repository that this manager knows to have such runs.
//!
//! A manager comes to know of such a repository by its own commands, and by seeing to the runs of a
//! session that has died. One that takes over durable runs (see
//! [`grants`](crate::manager::ConcurrencyManager::grants)) lists them as well, once after its start and
//! after deaths, at most once per poll interval: the process that died may have been the only one that
//! knew. Some stores look at every repository for such a list. Nobody else looks for them: where no run
//! has a time limit, commits and admissions pay nothing, and each such manager pays for these lists.

use std::pin::pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::driver::ListFilter;
use crate::error::{Error, ErrorKind};
use crate::manager::engine::Engine;
use crate::manager::registry::Cell;
use crate::pauses::jittered;
use crate::protocol::Command;
use crate::value::Timestamp;

/// So many sweep intervals after its start a manager looks for the first time: one that lives shorter
/// than that leaves it to others.
const FIRST_LOOK: u32 = 5;

/// The store's clock is asked again at least so often while somebody waits for it: its drift against
/// this process stays small.
const LONGEST: Duration = Duration::from_secs(60);

/// The repositories that have such runs.
#[derive(Debug)]
pub(in crate::manager) struct Timed {
    /// Those that the task does not have in its list yet.
    unlisted: Mutex<Vec<Arc<Cell>>>,
    /// When the task looks at its list again, in milliseconds of the store's clock; nobody has to wake it
    /// for the sake of a later time.
    looks_at: AtomicI64,
    /// The manager that has a run goes first, and mostly leaves nothing to be done for the others, each of
    /// which waits for another time.
    patience: Duration,
    changed: Notify,
    look: Notify,
}

/// No time at all, or a time when all is over.
const NEVER: i64 = i64::MAX;

impl Timed {
    pub(in crate::manager) fn new(sweep_interval: Duration) -> Self {
        Self {
            unlisted: Mutex::default(),
            looks_at: AtomicI64::new(NEVER),
            patience: sweep_interval.mul_f64(1.0 + 2.0 * fastrand::f64()),
            changed: Notify::new(),
            look: Notify::new(),
        }
    }

    /// A repository has some: the first of them is due then, and is this manager's or not. Called with
    /// every commit to it.
    pub(in crate::manager) fn note(&self, cell: &Arc<Cell>, first: (Timestamp, bool)) {
        if !cell.is_timed.swap(true, Ordering::AcqRel) {
            self.unlisted().push(Arc::clone(cell));
        }
        let due = self.due_at(first).as_unix_millis();
        if self.looks_at.fetch_min(due, Ordering::AcqRel) > due {
            self.changed.notify_one();
        }
    }

    /// There may be others that nobody knows of any more.
    pub(in crate::manager) fn look(&self) {
        self.look.notify_one();
    }

    fn due_at(&self, (deadline, is_own): (Timestamp, bool)) -> Timestamp {
        match is_own {
            true => deadline,
            false => deadline.plus(self.patience),
        }
    }

    /// Goes through the list: leaves those out that have none any more, and says when the others are due.
    fn due(&self, listed: &mut Vec<Arc<Cell>>) -> Vec<Timestamp> {
        // What is noted from here on counts beside what is found.
        self.looks_at.store(NEVER, Ordering::Release);
        listed.append(&mut self.unlisted());
        let mut due = Vec::with_capacity(listed.len());
        listed.retain(|cell| {
            let inner = cell.lock();
            let first = inner.machine.first_deadline();
            // Under the lock of the repository: what comes after it notes the repository anew.
            cell.is_timed.store(first.is_some(), Ordering::Release);
            due.extend(first.map(|first| self.due_at(first)));
            first.is_some()
        });
        due
    }

    /// The first time at which one is due, with what was noted meanwhile; `None` where none is.
    fn first(&self, due: &[Timestamp]) -> Option<Timestamp> {
        // A wake-up for what was noted until now has done its duty.
        _ = pin!(self.changed.notified()).enable();
        let found = due.iter().map(|due| due.as_unix_millis()).min();
        let found = found.unwrap_or(NEVER);
        let noted = self.looks_at.fetch_min(found, Ordering::AcqRel);
        let first = found.min(noted);
        (first < NEVER).then(|| Timestamp::from_unix_millis(first))
    }

    fn unlisted(&self) -> MutexGuard<'_, Vec<Arc<Cell>>> {
        self.unlisted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The store's clock, as it was last seen.
#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Instant,
    shown: Timestamp,
}

impl Seen {
    fn now(self) -> Timestamp {
        self.shown.plus(self.at.elapsed())
    }
}

pub(in crate::manager) async fn keep(engine: Arc<Engine>) {
    let (sweep, poll) = (engine.options.sweep_interval, engine.options.poll_interval);
    let look = async {
        sleep(jittered(sweep * FIRST_LOOK)).await;
        // The first look is for what was before, and need not be followed by a rest.
        let mut rested = true;
        loop {
            if engine.grants.takes()
                && let Err(error) = look(&engine).await
            {
                tracing::warn!(%error, "could not look for runs with a time limit; trying again");
                engine.store.contact.pause(jittered(sweep)).await;
                continue;
            }
            if !rested {
                sleep(jittered(poll)).await;
            }
            engine.timed.look.notified().await;
            // The deaths of one moment are one reason.
            sleep(jittered(sweep)).await;
            rested = false;
        }
    };
    let end = async {
        let mut listed = Vec::new();
        let mut seen: Option<Seen> = None;
        loop {
            seen = match end_due(&engine, &mut listed, seen).await {
                Ok(seen) => seen,
                Err(error) => {
                    tracing::warn!(%error, "could not see to runs whose time is over; trying again");
                    engine.store.contact.pause(jittered(sweep)).await;
                    None
                }
            };
        }
    };
    tokio::join!(look, end);
}

/// Waits until the time of a run is over, and sees to that. One step.
async fn end_due(
    engine: &Arc<Engine>,
    listed: &mut Vec<Arc<Cell>>,
    seen: Option<Seen>,
) -> Result<Option<Seen>, Error> {
    let due = engine.timed.due(listed);
    let Some(first) = engine.timed.first(&due) else {
        engine.timed.changed.notified().await;
        return Ok(seen);
    };
    let Some(clock) = seen.filter(|seen| seen.at.elapsed() < LONGEST) else {
        return ask(engine).await.map(Some);
    };
    let left = first.since(clock.now());
    if !left.is_zero() {
        tokio::select! {
            () = sleep(left.min(LONGEST)) => {}
            () = engine.timed.changed.notified() => {}
        }
        return Ok(seen);
    }
    // What was estimated is asked once more before it counts.
    let clock = ask(engine).await?;
    let mut submitted = false;
    for (cell, due) in listed.iter().zip(due) {
        if due <= clock.shown {
            submitted = true;
            let now = clock.shown;
            let lead = engine.input(cell, |input| {
                let command = Command::TimeOut { now };
                input.machine.submit_own(input.env, command, input.effects)
            });
            engine.follow_up(cell, lead);
        }
    }
    if submitted {
        // Until it is committed, the runs seem to be due.
        sleep(engine.options.sweep_interval / 4).await;
    }
    Ok(Some(clock))
}

async fn ask(engine: &Arc<Engine>) -> Result<Seen, Error> {
    // Before the request: whatever time it takes, nothing ends too early.
    let at = Instant::now();
    let shown = engine
        .store
        .read(engine.store.driver.clock(), "read the clock")
        .await?;
    Ok(Seen { at, shown })
}

/// Has the repositories read that have such runs.
async fn look(engine: &Arc<Engine>) -> Result<(), Error> {
    let most = engine.store.page();
    let mut after = None;
    loop {
        let driver = &engine.store.driver;
        let page = driver.list(ListFilter::Timed, after.as_ref(), most);
        let page = engine.store.read(page, "list").await?;
        for (key, _) in &page {
            let cell = engine.repository(key);
            match engine.read_now(&cell, |_| ()).await {
                Ok(()) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Incompatible) =>
                {
                    // Its own trouble, and no reason not to see to the others.
                    tracing::warn!(repository = %key, %error, "its time limits are not kept");
                }
                Err(error) => return Err(error),
            }
        }
        if page.len() < most {
            return Ok(());
        }
        after = page.into_iter().next_back().map(|(key, _)| key);
    }
}
