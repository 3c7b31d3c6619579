//! From a call to the answer: command → request → guard of the reply → what the caller gets.

pub(super) mod ask;

use std::sync::Arc;

use super::ConcurrencyManager;
use super::handles::admission::{Admission, Ending};
use super::handles::lease::Lease;
use super::handles::waiter::Waiter;
use super::log;
use super::registry::{Cell, Channels};
use super::repository::effects::{Grant, Reply};
use super::repository::request::Asked;
use crate::error::{Error, ErrorKind};
use crate::name::RepositoryKey;
use crate::protocol::{Admitted, Command, Outcome};
use crate::state::{EntryState, RepositoryState};

impl ConcurrencyManager {
    /// The repository, for a call that the manager still takes.
    pub(super) fn find(
        &self,
        repository: &RepositoryKey,
        operation: &'static str,
    ) -> Result<Arc<Cell>, Error> {
        self.engine().lifecycle.check(operation)?;
        Ok(self.engine().repository(repository))
    }

    /// The repository of a lease, as this manager knows it; the lease may be another manager's.
    pub(super) fn cell_of(
        &self,
        lease: &Lease,
        operation: &'static str,
    ) -> Result<Arc<Cell>, Error> {
        let (keeper, engine) = (lease.cell().keeper.as_ptr(), Arc::as_ptr(self.engine()));
        if !std::ptr::addr_eq(keeper, engine) {
            return self.find(lease.repository(), operation);
        }
        self.engine().lifecycle.check(operation)?;
        Ok(Arc::clone(lease.cell()))
    }

    /// Carries out one command, and waits for its answer.
    pub(super) async fn ask(
        &self,
        cell: &Arc<Cell>,
        command: Command,
    ) -> Result<Box<Reply<Channels>>, Error> {
        let mut asking = self.engine().ask(cell, std::iter::once(command));
        // After the command was submitted: dropped here, it is carried out all the same.
        be_fair().await;
        let answered = asking.arrive(0).await;
        answered.and_then(|()| asking.take(0))
    }

    /// Carries out a command that asks for a slot.
    pub(super) async fn take(
        &self,
        repository: &RepositoryKey,
        command: Command,
    ) -> Result<Admission, Error> {
        // Before it is submitted: no other task has its turn while the slot is held.
        be_fair().await;
        let cell = self.find(repository, "admit")?;
        let mut asking = self.engine().ask(&cell, std::iter::once(command));
        asking.arrive(0).await?;
        self.admission(&cell, *asking.take(0)?)
    }

    /// Carries out a command that ends a run.
    pub(super) async fn end(
        &self,
        cell: &Arc<Cell>,
        command: Command,
        operation: &'static str,
    ) -> Result<Ending, Error> {
        self.engine().lifecycle.check(operation)?;
        let reply = self.ask(cell, command).await?;
        match reply.outcome {
            Outcome::Ended { ended, promoted } => {
                Ok(Ending::new(ended, promoted, reply.entry, reply.waits))
            }
            outcome => Err(unexpected(operation, &outcome)),
        }
    }

    /// What an answer means for the asker of a slot: where the run stands by now, which may be
    /// further on than the commit left it.
    pub(super) fn admission(
        &self,
        cell: &Arc<Cell>,
        reply: Reply<Channels>,
    ) -> Result<Admission, Error> {
        if let (Outcome::Admitted { admitted, .. }, None) = (&reply.outcome, &reply.entry)
            && let Admitted::Finished(outcome) = admitted
        {
            return Ok(Admission::Finished(*outcome));
        }
        let (&Outcome::Admitted { created, .. }, Some(entry)) = (&reply.outcome, reply.entry)
        else {
            return Err(unexpected("admit", &reply.outcome));
        };
        // Asked for again, a run still ends with its first lease; given back, with its new one.
        let guarded = created || reply.carries.is_some() || reply.asked == Asked::Requeue;
        Ok(match (entry.state, reply.place) {
            (EntryState::Started { token, session, .. }, _) => {
                let grant = Grant {
                    entry,
                    token,
                    session,
                    running: false,
                };
                let era = self.engine().fence.era();
                Admission::Started(Lease::new(self, cell, grant, era, guarded))
            }
            (EntryState::Queued { .. }, Some(place)) => {
                if guarded && tracing::enabled!(tracing::Level::INFO) {
                    log::limit_reached(cell.key());
                }
                Admission::Queued(Waiter::new(self.clone(), Arc::clone(cell), entry, place))
            }
            (EntryState::Finished { outcome, .. }, _) => Admission::Finished(outcome),
            (EntryState::Queued { .. }, None) => {
                return Err(unexpected("admit", &reply.outcome));
            }
        })
    }

    /// Reads what has changed, and shows the state to `view`.
    pub(super) async fn read<T>(
        &self,
        key: &RepositoryKey,
        view: impl Fn(&RepositoryState) -> T,
    ) -> Result<T, Error> {
        let cell = self.find(key, "read")?;
        self.engine().read_now(&cell, view).await
    }
}

impl super::engine::Engine {
    /// The repository; one that becomes known only after the end of the manager has ended too.
    pub(super) fn repository(self: &Arc<Self>, key: &RepositoryKey) -> Arc<Cell> {
        let (cell, new) = self.registry.get_or_insert(key);
        if new && let Err(why) = self.lifecycle.check("open repository") {
            self.end_repository(&cell, &why);
        }
        cell
    }

    pub(super) async fn read_now<T>(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        view: impl Fn(&RepositoryState) -> T,
    ) -> Result<T, Error> {
        let (mut since, above) = {
            let inner = cell.lock();
            (inner.machine.version(), inner.machine.floor())
        };
        self.in_time("read", async {
            loop {
                let snapshot = self.store.load(cell.key(), since).await?;
                let (shown, lead) = self.input(cell, |input| {
                    let (env, effects) = (input.env, &mut *input.effects);
                    input.machine.on_read(env, &snapshot, above, &view, effects)
                })?;
                self.follow_up(cell, lead);
                if let Some(shown) = shown {
                    return Ok(shown);
                }
                since = None;
            }
        })
        .await
    }

    /// A call that changes nothing, within the command timeout, whatever it has to wait for, and
    /// on whatever thread it is polled.
    pub(super) async fn in_time<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let within = self.options.command_timeout;
        let call = async {
            match tokio::time::timeout(within, call).await {
                Ok(answer) => answer,
                Err(_) => {
                    let message = "there was no answer within the command timeout";
                    Err(Error::new(ErrorKind::Unavailable, operation, message))
                }
            }
        };
        tokio::select! {
            biased;
            // First: a timer must not be asked any more once its runtime was shut down.
            why = self.lifecycle.over() => Err(why.error(operation)),
            answer = self.executor.within(call) => answer,
        }
    }
}

/// Lets other tasks have their turn now and then, also where every answer is there at once.
async fn be_fair() {
    tokio::task::coop::consume_budget().await;
}

/// Why an answer brings no admission, if it brings none.
pub(super) fn refusal(repository: &RepositoryKey, reply: &Reply<Channels>) -> Option<Error> {
    let Outcome::Admitted { admitted, .. } = reply.outcome else {
        return None;
    };
    let error = match (admitted, &reply.entry) {
        (Admitted::HeldElsewhere(session), _) => Error::new(
            ErrorKind::NameInUse,
            "admit",
            format!(
                "session {session} has a live run of this name; choose another name, or wait \
                 until that one has ended"
            ),
        ),
        (Admitted::QueueFull { queued }, _) => Error::new(
            ErrorKind::QueueFull,
            "admit",
            format!(
                "{queued} waiting already, and its max-queued lets no more wait; ask again later"
            ),
        ),
        (Admitted::TooHeavy { weight, limit }, _) => Error::new(
            ErrorKind::InvalidInput,
            "admit",
            format!(
                "the run takes {weight} slots at once, and the limit of the repository is {limit}: \
                 raise the limit, or ask for fewer"
            ),
        ),
        (Admitted::Skipped { queued, started }, _) => Error::new(
            ErrorKind::Skipped,
            "admit",
            format!("{queued} waiting and {started} running, and nothing was to be queued then"),
        ),
        (Admitted::NotHeld | Admitted::Finished(_), _) | (_, Some(_)) => return None,
        (_, None) => Error::new(
            ErrorKind::Contended,
            "admit",
            "the repository was removed in the instant of the admission",
        ),
    };
    Some(error.in_repository(repository))
}

pub(super) fn unexpected(operation: &'static str, outcome: &Outcome) -> Error {
    Error::new(
        ErrorKind::Internal,
        operation,
        format!("the protocol answered {outcome:?}"),
    )
}
