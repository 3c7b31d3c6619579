//! Requests on their way, seen from the call that made them.

use std::sync::Arc;

use smallvec::SmallVec;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::refusal;
use crate::error::{Error, ErrorKind};
use crate::manager::commit::drive::Step;
use crate::manager::commit::token::Claim;
use crate::manager::engine::Engine;
use crate::manager::notify::dispatch::{Caller, Input, Time};
use crate::manager::registry::{AnswerReceiver, Cell, Channels};
use crate::manager::repository::effects::{Action, Answer as Answered, AnswerResult, Reply};
use crate::manager::repository::request::{Listener, Request, RequestId};
use crate::protocol::Command;

type Answer = AnswerResult<Channels>;

/// Requests whose answers are awaited. Dropped before they were taken, admissions are taken back.
#[derive(Debug)]
pub(in crate::manager) struct Asking<'a> {
    engine: &'a Arc<Engine>,
    cell: &'a Arc<Cell>,
    /// The first request; the others have the numbers after it.
    first: RequestId,
    slots: SmallVec<[Slot; 1]>,
    deadline: Option<Instant>,
}

/// Where the answer to one request is.
#[derive(Debug)]
enum Slot {
    /// Not known yet: it comes in this very call, or [`Asking::listen`] is called.
    Here,
    Coming(AnswerReceiver),
    Arrived(Answer),
    Taken,
}

impl Engine {
    /// Submits commands that are planned together and in this order. Each is carried out, or
    /// fails, whether or not its answer is awaited; only an admission that nobody awaits any
    /// more is taken back.
    ///
    /// On a store without round trips the answers are there when this returns, unless something
    /// has to be waited for at the repository: they need neither a task nor a channel.
    pub(in crate::manager) fn ask<'a>(
        self: &'a Arc<Self>,
        cell: &'a Arc<Cell>,
        commands: impl ExactSizeIterator<Item = Command>,
    ) -> Asking<'a> {
        let mut asking = Asking {
            engine: self,
            cell,
            first: RequestId::default(),
            slots: SmallVec::new(),
            deadline: None,
        };
        let in_process = self.store.is_in_process();
        let time = if in_process {
            Time::NoMatter
        } else {
            Time::Now
        };
        let mut claim = Claim::on(cell);
        let submit = |input: &mut Input<'_>| {
            let env = input.env;
            let at_once = in_process && !input.machine.is_busy();
            if !at_once {
                let now = if in_process { Instant::now() } else { env.now };
                asking.deadline = now.checked_add(env.command_timeout);
            }
            let requests = commands.map(|command| {
                let (listener, slot) = if at_once {
                    (Listener::Caller, Slot::Here)
                } else {
                    let (asker, answer) = oneshot::channel();
                    (Listener::Channel(asker), Slot::Coming(answer))
                };
                asking.slots.push(slot);
                Request::new(command, listener, asking.deadline)
            });
            let (first, lead) = input.machine.submit(env, requests, input.effects);
            asking.first = first;
            claim.is_granted = lead;
            if !(lead && at_once) {
                return Step::Then(Action::Plan);
            }
            let step = self.step(input);
            claim.is_granted = !matches!(step, Step::Then(Action::Rest));
            asking.collect(&mut input.effects.replies);
            step
        };
        let step = self.input_for(cell, time, submit, None);
        if let Some(token) = claim.token() {
            if in_process {
                self.drive(token, step, Some(&mut asking));
            } else {
                self.attend(token);
            }
        }
        asking
    }
}

impl Caller for Asking<'_> {
    fn is_answered(&self) -> bool {
        !self.slots.iter().any(|slot| matches!(slot, Slot::Here))
    }

    fn put(&mut self, request: RequestId, answer: Answer) -> Option<Answer> {
        let at = request.0.checked_sub(self.first.0);
        let slot = at.and_then(|at| self.slots.get_mut(usize::try_from(at).ok()?));
        match slot {
            Some(slot @ Slot::Here) => {
                *slot = Slot::Arrived(answer);
                None
            }
            _ => Some(answer),
        }
    }

    fn listen(&mut self, cell: &Cell) {
        if self.is_answered() {
            return;
        }
        let within = self.engine.options.command_timeout;
        self.deadline = Instant::now().checked_add(within);
        let mut inner = cell.lock();
        for (request, slot) in (self.first.0..).zip(&mut self.slots) {
            if matches!(slot, Slot::Here) {
                let (asker, answer) = oneshot::channel();
                *slot = Slot::Coming(answer);
                // One that was answered already has an end that is dropped here.
                drop(
                    inner
                        .machine
                        .listen(RequestId(request), asker, self.deadline),
                );
            }
        }
    }
}

impl Asking<'_> {
    /// Takes the answers in that are for this call.
    fn collect(&mut self, answers: &mut SmallVec<[Answered<Channels>; 1]>) {
        for mut answer in std::mem::take(answers) {
            if answer.asker.is_none() {
                match self.put(answer.request, answer.result) {
                    None => continue,
                    Some(result) => answer.result = result,
                }
            }
            answers.push(answer);
        }
    }

    /// Waits until an answer is there to be taken, but no longer than the command timeout since
    /// the request was submitted.
    ///
    /// # Errors
    /// What went wrong, when the answer says so.
    pub(in crate::manager) async fn arrive(&mut self, at: usize) -> Result<(), Error> {
        let number = self.first.0 + at as u64;
        let Some(slot) = self.slots.get_mut(at) else {
            return Err(self.engine.lifecycle.no_answer("command"));
        };
        if let Slot::Coming(answer) = slot {
            let late = self.deadline.map(|deadline| {
                let sleep = async move { sleep_until(deadline).await };
                self.engine.executor.within(sleep)
            });
            let late = async {
                match late {
                    Some(late) => late.await,
                    None => std::future::pending().await,
                }
            };
            let arrived = tokio::select! {
                biased;
                arrived = &mut *answer => Some(arrived),
                () = late => None,
            };
            let answer = match arrived {
                Some(Ok(answer)) => answer,
                Some(Err(_)) => Err(Box::new(self.engine.lifecycle.no_answer("command"))),
                None => {
                    let id = RequestId(number);
                    let why = self.engine.input(self.cell, |input| {
                        input.machine.on_asker_late(id, input.env.now)
                    });
                    match why {
                        Some(why) => Err(Box::new(why.in_repository(self.cell.key()))),
                        // The answer is on its way already.
                        None => match answer.await {
                            Ok(answer) => answer,
                            Err(_) => Err(Box::new(self.engine.lifecycle.no_answer("command"))),
                        },
                    }
                }
            };
            *slot = Slot::Arrived(answer);
        }
        match slot {
            Slot::Arrived(answer) => match answer {
                Ok(reply) => refusal(self.cell.key(), reply).map_or(Ok(()), Err),
                Err(error) => Err(error.replicate()),
            },
            _ => Err(self.engine.lifecycle.no_answer("command")),
        }
    }

    /// The answer that has arrived.
    ///
    /// # Errors
    /// The failure that the answer is; `Internal` when it did not arrive.
    pub(in crate::manager) fn take(&mut self, at: usize) -> Result<Box<Reply<Channels>>, Error> {
        let slot = self.slots.get_mut(at);
        match slot.map(|slot| std::mem::replace(slot, Slot::Taken)) {
            Some(Slot::Arrived(answer)) => answer.map_err(|error| *error),
            _ => Err(Error::new(
                ErrorKind::Internal,
                "command",
                "an answer was taken that had not arrived",
            )),
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if self.slots.iter().all(|slot| matches!(slot, Slot::Taken)) {
            return;
        }
        let slots = std::mem::take(&mut self.slots);
        for (request, slot) in (self.first.0..).zip(slots) {
            let answer = match slot {
                Slot::Taken => continue,
                Slot::Arrived(answer) => Some(answer),
                Slot::Here => None,
                Slot::Coming(mut answer) => {
                    // From here on an answer finds nobody, and takes the admission back itself.
                    answer.close();
                    answer.try_recv().ok()
                }
            };
            match answer {
                Some(Ok(reply)) => self.engine.reply_was_not_heard(self.cell, reply),
                Some(Err(_)) => {}
                None => {
                    let id = RequestId(request);
                    self.cell.lock().machine.on_asker_gone(id);
                }
            }
        }
    }
}
