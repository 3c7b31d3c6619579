//! How the manager's public calls become commands, and answers what the caller gets.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::ConcurrencyManager;
use super::admission::{Admission, Ending, Grant, Lease, Waiter};
use super::repository::{Reply, Repository};
use crate::error::{Error, ErrorKind};
use crate::name::RepositoryKey;
use crate::protocol::{Admitted, Command, Outcome};
use crate::state::{EntryState, RepositoryState};
use crate::value::SessionId;

/// The answer to a command on its way. Dropped before it was taken, an admission is taken back.
#[derive(Debug)]
pub(super) struct Awaited<'a> {
    manager: &'a ConcurrencyManager,
    repository: &'a Arc<Repository>,
    answer: oneshot::Receiver<Result<Reply, Error>>,
    arrived: Option<Result<Reply, Error>>,
}

impl<'a> Awaited<'a> {
    pub(super) fn new(
        manager: &'a ConcurrencyManager,
        repository: &'a Arc<Repository>,
        answer: oneshot::Receiver<Result<Reply, Error>>,
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
        let answer = answer.unwrap_or_else(|_| Err(self.manager.closed("command")));
        match self.arrived.insert(answer) {
            Ok(reply) => refusal(self.repository, reply).map_or(Ok(()), Err),
            Err(error) => Err(error.replicate()),
        }
    }

    pub(super) fn take(mut self) -> Result<Reply, Error> {
        let arrived = self.arrived.take();
        arrived.unwrap_or_else(|| Err(self.manager.closed("command")))
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        // From here on an answer that comes finds nobody, and takes the admission back itself.
        self.answer.close();
        let answer = self.arrived.take().or_else(|| self.answer.try_recv().ok());
        if let Some(Ok(reply)) = answer
            && let (Outcome::Admitted { fresh: true, .. }, Some(entry)) =
                (&reply.outcome, &reply.entry)
        {
            let (run, uid) = (entry.run.clone(), entry.uid.clone());
            self.manager
                .send(self.repository, Command::Abandon { run, uid });
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
                "session {session} has a run of this name and uid that it runs itself; choose \
                 another name, or wait until it has ended"
            ),
        ),
        (Admitted::NotHeld, _) | (_, Some(_)) => return None,
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
        let answer = self.shared().submit(repository, command);
        let mut awaited = Awaited::new(self, repository, answer);
        awaited.arrive().await?;
        awaited.take()
    }

    pub(super) fn send(&self, repository: &Arc<Repository>, command: Command) {
        self.shared().send(repository, command);
    }

    /// What an answer means for who asked for a slot: where the run stands by now, which may be
    /// further on than the commit left it.
    pub(super) fn admission(
        &self,
        repository: &Arc<Repository>,
        reply: Reply,
    ) -> Result<Admission, Error> {
        let (Outcome::Admitted { fresh, .. }, Some(entry)) = (&reply.outcome, reply.entry) else {
            return Err(unexpected("admit", &reply.outcome));
        };
        let fresh = *fresh;
        Ok(match (entry.state, reply.place) {
            (EntryState::Started { token, session, .. }, _) => {
                let grant = Grant {
                    repository: Arc::clone(repository),
                    entry,
                    token,
                    session,
                };
                Admission::Started(Lease::new(self, grant, fresh))
            }
            (EntryState::Queued { .. }, Some(place)) => {
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
            if let Some(shown) = repository.shown(self.shared(), &snapshot, &view)? {
                return Ok(shown);
            }
            if since.take().is_none() {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    "read",
                    "the store answered with a part where all was asked for",
                )
                .in_repository(key));
            }
        }
    }

    /// # Errors
    /// `SessionLost` unless `session` is this manager's, and it may act in its name.
    pub(super) fn check_session(
        &self,
        session: SessionId,
        operation: &'static str,
    ) -> Result<(), Error> {
        let own = &self.shared().session;
        if own.id() == session && !own.remaining().is_zero() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::SessionLost,
            operation,
            format!("session {session} is over, or was not renewed in time; its leases are lost"),
        ))
    }

    pub(super) fn deliver(&self, grant: Grant) {
        self.shared().grants.push(grant);
    }

    pub(super) fn closed(&self, operation: &'static str) -> Error {
        self.shared().closed(operation)
    }
}

pub(super) fn unexpected(operation: &'static str, outcome: &Outcome) -> Error {
    Error::new(
        ErrorKind::Internal,
        operation,
        format!("the protocol answered {outcome:?}"),
    )
}
