//! One store, and the managers that a case opens on it.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use pac_core::driver::{Driver, ListFilter};
use pac_core::manager::{ConcurrencyManager, Ending, Lease, ManagerOptions, Turn, Waiter};
use pac_core::state::RunOutcome;
use pac_core::{Error, PipelineRunKey, RepositoryKey, Timestamp};
use tokio::time::{Instant, sleep, timeout};

use crate::faults::Faults;
use crate::{Time, Vandal, View, run, uid};

/// Over one store, empty at the start, on which a case opens as many managers as it needs.
///
/// The driver's test file says what the store cannot do as fast or as exactly as memory, by the
/// `with_` methods; cases name durations as multiples of [`options`](Self::options).
#[derive(Debug)]
pub struct Fixture {
    driver: Arc<dyn Driver>,
    time: Time,
    options: ManagerOptions,
    tolerance: Duration,
    quiet: Option<Duration>,
    expiry_delay: Duration,
    scale: f64,
    reset: Option<Reset>,
    vandal: Option<Arc<dyn Vandal>>,
    managers: Mutex<Vec<ConcurrencyManager>>,
}

impl Fixture {
    /// Over the store of a driver. Nobody else writes to it while the case runs.
    ///
    /// On paused time, where waiting costs nothing, managers have the settings of production. In
    /// real time sessions live for 2 s and leases for 5 s; tolerance and expiry delay are 250 ms.
    #[must_use]
    pub fn over(driver: Arc<dyn Driver>, time: Time) -> Self {
        let (options, tolerance) = match time {
            Time::Paused => {
                let options = ManagerOptions {
                    lease_ttl: Some(Duration::from_secs(60 * 60)),
                    ..ManagerOptions::default()
                };
                (options, Duration::from_millis(1))
            }
            Time::Real => {
                let options = ManagerOptions {
                    session_ttl: Duration::from_secs(2),
                    lease_ttl: Some(Duration::from_secs(5)),
                    // Longer than the patience of a case: nothing is to be woken by it.
                    poll_interval: Duration::from_secs(20),
                    sweep_interval: Duration::from_millis(200),
                    ..ManagerOptions::default()
                };
                (options, Duration::from_millis(250))
            }
        };
        Self {
            driver,
            time,
            options,
            tolerance,
            quiet: None,
            expiry_delay: tolerance,
            scale: 1.0,
            reset: None,
            vandal: None,
            managers: Mutex::default(),
        }
    }

    /// With sessions that live this long: the shortest that the store can keep, and not so
    /// short that a busy machine loses them.
    #[must_use]
    pub fn with_session_ttl(mut self, ttl: Duration) -> Self {
        self.options.session_ttl = ttl;
        self
    }

    /// With leases that live this long; at least twice as long as the sessions.
    #[must_use]
    pub fn with_lease_ttl(mut self, ttl: Duration) -> Self {
        self.options.lease_ttl = Some(ttl);
        self
    }

    /// How far a duration that was measured may be from what it has to be, and how long an
    /// answer and the hint of a change may take at most on a busy machine.
    #[must_use]
    pub fn with_tolerance(mut self, tolerance: Duration) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// How long nothing has to happen for nothing to be under way: the tolerance unless said
    /// otherwise. Cases wait this long again and again; a store whose hints come long before its
    /// tolerance is over says less.
    #[must_use]
    pub fn with_quiet(mut self, quiet: Duration) -> Self {
        self.quiet = Some(quiet);
        self
    }

    /// How much later than its TTL the store may notice that a session is over. (Never earlier.)
    /// At most 2 s: then the next run has to have started.
    #[must_use]
    pub fn with_expiry_delay(mut self, delay: Duration) -> Self {
        assert!(delay <= Duration::from_secs(2), "{delay:?} is too late");
        self.expiry_delay = delay;
        self
    }

    /// Which part of their full number of runs the cases do that need many: 1 unless said
    /// otherwise, 0.1 for a store where every commit is a durable write.
    #[must_use]
    pub fn with_scale(mut self, scale: f64) -> Self {
        assert!(
            scale > 0.0 && scale <= 1.0,
            "a part of the whole, not {scale}"
        );
        self.scale = scale;
        self
    }

    /// How to open another, empty store, whose clock shows what it is told to. A driver that
    /// cannot leaves case 41 out.
    #[must_use]
    pub fn with_clock(
        mut self,
        open: impl Fn(Timestamp) -> Arc<dyn Driver> + Send + Sync + 'static,
    ) -> Self {
        self.reset = Some(Reset(Box::new(open)));
        self
    }

    /// Who can write into the store past its driver. Without one, the cases on broken records
    /// break what is read on its way to the manager; with one, also what is stored.
    #[must_use]
    pub fn with_vandal(mut self, vandal: impl Vandal) -> Self {
        self.vandal = Some(Arc::new(vandal));
        self
    }

    /// The driver itself: the store as it is, past every manager and every fault.
    #[must_use]
    pub fn driver(&self) -> &Arc<dyn Driver> {
        &self.driver
    }

    /// Who can write into the store past its driver, if anybody can.
    #[must_use]
    pub fn vandal(&self) -> Option<&Arc<dyn Vandal>> {
        self.vandal.as_ref()
    }

    /// The settings of managers. Nothing of a case is fast by virtue of the back-stop poll: it
    /// takes longer than a case waits for anything.
    #[must_use]
    pub fn options(&self) -> ManagerOptions {
        self.options
    }

    /// The same with a back-stop that is worth waiting for.
    #[must_use]
    pub fn polling_options(&self) -> ManagerOptions {
        ManagerOptions {
            poll_interval: match self.time {
                Time::Paused => self.options.poll_interval,
                Time::Real => Duration::from_secs(1),
            },
            ..self.options
        }
    }

    /// How long the slots of durable runs outlive their manager.
    #[must_use]
    pub fn lease_ttl(&self) -> Duration {
        let usual = self.driver.descriptor().lease_ttl;
        self.options.lease_ttl.unwrap_or(usual)
    }

    /// How far a duration that was measured may be from what it has to be.
    #[must_use]
    pub fn tolerance(&self) -> Duration {
        self.tolerance
    }

    /// How long after its last renewal a session may still not have been seen to: its TTL, what
    /// the store takes to notice, and what the managers take to hear of it.
    #[must_use]
    pub fn session_end(&self) -> Duration {
        self.options.session_ttl + self.notice()
    }

    /// What the store and the managers take at most to see to a TTL that has passed.
    #[must_use]
    pub fn notice(&self) -> Duration {
        self.expiry_delay + self.options.sweep_interval * 2 + self.tolerance
    }

    /// Whether time passes by itself, and waiting is dear.
    #[must_use]
    pub fn is_real(&self) -> bool {
        self.time == Time::Real
    }

    /// So many, or the part of them that the store has time for.
    #[must_use]
    pub fn scaled(&self, number: usize) -> usize {
        ((number as f64 * self.scale) as usize).max(1)
    }

    /// The same driver over another, empty store whose clock shows `now`.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> Self {
        let reset = self.reset.as_ref().unwrap_or_else(|| {
            panic!(
                "nobody can set the clock of this store: give the fixture `with_clock`, or name \
                 the case in `except`"
            )
        });
        Self {
            options: self.options,
            tolerance: self.tolerance,
            quiet: self.quiet,
            ..Self::over((reset.0)(now), self.time)
        }
    }

    /// Does `work` with each of `items`: one after the other, unless waiting is dear; then all
    /// at once.
    pub async fn each<T, F: Future<Output = ()>>(
        &self,
        items: impl IntoIterator<Item = T>,
        work: impl Fn(T) -> F,
    ) {
        let work = items.into_iter().map(work);
        if self.is_real() {
            join_all(work).await;
        } else {
            for one in work {
                one.await;
            }
        }
    }

    /// A manager with the usual settings.
    pub async fn manager(&self) -> ConcurrencyManager {
        self.manager_with(self.options()).await
    }

    /// A manager with settings of its own.
    pub async fn manager_with(&self, options: ManagerOptions) -> ConcurrencyManager {
        let driver = Arc::clone(&self.driver);
        let manager = ConcurrencyManager::open(driver, options).await.unwrap();
        self.managers.lock().unwrap().push(manager.clone());
        manager
    }

    /// A manager with faults between it and the store. The case may kill it.
    pub async fn manager_behind(&self, faults: &Arc<Faults>) -> ConcurrencyManager {
        self.manager_behind_with(faults, self.options()).await
    }

    /// The same with settings of its own.
    pub async fn manager_behind_with(
        &self,
        faults: &Arc<Faults>,
        options: ManagerOptions,
    ) -> ConcurrencyManager {
        let driver = faults.over(&self.driver);
        ConcurrencyManager::open(driver, options).await.unwrap()
    }

    /// What the store holds of a repository.
    pub async fn view(&self, repository: &RepositoryKey) -> View {
        let view = View::of(self.driver.load(repository, None).await.unwrap());
        view.audit();
        view
    }

    /// Waits until the store holds exactly these; fails with the difference.
    pub async fn comes_to(&self, repository: &RepositoryKey, running: &[&str], waiting: &[&str]) {
        let deadline = Instant::now() + self.patience();
        loop {
            let view = self.view(repository).await;
            let mut started = view.running_names();
            started.sort_unstable();
            let mut expected = running.to_vec();
            expected.sort_unstable();
            if (started == expected && view.waiting_names() == waiting) || Instant::now() > deadline
            {
                view.assert(running, waiting);
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Lets everything happen that is under way, without any back-stop coming to help.
    pub async fn settle(&self) {
        sleep(self.quiet()).await;
    }

    /// What comes later than this is not under way.
    #[must_use]
    pub fn quiet(&self) -> Duration {
        let quiet = self.quiet.unwrap_or(self.tolerance);
        quiet.max(Duration::from_millis(100))
    }

    /// Lets a session end that was renewed just now for the last time, and the managers see to
    /// what it leaves.
    pub async fn outlive_session(&self) {
        sleep(self.session_end()).await;
    }

    /// Awaits something that has to come without a back-stop's help.
    pub async fn soon<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        let longest = self.patience();
        let came = timeout(longest, future).await;
        came.unwrap_or_else(|_| panic!("{what} did not come within {longest:?}"))
    }

    /// Awaits something that has to come once the connection is back: reconnecting is tried
    /// every few seconds at most.
    pub async fn reconnected<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        let longest = Duration::from_secs(10);
        let came = timeout(longest, future).await;
        came.unwrap_or_else(|_| panic!("{what} did not come within {longest:?} of the outage"))
    }

    /// The lease that a waiter gets now.
    pub async fn turn(&self, waiter: Waiter) -> Lease {
        let run = waiter.run().clone();
        let turn = self.soon(&format!("the turn of {run}"), waiter).await;
        lease_of(&run, turn)
    }

    /// The lease that a waiter gets once the connection is back.
    pub async fn turn_when_reconnected(&self, waiter: Waiter) -> Lease {
        let run = waiter.run().clone();
        let turn = self
            .reconnected(&format!("the turn of {run}"), waiter)
            .await;
        lease_of(&run, turn)
    }

    /// Fails unless the waiter goes on waiting.
    pub async fn waits_on(&self, waiter: &mut Waiter) {
        let run = waiter.run().clone();
        if let Ok(turn) = timeout(Duration::from_millis(100), waiter).await {
            panic!("{run} was not to be woken, and got {turn:?}");
        }
    }

    /// Releases by name, whoever admitted it, with the token that the store shows.
    pub async fn release_named(
        &self,
        manager: &ConcurrencyManager,
        repository: &RepositoryKey,
        name: &str,
    ) -> Ending {
        let token = self.view(repository).await.token(name);
        let done = RunOutcome::Completed;
        manager
            .release_run(repository, &run(name), &uid(name), Some(token), done)
            .await
            .unwrap()
    }

    /// Releases whoever runs, oldest grant first, until nobody does; returns the names in the
    /// order of their grants.
    pub async fn drain(
        &self,
        manager: &ConcurrencyManager,
        repository: &RepositoryKey,
    ) -> Vec<String> {
        let mut order = Vec::new();
        loop {
            let view = self.view(repository).await;
            let Some(first) = view.running_names().first().map(ToString::to_string) else {
                assert_eq!(view.waiting_names(), [""; 0], "wait although nobody runs");
                return order;
            };
            self.release_named(manager, repository, &first).await;
            order.push(first);
        }
    }

    /// What must hold after every case: no manager has panicked, and what the store holds adds
    /// up for every repository.
    pub(crate) async fn audit(&self) {
        let managers = std::mem::take(&mut *self.managers.lock().unwrap());
        for manager in managers {
            assert_eq!(manager.health().panics, 0, "{:?}", manager.health());
        }
        for (repository, head) in self.driver.list(ListFilter::All, None, 500).await.unwrap() {
            let view = self.view(&repository).await;
            assert!(view.exists && view.head.revision >= head.revision);
        }
    }

    fn patience(&self) -> Duration {
        match self.time {
            // Longer than any backoff, shorter than any back-stop.
            Time::Paused => Duration::from_millis(700),
            Time::Real => self.options.poll_interval / 2,
        }
    }
}

fn lease_of(run: &PipelineRunKey, turn: Result<Turn, Error>) -> Lease {
    match turn {
        Ok(Turn::Started(lease)) => lease,
        other => panic!("{run} waited for a lease and got {other:?}"),
    }
}

/// How to open a store whose clock shows a certain time.
struct Reset(Box<dyn Fn(Timestamp) -> Arc<dyn Driver> + Send + Sync>);

impl fmt::Debug for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reset")
    }
}
