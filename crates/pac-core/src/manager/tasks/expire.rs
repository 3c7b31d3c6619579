//! Ends or disowns the runs of dead sessions: of one session after the other.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::error::Error;
use crate::manager::commit::token::Token;
use crate::manager::engine::Engine;
use crate::manager::log;
use crate::manager::registry::{AnswerReceiver, Cell};
use crate::pauses::jittered;
use crate::protocol::{Command, Death};
use crate::value::SessionId;

/// So long the next session waits for one that cannot be seen to. That one is not given up: it
/// goes on beside the next, until its requests have failed.
const PATIENCE: Duration = Duration::from_millis(250);

/// The dead sessions of the last list, each with how it is seen to or was.
#[derive(Debug)]
struct Listed {
    dead: Mutex<HashMap<SessionId, Death>>,
    /// Has one permit: for seeing to a session.
    turn: Semaphore,
}

pub(super) async fn expire(engine: Arc<Engine>) {
    let listed = Arc::new(Listed {
        dead: Mutex::default(),
        turn: Semaphore::new(1),
    });
    let mut returns = engine.store.contact.follow();
    let mut failures = 0_u32;
    let mut rewinds = engine.vitals.rewinds();
    // A store that answers some requests and others not comes back again and again.
    let mut returned: Option<Instant> = None;
    loop {
        let next = Instant::now() + jittered(engine.options.sweep_interval);
        let heeds = returned.is_none_or(|at| at.elapsed() >= engine.options.sweep_interval);
        tokio::select! {
            () = sleep_until(next) => {}
            () = engine.session_died.notified() => {}
            () = returns.next(), if heeds => returned = Some(Instant::now()),
        }
        let dead = engine.store.driver.dead_sessions();
        match engine.store.read(dead, "sweep").await {
            Ok(dead) => {
                failures = 0;
                if engine.vitals.rewinds() != rewinds {
                    // What was seen to may be there again.
                    rewinds = engine.vitals.rewinds();
                    listed.dead().clear();
                }
                let (own, _) = engine.fence.session();
                if dead.iter().any(|(session, _)| *session == own) && engine.fence.lose(own) {
                    // Whatever the keep-alive waits for: the store has said it.
                    tracing::debug!(session = %own, "the store counts the session as dead");
                }
                let news = listed.renew(dead);
                tell_of(&engine, &news);
                for (session, death) in news {
                    // It may have kept the time limits of runs that it did not own.
                    engine.timed.look();
                    start(&engine, &listed, session, death);
                }
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                if failures.is_power_of_two() {
                    let why = "could not look for dead sessions; trying again";
                    tracing::warn!(%error, failures, "{why}");
                }
            }
        }
        // The sweep itself was the one to be answered.
        returns.begin();
    }
}

impl Listed {
    /// Takes the list as it is now. Gives what is new in it.
    fn renew(&self, now: Vec<(SessionId, Death)>) -> Vec<(SessionId, Death)> {
        let now: HashMap<SessionId, Death> = now.into_iter().collect();
        let mut dead = self.dead();
        let before = std::mem::replace(&mut *dead, now);
        let listed = dead.iter().map(|(session, death)| (*session, *death));
        let is_new = |(session, death): &(SessionId, Death)| before.get(session) != Some(death);
        listed.filter(is_new).collect()
    }

    fn has(&self, session: SessionId, death: Death) -> bool {
        self.dead().get(&session) == Some(&death)
    }

    fn dead(&self) -> MutexGuard<'_, HashMap<SessionId, Death>> {
        self.dead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says in the log who the dead were, where anybody reads that. In a task: nothing waits for it.
fn tell_of(engine: &Arc<Engine>, news: &[(SessionId, Death)]) {
    if news.is_empty() || !tracing::enabled!(tracing::Level::INFO) {
        return;
    }
    let (work, deaths) = (
        Arc::clone(engine),
        HashMap::<_, _>::from_iter(news.to_vec()),
    );
    engine.executor.spawn(async move {
        let sessions: Vec<SessionId> = deaths.keys().copied().collect();
        let known = work.store.driver.sessions(&sessions);
        match timeout(work.options.request_timeout, known).await {
            Ok(Ok(known)) => {
                for (session, info) in known {
                    if let Some(death) = deaths.get(&session) {
                        log::session_died(session, *death, &info);
                    }
                }
            }
            Ok(Err(error)) => tracing::debug!(%error, "who the dead were cannot be read"),
            Err(_) => tracing::debug!("who the dead were was not read in time"),
        }
    });
}

/// Sees to a session in a task, which ends with the manager.
fn start(engine: &Arc<Engine>, listed: &Arc<Listed>, session: SessionId, death: Death) {
    let (work, listed) = (Arc::clone(engine), Arc::clone(listed));
    engine.executor.spawn(async move {
        tokio::select! {
            () = see_to(&work, &listed, session, death) => {}
            _ = work.lifecycle.over() => {}
        }
    });
}

/// Sees to a session, until that has succeeded or is not needed any more.
async fn see_to(engine: &Arc<Engine>, listed: &Listed, session: SessionId, death: Death) {
    let interval = engine.options.sweep_interval;
    if !engine.is_next_behind(session) {
        // The process that has the next waiter behind a run of this session goes first, and
        // mostly leaves nothing to be done.
        sleep(interval.mul_f64(0.2 + 0.4 * fastrand::f64())).await;
    }
    let mut failures = 0_u32;
    loop {
        // Never closed: without a permit, nothing is limited.
        let turn = listed.turn.acquire().await.ok();
        if !listed.has(session, death) {
            return;
        }
        let mut seen_to = pin!(engine.expire(session, death, "sweep"));
        let result = match timeout(PATIENCE, &mut seen_to).await {
            Ok(result) => {
                drop(turn);
                result
            }
            Err(_) => {
                drop(turn);
                seen_to.await
            }
        };
        let Err(error) = result else {
            return;
        };
        failures = failures.saturating_add(1);
        if failures.is_power_of_two() {
            let why = "could not see to a dead session; trying again";
            tracing::warn!(%session, %error, failures, "{why}");
        }
        engine.store.contact.pause(jittered(interval)).await;
    }
}

impl Engine {
    /// Whether the next run to start in some repository is one that waits here, behind a run of
    /// this session.
    fn is_next_behind(&self, session: SessionId) -> bool {
        let mut cells = self.registry.all().into_iter();
        cells.any(|cell| cell.lock().machine.is_next_behind(session))
    }

    /// Has the death of a session recorded in every repository in which it has entries.
    pub(in crate::manager) async fn expire(
        self: &Arc<Self>,
        session: SessionId,
        death: Death,
        operation: &'static str,
    ) -> Result<(), Error> {
        let left = self.store.driver.repositories_of(session);
        let mut answers = Vec::new();
        for key in self.store.read(left, operation).await? {
            let cell = self.repository(&key);
            answers.push(self.expire_in(&cell, session, death));
        }
        let mut failed = None;
        for answer in answers {
            let answer = match answer.await {
                Ok(answer) => answer.map_err(|error| *error),
                Err(_) => Err(self.lifecycle.no_answer(operation)),
            };
            failed = answer.err().or(failed);
        }
        failed.map_or(Ok(()), Err)
    }

    fn expire_in(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        session: SessionId,
        death: Death,
    ) -> AnswerReceiver {
        let (asker, answer) = oneshot::channel();
        let command = Command::Expire { session, death };
        let lead = self.input(cell, |input| {
            input.machine.note_dead(session);
            let env = input.env;
            input
                .machine
                .submit_last_will(env, command, asker, input.effects)
        });
        if lead {
            self.attend(Token::new(Arc::clone(cell)));
        }
        answer
    }
}
