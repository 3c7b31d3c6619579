//! Ends runs that have waited for as long as they may, and asks those to end that have held their
//! slots for as long as they may: in every repository that this manager knows to have such runs.
//!
//! A manager comes to know of such a repository by its own commands, and by seeing to the runs of a
//! session that has died. One that takes over durable runs (see
//! [`grants`](crate::manager::ConcurrencyManager::grants)) lists them as well, once after its start and
//! after each death: the process that died may have been the only one that knew. Nobody else looks for
//! them, and who asks for no time pays for none of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::driver::ListFilter;
use crate::error::{Error, ErrorKind};
use crate::hash::HashMap;
use crate::manager::engine::Engine;
use crate::manager::registry::Cell;
use crate::name::RepositoryKey;
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
#[derive(Debug, Default)]
pub(in crate::manager) struct Timed {
    known: Mutex<HashMap<RepositoryKey, Arc<Cell>>>,
    changed: Notify,
    look: Notify,
}

impl Timed {
    /// A repository has some.
    pub(in crate::manager) fn note(&self, cell: &Arc<Cell>) {
        self.known().insert(cell.key().clone(), Arc::clone(cell));
        self.changed.notify_one();
    }

    /// There may be others that nobody knows of any more.
    pub(in crate::manager) fn look(&self) {
        self.look.notify_one();
    }

    /// Those that have some still.
    fn cells(&self) -> Vec<(Arc<Cell>, Timestamp, bool)> {
        let mut left = Vec::new();
        // Under the lock, so that one which is noted anew meanwhile is not forgotten.
        self.known().retain(|_, cell| {
            let first = cell.lock().machine.first_deadline();
            if let Some((deadline, is_own)) = first {
                left.push((Arc::clone(cell), deadline, is_own));
            }
            first.is_some()
        });
        left
    }

    fn known(&self) -> MutexGuard<'_, HashMap<RepositoryKey, Arc<Cell>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
    let sweep = engine.options.sweep_interval;
    let look = async {
        sleep(jittered(sweep * FIRST_LOOK)).await;
        loop {
            if !engine.grants.takes() {
                engine.timed.look.notified().await;
                sleep(jittered(sweep)).await;
                continue;
            }
            if let Err(error) = look(&engine).await {
                tracing::warn!(%error, "could not look for runs with a time limit; trying again");
                engine.store.contact.pause(jittered(sweep)).await;
                continue;
            }
            engine.timed.look.notified().await;
            // The deaths of one moment are one reason.
            sleep(jittered(sweep)).await;
        }
    };
    let end = async {
        let mut seen: Option<Seen> = None;
        loop {
            seen = match end_due(&engine, seen).await {
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
async fn end_due(engine: &Arc<Engine>, seen: Option<Seen>) -> Result<Option<Seen>, Error> {
    let sweep = engine.options.sweep_interval;
    // The manager that has the run goes first, and mostly leaves nothing to be done.
    let patience = sweep.mul_f64(1.0 + 2.0 * fastrand::f64());
    let due_at = |deadline: Timestamp, is_own: bool| match is_own {
        true => deadline,
        false => deadline.plus(patience),
    };
    let cells = engine.timed.cells();
    let due = cells
        .iter()
        .map(|(_, deadline, is_own)| due_at(*deadline, *is_own));
    let Some(first) = due.min() else {
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
    for (cell, deadline, is_own) in cells {
        if due_at(deadline, is_own) <= clock.shown {
            submitted = true;
            let now = clock.shown;
            let lead = engine.input(&cell, |input| {
                let command = Command::TimeOut { now };
                input.machine.submit_own(input.env, command, input.effects)
            });
            engine.follow_up(&cell, lead);
        }
    }
    if submitted {
        // Until it is committed, the runs seem to be due.
        sleep(sweep / 4).await;
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
