//! Ends or disowns the runs of dead sessions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::error::Error;
use crate::manager::commit::token::Token;
use crate::manager::engine::Engine;
use crate::manager::registry::{AnswerReceiver, Cell};
use crate::pauses::jittered;
use crate::protocol::{Command, Death};
use crate::value::SessionId;

/// The dead sessions that are seen to, or were.
type SeenTo = Mutex<HashMap<SessionId, Death>>;

pub(super) async fn expire(engine: Arc<Engine>) {
    // A session is here from the moment on at which a task sees to it.
    let seen_to = Arc::new(Mutex::new(HashMap::new()));
    loop {
        let next = Instant::now() + jittered(engine.options.sweep_interval);
        tokio::select! {
            () = sleep_until(next) => {}
            () = engine.session_died.notified() => {}
        }
        let dead = engine.store.driver.dead_sessions();
        match engine.store.read(dead, "sweep").await {
            Ok(dead) => {
                let (own, _) = engine.fence.session();
                if dead.iter().any(|(session, _)| *session == own) && engine.fence.lose(own) {
                    // Whatever the keep-alive waits for: the store has said it.
                    tracing::debug!(session = %own, "the store counts the session as dead");
                }
                see_to(&engine, &seen_to, dead);
            }
            Err(error) => {
                tracing::warn!(%error, "could not look for dead sessions; trying again");
            }
        }
    }
}

/// Each in a task of its own: one that cannot be seen to does not hold up the others.
fn see_to(engine: &Arc<Engine>, seen_to: &Arc<SeenTo>, dead: Vec<(SessionId, Death)>) {
    let mut seen = seen_to.lock().unwrap_or_else(PoisonError::into_inner);
    seen.retain(|session, _| dead.iter().any(|(other, _)| other == session));
    for (session, death) in dead {
        if seen.insert(session, death) == Some(death) {
            continue;
        }
        let (engine, seen_to) = (Arc::clone(engine), Arc::clone(seen_to));
        Arc::clone(&engine).executor.spawn(async move {
            if let Err(error) = engine.expire(session, death, "sweep").await {
                tracing::warn!(%session, %error, "could not see to a dead session; trying again");
                let mut seen = seen_to.lock().unwrap_or_else(PoisonError::into_inner);
                seen.remove(&session);
            }
        });
    }
}

impl Engine {
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
