//! Gives an input to a repository under its lock, and delivers the effects after the lock was
//! released.

use std::sync::{Arc, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::event::Event;
use crate::manager::commit::token::Token;
use crate::manager::engine::Engine;
use crate::manager::registry::{Cell, Channels, Inner};
use crate::manager::repository::Repository;
use crate::manager::repository::effects::{
    Answer, AnswerResult, Effects, Grant, Reply, Turn, TurnMessage,
};
use crate::manager::repository::env::Env;
use crate::manager::repository::request::RequestId;

/// A repository under its lock, and what an input to it takes.
pub(in crate::manager) struct Input<'a> {
    pub(in crate::manager) machine: &'a mut Repository<Channels>,
    pub(in crate::manager) env: &'a Env,
    pub(in crate::manager) effects: &'a mut Effects<Channels>,
}

/// A caller that is still in the call which submitted its requests.
pub(in crate::manager) trait Caller {
    /// Takes an answer in. Gives it back when it is none to this caller's requests.
    fn put(
        &mut self,
        request: RequestId,
        answer: AnswerResult<Channels>,
    ) -> Option<AnswerResult<Channels>>;

    /// Whether nothing is to be answered in this call any more.
    fn is_answered(&self) -> bool;

    /// What has no answer yet will be answered through a channel.
    fn listen(&mut self, cell: &Cell);
}

/// The same caller, for a call within this one.
pub(in crate::manager) fn again<'a>(
    caller: &'a mut Option<&mut dyn Caller>,
) -> Option<&'a mut dyn Caller> {
    match caller {
        Some(caller) => Some(&mut **caller),
        None => None,
    }
}

/// Whether an input depends on the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::manager) enum Time {
    /// It does: a clock is read.
    Now,
    /// It does not: [`Env::now`] is some earlier moment.
    NoMatter,
}

impl Engine {
    /// The world as it is now.
    fn env(&self, time: Time) -> Env {
        let (session, session_lost) = self.fence.session();
        let closing = self.lifecycle.is_over();
        Env {
            session,
            session_lost,
            // A manager that closes leaves what it gives up to others.
            takes_ownerless: self.grants.takes() && !closing,
            closing,
            in_process: self.store.is_in_process(),
            entry_budget: self.store.entry_budget(),
            retention: self.store.descriptor.retention,
            command_timeout: self.options.command_timeout,
            now: match time {
                Time::Now => Instant::now(),
                Time::NoMatter => self.opened_at,
            },
        }
    }

    /// Gives an input to a repository, and delivers its effects.
    pub(in crate::manager) fn input<R>(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        input: impl FnOnce(&mut Input<'_>) -> R,
    ) -> R {
        self.input_for(cell, Time::Now, input, None)
    }

    /// The same for a caller that is there to take the answers to what it is `asking`.
    pub(in crate::manager) fn input_for<R>(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        time: Time,
        input: impl FnOnce(&mut Input<'_>) -> R,
        asking: Option<&mut dyn Caller>,
    ) -> R {
        let mut effects = Effects::default();
        let mut inner = cell.lock();
        // Made under the lock, so that a repository never sees an older session after a newer.
        let env = self.env(time);
        let result = input(&mut Input {
            machine: &mut inner.machine,
            env: &env,
            effects: &mut effects,
        });
        if !effects.is_empty() {
            self.hand_on(cell, inner, &mut effects, asking);
        }
        result
    }

    /// Delivers what an input led to, in order, after the lock is released. Apart from
    /// [`input_for`](Self::input_for), of which there is a copy in the program for each input.
    fn hand_on(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        mut inner: MutexGuard<'_, Inner>,
        effects: &mut Effects<Channels>,
        asking: Option<&mut dyn Caller>,
    ) {
        // Dropped after the lock is released: it wakes those that watch.
        let mut ended = None;
        if let Some(why) = effects.unreadable.take() {
            inner.unreadable = Some(Arc::new(why));
            // Each watch finds its stream of steps ended, and then the reason.
            ended = inner.steps.take();
        }
        let steps = inner.steps.as_ref().filter(|_| effects.stepped).cloned();
        let mut untaken = Vec::new();
        if effects.events.is_empty() && effects.grants.is_empty() {
            drop(inner);
        } else {
            untaken = self.tell_in_order(cell, inner, effects);
        }
        drop(ended);
        if let Some(steps) = steps {
            steps.send_modify(|step| *step += 1);
        }
        self.deliver(cell, effects, asking);
        for grant in untaken {
            self.give_back(cell, &grant);
        }
    }

    /// Delivers events and grants in the order in which they came about. Gives back the grants
    /// that nobody takes.
    fn tell_in_order(
        &self,
        cell: &Arc<Cell>,
        mut inner: MutexGuard<'_, Inner>,
        effects: &mut Effects<Channels>,
    ) -> Vec<Grant> {
        for event in &effects.events {
            if let Event::CancelRequested { token, .. } = event {
                inner.tell_asked(*token);
            }
        }
        let in_order = cell.delivery.lock();
        let in_order = in_order.unwrap_or_else(PoisonError::into_inner);
        drop(inner);
        for event in effects.events.drain(..) {
            self.events.tell(event);
        }
        let mut untaken = Vec::new();
        for grant in effects.grants.drain(..) {
            if let Err((_, grant)) = self.grants.push((Arc::clone(cell), grant)) {
                untaken.push(grant);
            }
        }
        drop(in_order);
        untaken
    }

    fn deliver(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        effects: &mut Effects<Channels>,
        mut asking: Option<&mut dyn Caller>,
    ) {
        if let Some(session) = effects.session_lost.take()
            && self.fence.lose(session)
        {
            tracing::debug!(%session, "a commit was refused: the session is over");
        }
        if let Some(rewound) = effects.rewound.take() {
            self.store_rewound(cell, rewound);
        }
        if effects.wake {
            cell.wake.notify_one();
        }
        if let Some(first) = effects.timed.take() {
            self.timed.note(cell, first);
        }
        for answer in effects.replies.drain(..) {
            self.deliver_answer(cell, answer, &mut asking);
        }
        for turn in effects.turns.drain(..) {
            self.deliver_turn(cell, turn);
        }
        for (loss, why) in effects.losses.drain(..) {
            // Its holder may have gone.
            let _ = loss.send(why);
        }
    }

    fn deliver_answer(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        answer: Answer<Channels>,
        asking: &mut Option<&mut dyn Caller>,
    ) {
        let unheard = match (answer.asker, asking) {
            (Some(asker), _) => asker.send(answer.result).err(),
            (None, Some(asking)) => asking.put(answer.request, answer.result),
            (None, None) => Some(answer.result),
        };
        if let Some(Ok(reply)) = unheard {
            self.reply_was_not_heard(cell, reply);
        }
    }

    fn deliver_turn(self: &Arc<Self>, cell: &Arc<Cell>, turn: Turn<Channels>) {
        let Turn {
            waiter,
            notice,
            message,
        } = turn;
        if let Err(message) = notice.send(message) {
            let lead = self.input(cell, |input| {
                let machine = &mut input.machine;
                machine.on_turn_undelivered(input.env, waiter, message, input.effects)
            });
            self.follow_up(cell, lead);
        }
    }

    /// An answer found nobody: an admission is taken back.
    pub(in crate::manager) fn reply_was_not_heard(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        mut reply: Box<Reply<Channels>>,
    ) {
        // All of it under the lock of the repository: a turn that cannot be delivered from here on
        // comes back only after the repository knows that its waiter has gone.
        let lead = self.input(cell, |input| {
            if let Some(place) = &mut reply.place {
                place.end.close();
                match place.end.try_recv() {
                    Ok(TurnMessage::Started(grant)) => reply.carries = Some(grant),
                    // Nothing is left to give up.
                    Ok(TurnMessage::Over(_)) => reply.place = None,
                    Err(_) => {}
                }
            }
            let machine = &mut input.machine;
            machine.on_reply_undelivered(input.env, reply, input.effects)
        });
        self.follow_up(cell, lead);
    }

    /// A slot that nobody takes is given back.
    pub(in crate::manager) fn give_back(self: &Arc<Self>, cell: &Arc<Cell>, grant: &Grant) {
        let lead = self.input(cell, |input| {
            input.machine.give_back(input.env, grant, input.effects)
        });
        self.follow_up(cell, lead);
    }

    /// Has a repository seen to in a task, if it has given the caller the right to.
    pub(in crate::manager) fn follow_up(self: &Arc<Self>, cell: &Arc<Cell>, lead: bool) {
        if lead {
            self.attend_later(Token::new(Arc::clone(cell)));
        }
    }

    /// Has a repository read again, now if that matters to anybody, else when it is next used.
    pub(in crate::manager) fn look_again(self: &Arc<Self>, cell: &Arc<Cell>) {
        let lead = self.input(cell, |input| input.machine.look_again(input.effects));
        self.follow_up(cell, lead);
    }

    /// Submits a command of the manager's own, which is tried until it succeeds.
    pub(in crate::manager) fn send(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        command: crate::protocol::Command,
    ) {
        let lead = self.input(cell, |input| {
            input.machine.submit_own(input.env, command, input.effects)
        });
        self.follow_up(cell, lead);
    }
}
