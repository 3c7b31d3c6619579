//! Workers: each carries one batch at a time to the store. While all are on their way, what has
//! something to commit gathers for the next batch, and goes on being combined until it leaves.
//! An idle system adds no delay but a few yields to nobody.

use std::sync::Arc;

use super::token::Token;
use crate::manager::engine::Engine;
use crate::manager::lifecycle::End;
use crate::manager::repository::effects::Action;

/// Send the batch after three yields without new work: tasks just answered usually submit again
/// at once, but may first be taken up by another thread. A yield with nobody to yield to takes
/// about a microsecond.
const QUIET_YIELDS: usize = 3;
/// And at the latest after so many yields.
const MOST_YIELDS: usize = 32;

/// A worker, from its start to its end.
struct Worker {
    engine: Arc<Engine>,
    /// It was polled: a task that is dropped before has found no runtime to run on.
    polled: bool,
    /// It takes what is ready.
    gathers: bool,
    rests: bool,
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.rests {
            return;
        }
        if !self.engine.queue.worker_died(self.gathers) {
            return;
        }
        if self.polled && std::thread::panicking() {
            // Its own repositories have failed with it; another worker sees to the others.
            start(&self.engine);
        } else {
            self.engine.end(End::Runtime);
        }
    }
}

/// Starts a worker, which the queue has counted.
pub(super) fn start(engine: &Arc<Engine>) {
    let worker = Worker {
        engine: Arc::clone(engine),
        polled: false,
        gathers: true,
        rests: false,
    };
    engine.executor.spawn(async move {
        // Moves all of it in here: of a `Copy` field alone, the task would have a copy.
        let mut worker = worker;
        worker.polled = true;
        work(&mut worker).await;
        worker.rests = true;
    });
}

/// Carries batches until nothing is left.
async fn work(worker: &mut Worker) {
    let engine = Arc::clone(&worker.engine);
    loop {
        let gathered = gather(&engine).await;
        if gathered.is_empty() {
            if engine.queue.rest() {
                return;
            }
            continue;
        }
        worker.gathers = false;
        if engine.queue.leave() {
            start(&engine);
        }
        carry(&engine, gathered).await;
        engine.queue.come_back();
        worker.gathers = true;
    }
}

/// Takes what is ready, and what comes while other tasks have their turn.
async fn gather(engine: &Engine) -> Vec<Token> {
    let most = engine.store.descriptor.repositories_per_batch;
    let mut work: Vec<Token> = Vec::new();
    let (mut known, mut quiet) = ((0, 0), 0);
    for _ in 0..MOST_YIELDS {
        tokio::task::yield_now().await;
        engine.queue.take(&mut work, most);
        let pending = match work.as_slice() {
            [only] => only
                .cell()
                .map_or(0, |cell| cell.lock().machine.pending_count()),
            _ => 0,
        };
        let more = work.len() > known.0 || pending > known.1;
        known = (work.len(), pending);
        quiet = if more { 0 } else { quiet + 1 };
        if quiet == QUIET_YIELDS || work.len() == most {
            break;
        }
    }
    work
}

/// Plans, commits and settles for all of these repositories once. Those that have more to do
/// take their turn behind the others.
async fn carry(engine: &Arc<Engine>, work: Vec<Token>) {
    let session = engine.fence.session().0;
    let mut batch = Vec::with_capacity(work.len());
    let mut leaving = Vec::with_capacity(work.len());
    for token in work {
        let Some(cell) = token.cell() else {
            continue;
        };
        match engine.plan(cell) {
            // A session that was opened since `session` was read plans anew after the refusal.
            Action::Commit(_, commit) => {
                batch.extend(*commit);
                leaving.push(token);
            }
            action => engine.resume(token, &action),
        }
    }
    if batch.is_empty() {
        return;
    }
    let commit = engine.store.commit(session, batch);
    let answer = engine.store.answer(commit, leaving.len()).await;
    let mut again = Vec::new();
    engine.settle(session, leaving, answer, |token, action| match action {
        Action::Plan => again.push(token),
        action => engine.resume(token, &action),
    });
    engine.queue.push_again(again.into_iter());
}
