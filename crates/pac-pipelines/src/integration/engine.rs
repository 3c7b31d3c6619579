//! What all parts of a controller share.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use pac_core::manager::ConcurrencyManager;
use pac_core::{PipelineRunKey, RepositoryKey, Timestamp};
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::notices::NoticeBoard;
use super::options::{ControllerOptions, Mode};
use super::seen::{Seen, Touched};
use super::work::{Dirty, Work};
use crate::cluster::{Cluster, ClusterEvent};

/// How long a Repository waits that could not be seen to; doubled with every further failure.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// So many runs are read from the cluster at once, of all Repositories together.
pub(super) const READS_AT_ONCE: usize = 16;

/// The fields of a controller, and what is too small for a file of its own.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) manager: ConcurrencyManager,
    pub(super) cluster: Arc<dyn Cluster>,
    pub(super) options: ControllerOptions,
    pub(super) work: Work,
    pub(super) notices: NoticeBoard,
    /// At most so many starts are under way.
    pub(super) starts: Semaphore,
    /// At most so many runs are being read that only the store has.
    pub(super) reads: Semaphore,
    /// Set once the cluster's lists have been taken.
    pub(super) listed: OnceCell<()>,
    epoch: Timestamp,
    opened: Instant,
    seen: Mutex<Seen>,
    /// The runs that are being started; true when there was a further reason meanwhile.
    starting: Mutex<HashMap<PipelineRunKey, bool>>,
    /// The Repositories that only the store has, and since when that is known.
    missing: Mutex<HashMap<RepositoryKey, Instant>>,
    tasks: Mutex<JoinSet<()>>,
    /// The secret of a run was awaited in vain, and no run with one was seen since.
    pub(super) makes_no_secrets: AtomicBool,
}

impl Engine {
    pub(super) fn new(
        manager: ConcurrencyManager,
        cluster: Arc<dyn Cluster>,
        options: ControllerOptions,
    ) -> Self {
        let mut seen = Seen::new(options.global_repository.clone());
        if options.mode == Mode::Gate {
            seen = seen.with_lanes();
        }
        Self {
            manager,
            cluster,
            work: Work::default(),
            notices: NoticeBoard::default(),
            starts: Semaphore::new(options.concurrent_starts.clamp(1, Semaphore::MAX_PERMITS)),
            reads: Semaphore::new(READS_AT_ONCE),
            listed: OnceCell::new(),
            epoch: options.epoch.unwrap_or_else(|| SystemTime::now().into()),
            opened: Instant::now(),
            seen: Mutex::new(seen),
            starting: Mutex::default(),
            missing: Mutex::default(),
            tasks: Mutex::default(),
            makes_no_secrets: AtomicBool::default(),
            options,
        }
    }

    /// The clock that creation times are compared with.
    pub(super) fn now(&self) -> Timestamp {
        self.epoch.plus(self.opened.elapsed())
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an event in, and has looked at what it is about. True when everything has to be
    /// listed again.
    pub(super) fn observe(&self, event: ClusterEvent) -> bool {
        let touched = self.seen().observe(event);
        self.touched(touched)
    }

    /// Has looked at what an event was about. True when everything has to be listed again.
    pub(super) fn touched(&self, touched: Touched) -> bool {
        let sections = self.seen().take_changed_sections();
        self.look_at_sections(sections);
        match touched {
            Touched::Run(repository, run) => self.look_at(&repository, run),
            Touched::Moved(repositories, run) => {
                for repository in repositories {
                    self.look_at(&repository, run.clone());
                }
            }
            Touched::Repositories(repositories) => {
                for repository in repositories {
                    // It may have said how many runs may be in a section.
                    let sections = self.seen().sections_in(repository.namespace());
                    self.look_at_sections(sections);
                    self.work.mark(&repository, Dirty::all(), Instant::now());
                }
            }
            Touched::Nothing => {}
            Touched::Everything => return true,
        }
        false
    }

    /// Has one run looked at.
    pub(super) fn look_at(&self, repository: &RepositoryKey, run: PipelineRunKey) {
        self.work.mark(repository, Dirty::run(run), Instant::now());
    }

    /// Has one run looked at in a while.
    pub(super) fn look_later(&self, repository: &RepositoryKey, run: PipelineRunKey) {
        self.work.mark(
            repository,
            Dirty::run(run),
            Instant::now() + Duration::from_secs(1),
        );
    }

    /// Has all runs of all Repositories looked at.
    pub(super) fn look_at_everything(&self) {
        let repositories: Vec<_> = {
            let seen = self.seen();
            let with_runs = seen.repositories().filter(|(_, runs)| *runs > 0);
            with_runs.map(|(key, _)| key.clone()).collect()
        };
        for repository in repositories {
            self.work.mark(&repository, Dirty::all(), Instant::now());
        }
        let sections = self.seen().sections();
        self.look_at_sections(sections);
    }

    /// Has looked at again, after a while, what could not be seen to.
    pub(super) fn retry(&self, repository: &RepositoryKey, mut dirty: Dirty) {
        let wait = backoff(dirty.failures);
        dirty.failures = dirty.failures.saturating_add(1);
        self.work.mark(repository, dirty, Instant::now() + wait);
    }

    /// The right to start a run: false, and noted, when it is being started already.
    pub(super) fn claim_start(&self, run: &PipelineRunKey) -> bool {
        let mut starting = self.starting();
        match starting.get_mut(run) {
            Some(again) => {
                *again = true;
                false
            }
            None => {
                starting.insert(run.clone(), false);
                true
            }
        }
    }

    /// Gives the right back. True when there was a further reason to start it meanwhile.
    pub(super) fn end_start(&self, run: &PipelineRunKey) -> bool {
        self.starting().remove(run).unwrap_or(false)
    }

    /// Whether any run is being started.
    pub(super) fn is_starting(&self) -> bool {
        !self.starting().is_empty()
    }

    /// Whether a Repository has been missing for longer than the grace period; if that is new, it
    /// is missing from now on.
    pub(super) fn is_missing_for_good(&self, repository: &RepositoryKey) -> bool {
        let mut missing = self.missing();
        match missing.entry(repository.clone()) {
            Entry::Occupied(known) if known.get().elapsed() >= self.options.grace => {
                known.remove();
                true
            }
            Entry::Occupied(_) => false,
            Entry::Vacant(new) => {
                new.insert(Instant::now());
                self.options.grace.is_zero()
            }
        }
    }

    /// Forgets the Repositories that are missing no longer.
    pub(super) fn retain_missing(&self, still: impl Fn(&RepositoryKey) -> bool) {
        self.missing().retain(|repository, _| still(repository));
    }

    /// Runs work in a task that ends with the controller's.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks();
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "a task of the controller has panicked");
            }
        }
        tasks.spawn(work);
    }

    /// Ends all tasks where they are.
    pub(super) fn abort(&self) {
        self.tasks().abort_all();
        self.starting().clear();
        self.work.reset();
    }

    fn starting(&self) -> MutexGuard<'_, HashMap<PipelineRunKey, bool>> {
        self.starting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn missing(&self) -> MutexGuard<'_, HashMap<RepositoryKey, Instant>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long to wait after so many failures in a row.
pub(super) fn backoff(failures: u32) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(failures.min(16)));
    doubled.min(LONGEST_RETRY)
}
