//! The manager: the protocol over a driver, for the many tasks of one process.

mod closing;
mod commit;
mod contact;
mod engine;
mod executor;
mod handle;
mod handles;
mod health;
mod lifecycle;
mod log;
mod notify;
mod operate;
mod options;
mod registry;
mod repository;
mod rewind;
mod session;
mod sessions;
mod store;
mod submit;
mod tasks;

use std::ops::Range;
use std::sync::Arc;

pub use crate::event::{Event, LeaseLoss};
pub use crate::status::{
    FinishedRun, Paused, QueuedRun, RepositoryStatus, RepositorySummary, RunStatus, RunningRun,
    WaitReason,
};
pub use handles::admission::{Admission, Ending};
pub use handles::grants::Grants;
pub use handles::lease::{Lease, Lost};
pub use handles::permit::Permit;
pub use handles::permits::{AnyLost, Permits, Slots};
pub use handles::turn::Turn;
pub use handles::waiter::Waiter;
pub use handles::watch::{RepositoryWatch, Update};
pub use health::Health;
pub use notify::events::{Events, Heard};
pub use operate::{LimitChange, PauseChange, Swept};
pub use options::{KeepAliveOn, ManagerOptions};

/// The state machine of one repository, for the model check and the tests of this workspace
/// alone: no part of the interface.
#[doc(hidden)]
pub mod machine {
    pub use super::repository::canonical::{Canonical, CanonicalPlanned, CanonicalRequest};
    pub use super::repository::effects::{
        Action, Answer, AnswerResult, Effects, EndOfWaiting, Grant, Place, Reply, Turn,
        TurnMessage, WaiterId,
    };
    pub use super::repository::env::{Env, Port};
    pub use super::repository::request::{Asked, Basis, Listener, Request, RequestId, Uncertain};
    pub use super::repository::{HolderId, Repository, reply::abandon};
}

use engine::Engine;
use handle::ManagerHandle;
use lifecycle::End;
use registry::Cell;
use submit::ask::Asking;
use submit::unexpected;

use crate::driver::{Driver, ListFilter};
use crate::error::{Error, ErrorKind};
use crate::name::{PipelineRunKey, RepositoryKey, Uid};
use crate::protocol::{Admitted, Claim, Command, Ended, Outcome, RunRequest};
use crate::state::{RulesChange, RunOutcome};
use crate::value::{FencingToken, Limit, LimitVersion, SessionId};

/// Concurrency limits and queues of repositories, on a store that other managers share.
///
/// Cheap to clone; all clones are the same manager, with one session at the store that it keeps
/// alive. When the last clone is dropped (leases of ephemeral runs and waiters hold one each),
/// the session is left to expire; [`close`](Self::close) ends it at once.
///
/// Commands for one repository that come while a commit is on its way are combined into the
/// next one, and commits of different repositories into batches. Every command costs at most
/// one durable commit, retried when another controller was faster; a command that changes
/// nothing costs one read. Commands carry on when their future is dropped, except that an
/// admission that nobody awaits any more is taken back: it leaks neither slot nor place.
///
/// Errors common to all commands, beside those named with each: `Unavailable`, `Contended` and
/// `SessionLost` when the store could not be reached, other controllers were always faster, or
/// there was no session for as long as [`ManagerOptions::command_timeout`]; `Indeterminate`
/// when in addition an attempt may have succeeded; `Corrupt` and `Incompatible` for a
/// repository whose state cannot be understood; `Closed` after [`close`](Self::close) or the
/// death of one of the manager's own parts; and those of the store.
#[derive(Debug, Clone)]
pub struct ConcurrencyManager {
    handle: Arc<ManagerHandle>,
}

impl ConcurrencyManager {
    /// Opens a session at the store and starts to keep it, to listen and to sweep, on the
    /// tokio runtime that this is called from. The calls of the manager may be made from
    /// anywhere.
    ///
    /// # Errors
    /// `Config` when options contradict each other or make no sense; else why the store could
    /// not be reached.
    pub async fn open(driver: Arc<dyn Driver>, options: ManagerOptions) -> Result<Self, Error> {
        let handle = Arc::new(ManagerHandle::open(driver, options).await?);
        Ok(Self { handle })
    }

    /// Ends the manager. From this call on it holds nothing: its leases are lost, every later
    /// call fails, and what waits or is on its way is told. Then the store is told: ephemeral
    /// runs end, waiting durable runs keep their places without an owner, and running ones can be
    /// adopted within the lease TTL.
    ///
    /// The work is the manager's own: dropping this does not stop it. Closing again waits for
    /// the same end.
    ///
    /// # Errors
    /// When the store could not be told all of it within the command timeout: what is left is
    /// seen to by other controllers, when the session has expired by itself. `Closed` when the
    /// runtime of the manager was shut down.
    pub async fn close(&self) -> Result<(), Error> {
        self.engine().close().await
    }

    /// Asks for a slot. A run that has one already, or waits, gets what it has: the same lease,
    /// or its old place. Asking again from another manager makes that one its owner; asking
    /// with another priority moves it.
    ///
    /// Dropped in flight, it takes back what it created, and nothing that was asked for anew
    /// since: the slot of a durable run stays with another call of this manager's that was
    /// answered with it. A durable run that waited before stays in the queue, perhaps with this
    /// manager as its owner already: its lease then comes out of [`grants`](Self::grants), or is
    /// given back for other controllers where nobody reads those. An orphan that it had taken over
    /// is an orphan again.
    ///
    /// # Errors
    /// `NameInUse` when another live process has an ephemeral run of this name and uid, or,
    /// for an ephemeral request, any live run of this name.
    pub async fn admit(
        &self,
        repository: &RepositoryKey,
        request: RunRequest,
    ) -> Result<Admission, Error> {
        self.take(repository, Command::Admit(request)).await
    }

    /// Asks for a slot for each of several runs: they start and queue in this order, and no
    /// other run comes between them. With `limit`, announces that first, in the same commit; it
    /// stays announced whatever becomes of the runs.
    ///
    /// # Errors
    /// As [`admit`](Self::admit), for the first run that fails: places that others got are
    /// given up. `InvalidInput` when there are more than fit into one commit to this store, see
    /// [`most_at_once`](Self::most_at_once).
    pub async fn admit_all(
        &self,
        repository: &RepositoryKey,
        limit: Option<(Limit, LimitVersion)>,
        requests: Vec<RunRequest>,
    ) -> Result<Vec<Admission>, Error> {
        let cell = self.find(repository, "admit")?;
        let rules = limit.map(|(limit, version)| (RulesChange::limit(limit), version));
        let (mut asking, runs) = self.ask_for_all(&cell, rules, requests)?;
        for at in 0..runs.end {
            asking.arrive(at).await?;
        }
        runs.map(|at| self.admission(&cell, *asking.take(at)?))
            .collect()
    }

    /// As [`admit_all`](Self::admit_all), with the rules beside the limit, and with an answer for
    /// each run: one that is refused takes nothing away from the others.
    ///
    /// Dropped in flight, it takes back what it created. What it answers with has to be dealt with
    /// one and all: a place that is dropped is given up.
    ///
    /// # Errors
    /// Of a run: as [`admit`](Self::admit). In all: those of the announcement, and `InvalidInput`
    /// when there are more runs than fit into one commit to this store, see
    /// [`most_at_once`](Self::most_at_once).
    pub async fn admit_each(
        &self,
        repository: &RepositoryKey,
        rules: Option<(RulesChange, LimitVersion)>,
        requests: Vec<RunRequest>,
    ) -> Result<Vec<Result<Admission, Error>>, Error> {
        let cell = self.find(repository, "admit")?;
        let (mut asking, runs) = self.ask_for_all(&cell, rules, requests)?;
        let mut arrived = Vec::with_capacity(runs.end);
        for at in 0..runs.end {
            arrived.push(asking.arrive(at).await);
        }
        let mut arrived = arrived.into_iter();
        if runs.start > 0 {
            arrived.next().transpose()?;
        }
        let admissions = runs.zip(arrived).map(|(at, arrived)| {
            arrived?;
            self.admission(&cell, *asking.take(at)?)
        });
        Ok(admissions.collect())
    }

    /// Asks for slots for several runs in one commit, after an announcement; the answers to the runs
    /// are those with the numbers of the range. All are held from the start, so that dropping this
    /// takes every admission back.
    fn ask_for_all<'a>(
        &'a self,
        cell: &'a Arc<Cell>,
        rules: Option<(RulesChange, LimitVersion)>,
        requests: Vec<RunRequest>,
    ) -> Result<(Asking<'a>, Range<usize>), Error> {
        let most = self.most_at_once();
        if requests.len() > most {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "admit",
                format!(
                    "{} runs do not fit into one commit to this store; admit at most {most} at \
                     once",
                    requests.len()
                ),
            ));
        }
        let announcement = rules.map(|(rules, version)| Command::SetLimit {
            rules,
            claim: Claim::Announce(version),
        });
        let announced = usize::from(announcement.is_some());
        let admissions = requests.into_iter().map(Command::Admit);
        let commands: Vec<_> = announcement.into_iter().chain(admissions).collect();
        let runs = announced..commands.len();
        Ok((self.engine().ask(cell, commands.into_iter()), runs))
    }

    /// How many runs [`admit_all`](Self::admit_all) takes at most, at least 1: half of the entries
    /// that a commit to this store has room for, since as many runs may start with them.
    #[must_use]
    pub fn most_at_once(&self) -> usize {
        self.engine().store.entry_budget()
    }

    /// Records a run that is running already, also beyond the limit, as held by this manager;
    /// nothing else is started until the count is below the limit again. A run that another
    /// live controller holds stays with it.
    ///
    /// Dropped in flight, it may have recorded the run, which then keeps its slot as long as the
    /// session lives: it runs. Adopt again, or release it by its name. One that it had taken over
    /// from a dead session comes out of [`grants`](Self::grants), or is an orphan again where
    /// nobody reads those.
    ///
    /// # Errors
    /// Those common to all commands.
    pub async fn adopt(
        &self,
        repository: &RepositoryKey,
        request: RunRequest,
    ) -> Result<Admission, Error> {
        self.take(repository, Command::Adopt(request)).await
    }

    /// Gives the slot of a run back that certainly did not begin to work, and queues the run in
    /// its old place. Being first there, it may get a slot again at once, with a new token.
    /// `None` when the lease had been lost before.
    ///
    /// # Errors
    /// Those common to all commands. The lease is used up all the same; admitting the run again
    /// tells where it stands.
    pub async fn requeue(&self, mut lease: Lease) -> Result<Option<Admission>, Error> {
        let command = Command::Requeue {
            run: lease.run().clone(),
            uid: lease.uid().clone(),
            token: lease.token(),
        };
        let cell = self.cell_of(&lease, "requeue")?;
        let reply = self.ask(&cell, command).await?;
        lease.disarm();
        if let Outcome::Admitted {
            admitted: Admitted::NotHeld,
            ..
        } = reply.outcome
        {
            return Ok(None);
        }
        self.admission(&cell, *reply).map(Some)
    }

    /// Ends a run that has a lease; the next one starts in the same commit.
    ///
    /// # Errors
    /// Those common to all commands. The lease is used up all the same: an ephemeral run is
    /// then ended in the background; for a durable one [`release_run`](Self::release_run) with
    /// its name, uid and token tries again.
    pub async fn release(&self, mut lease: Lease, outcome: RunOutcome) -> Result<Ending, Error> {
        let command = Command::Release {
            run: lease.run().clone(),
            uid: lease.uid().clone(),
            token: Some(lease.token()),
            outcome,
        };
        let cell = self.cell_of(&lease, "release")?;
        let ending = self.end(&cell, command, "release").await?;
        // Until here, dropping the lease of an ephemeral run would still have ended it.
        lease.disarm();
        Ok(ending)
    }

    /// Ends a run that any manager started, by its name, uid and token. Without a token it is
    /// released by force, whoever holds it.
    ///
    /// # Errors
    /// Those common to all commands.
    pub async fn release_run(
        &self,
        repository: &RepositoryKey,
        run: &PipelineRunKey,
        uid: &Uid,
        token: Option<FencingToken>,
        outcome: RunOutcome,
    ) -> Result<Ending, Error> {
        let command = Command::Release {
            run: run.clone(),
            uid: uid.clone(),
            token,
            outcome,
        };
        self.end(&self.find(repository, "release")?, command, "release")
            .await
    }

    /// Takes a run that certainly did not begin to work out of the queue or out of its slot,
    /// whoever admitted it. It may be admitted again, under the same uid, and is then the last.
    /// [`Ended::Unknown`] when the store has no run of this name and uid, and when it has changed
    /// hands in this instant. Dropped in flight, it is done or not done.
    ///
    /// # Errors
    /// Those common to all commands.
    pub async fn give_up(
        &self,
        repository: &RepositoryKey,
        run: &PipelineRunKey,
        uid: &Uid,
    ) -> Result<Ended, Error> {
        let cell = self.find(repository, "give up")?;
        let entry = self
            .read(repository, |state| state.entry(run).cloned())
            .await?;
        let Some(entry) = entry.filter(|entry| entry.uid == *uid) else {
            return Ok(Ended::Unknown);
        };
        let command = machine::abandon(&entry, self.session());
        Ok(self.end(&cell, command, "give up").await?.ended)
    }

    /// Forgets a repository: its limit, its queue and all its runs, which are returned. Nothing
    /// is left of it in the store; counting goes on where it was should it come back.
    ///
    /// # Errors
    /// Those common to all commands.
    pub async fn remove_repository(
        &self,
        repository: &RepositoryKey,
    ) -> Result<Vec<PipelineRunKey>, Error> {
        let repository = self.find(repository, "remove repository")?;
        match self
            .ask(&repository, Command::RemoveRepository)
            .await?
            .outcome
        {
            Outcome::Removed(ended) => Ok(ended),
            outcome => Err(unexpected("remove repository", &outcome)),
        }
    }

    /// Reads a repository from the store: its limit, who runs, who waits. One read of what has
    /// changed; then costs as much as there are runs.
    ///
    /// # Errors
    /// Those of reading from the store.
    pub async fn status(&self, repository: &RepositoryKey) -> Result<RepositoryStatus, Error> {
        let state = |state: &_| RepositoryStatus::of(repository, state);
        self.read(repository, state).await
    }

    /// Reads one run from the store. One read of what has changed in its repository.
    ///
    /// # Errors
    /// Those of reading from the store.
    pub async fn run_status(
        &self,
        repository: &RepositoryKey,
        run: &PipelineRunKey,
    ) -> Result<RunStatus, Error> {
        self.read(repository, |state| RunStatus::of(state, run))
            .await
    }

    /// A page of the repositories that have state, in the order of their keys: at most `limit`,
    /// those after `after`.
    ///
    /// # Errors
    /// Those of reading from the store.
    pub async fn list(
        &self,
        after: Option<&RepositoryKey>,
        limit: usize,
    ) -> Result<Vec<RepositorySummary>, Error> {
        let engine = self.engine();
        engine.lifecycle.check("list")?;
        let driver = &engine.store.driver;
        let page = engine
            .store
            .read(driver.list(ListFilter::All, after, limit), "list");
        let page = engine.in_time("list", page).await?;
        Ok(page.into_iter().map(RepositorySummary::of).collect())
    }

    /// Follows a repository from its state now on.
    ///
    /// # Errors
    /// Those of reading from the store.
    pub async fn watch(&self, repository: &RepositoryKey) -> Result<RepositoryWatch, Error> {
        let cell = self.find(repository, "watch")?;
        // Counting starts before the state is read, so no change can fall between.
        let watch = RepositoryWatch::begin(&cell);
        self.read(repository, |_| ()).await?;
        Ok(watch.begins_here())
    }

    /// What happens to runs and sessions from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        self.engine().events.subscribe()
    }

    /// The stream of leases that nobody awaits. While it lives this manager takes over durable
    /// runs whose owner died, so take it only to start them. `None` while another one lives.
    #[must_use]
    pub fn grants(&self) -> Option<Grants> {
        let first = self.engine().grants.open();
        first.then(|| Grants(self.clone()))
    }

    /// Whether this manager does what it is there for.
    #[must_use]
    pub fn health(&self) -> Health {
        let engine = self.engine();
        let end = engine.lifecycle.end();
        Health {
            session: engine.fence.session().0,
            session_remaining: engine.fence.remaining(),
            renewal_error: engine.fence.trouble(),
            closed: matches!(end, Some(End::Owner | End::LastHandle)),
            dead: match end {
                Some(End::Part(part)) => Some(part),
                Some(End::Runtime) => Some("runtime"),
                Some(End::Owner | End::LastHandle) | None => None,
            },
            watch_error: engine.vitals.watch_error(),
            rewinds: engine.vitals.rewinds(),
            panics: engine.executor.panics(),
        }
    }

    /// The session of this manager at the store.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.engine().fence.session().0
    }

    /// Whether this process may still act as the holder of `lease`: its session is the one that
    /// holds it, was renewed within its TTL less a margin ever since the lease was handed out,
    /// and nobody is known to have taken the slot away. Once false, it stays false. Ask before
    /// anything that only the holder may do. Reads two clocks and the cached state, and asks
    /// nobody.
    #[must_use]
    pub fn holds(&self, lease: &Lease) -> bool {
        let fence = &self.engine().fence;
        fence.loss(lease.session(), lease.era()).is_none() && lease.is_known_to_be_held()
    }

    fn engine(&self) -> &Arc<Engine> {
        &self.handle.engine
    }
}
