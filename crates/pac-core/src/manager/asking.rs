//! How the manager's public calls become commands, and answers what the caller gets.

use std::sync::Arc;

use super::admission::{Admission, Ending, Lease, Waiter};
use super::lane::Carried;
use super::repository::Repository;
use super::request::{Answer, Asked, Reply};
use super::waiting::Grant;
use super::{ConcurrencyManager, log};
use crate::error::{Error, ErrorKind};
use crate::name::RepositoryKey;
use crate::protocol::{Admitted, Command, Outcome};
use crate::state::{EntryState, RepositoryState};

/// The answer to a command on its way. Dropped before it was taken, an admission is taken back.
#[derive(Debug)]
pub(super) struct Awaited<'a> {
    manager: &'a ConcurrencyManager,
    repository: &'a Arc<Repository>,
    answer: Answer,
    arrived: Option<Result<Reply, Error>>,
}

impl<'a> Awaited<'a> {
    pub(super) fn new(
        manager: &'a ConcurrencyManager,
        repository: &'a Arc<Repository>,
        answer: Answer,
    ) -> Self {
        Self {
            manager,
            repository,
            answer,
            arrived: None,
        }
    }

    /// Waits until the answer is there to be taken.
    pub(super) async fn arrive(&mut self) -> Result<(), Error> {
        let answer = (&mut self.answer).await;
        let answer = answer.unwrap_or_else(|_| Err(self.manager.shared().closed("command")));
        match self.arrived.insert(answer) {
            Ok(reply) => refusal(self.repository, reply).map_or(Ok(()), Err),
            Err(error) => Err(error.replicate()),
        }
    }

    pub(super) fn take(mut self) -> Result<Reply, Error> {
        let arrived = self.arrived.take();
        arrived.unwrap_or_else(|| Err(self.manager.shared().closed("command")))
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        // From here on an answer that comes finds nobody, and takes the admission back itself.
        self.answer.close();
        let answer = self.arrived.take().or_else(|| self.answer.try_recv().ok());
        if let Some(Ok(mut reply)) = answer {
            self.manager.shared().unheard(self.repository, &mut reply);
        }
    }
}

/// Why an answer is none that was hoped for.
fn refusal(repository: &Repository, reply: &Reply) -> Option<Error> {
    let Outcome::Admitted { admitted, .. } = reply.outcome else {
        return None;
    };
    let error = match (admitted, &reply.entry) {
        (Admitted::HeldElsewhere(session), _) => Error::new(
            ErrorKind::InvalidInput,
            "admit",
            format!(
                "session {session} has a live run of this name; choose another name, or wait until \
                 that one has ended"
            ),
        ),
        (Admitted::NotHeld | Admitted::Finished(_), _) | (_, Some(_)) => return None,
        (_, None) => Error::new(
            ErrorKind::Contended,
            "admit",
            "the repository was removed in the instant of the admission",
        ),
    };
    Some(error.in_repository(repository.key()))
}

impl ConcurrencyManager {
    pub(super) fn find(
        &self,
        repository: &RepositoryKey,
        operation: &'static str,
    ) -> Result<Arc<Repository>, Error> {
        self.shared().pulse.check(operation)?;
        Ok(self.shared().repository(repository))
    }

    pub(super) async fn take(
        &self,
        repository: &RepositoryKey,
        command: Command,
    ) -> Result<Admission, Error> {
        let repository = self.find(repository, "admit")?;
        let reply = self.ask(&repository, command).await?;
        self.admission(&repository, reply)
    }

    pub(super) async fn end(
        &self,
        repository: &Arc<Repository>,
        command: Command,
        operation: &'static str,
    ) -> Result<Ending, Error> {
        self.shared().pulse.check(operation)?;
        let reply = self.ask(repository, command).await?;
        match reply.outcome {
            Outcome::Ended { ended, promoted } => Ok(Ending {
                ended,
                entry: reply.entry,
                promoted,
            }),
            outcome => Err(unexpected(operation, &outcome)),
        }
    }

    pub(super) async fn ask(
        &self,
        repository: &Arc<Repository>,
        command: Command,
    ) -> Result<Reply, Error> {
        // Whoever is answered at once every time still lets other tasks run now and then.
        tokio::task::coop::consume_budget().await;
        let answer = match self.shared().carry_out(repository, command) {
            Carried::Out(Some(reply)) => return refusal(repository, &reply).map_or(Ok(reply), Err),
            Carried::Out(None) => return Err(self.shared().closed("command")),
            Carried::Later(answer) => answer,
        };
        let mut awaited = Awaited::new(self, repository, answer);
        awaited.arrive().await?;
        awaited.take()
    }

    /// What an answer means for who asked for a slot: where the run stands by now, which may be
    /// further on than the commit left it.
    pub(super) fn admission(
        &self,
        repository: &Arc<Repository>,
        reply: Reply,
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
                    repository: Arc::clone(repository),
                    entry,
                    token,
                    session,
                };
                Admission::Started(Lease::new(self, grant, guarded))
            }
            (EntryState::Queued { .. }, Some(place)) => {
                if guarded && tracing::enabled!(tracing::Level::INFO) {
                    log::limit_reached(repository.key());
                }
                let repository = Arc::clone(repository);
                Admission::Queued(Waiter::new(self.clone(), repository, entry, place))
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
        let repository = self.find(key, "read")?;
        let mut since = repository.revision();
        loop {
            let snapshot = self.shared().load(key, since).await?;
            let (shown, lead) = repository.shown(self.shared(), &snapshot, &view)?;
            self.shared().follow_up(&repository, lead);
            if let Some(shown) = shown {
                return Ok(shown);
            }
            since = None;
        }
    }
}

pub(super) fn unexpected(operation: &'static str, outcome: &Outcome) -> Error {
    Error::new(
        ErrorKind::Internal,
        operation,
        format!("the protocol answered {outcome:?}"),
    )
}
