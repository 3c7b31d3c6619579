//! A store for one case, and the managers that the case opens on it.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use pac_core::driver::{Driver, ListFilter};
use pac_core::manager::{
    ConcurrencyManager, Ending, KeepAliveOn, Lease, ManagerOptions, Turn, Waiter,
};
use pac_core::state::RunOutcome;
use pac_core::{Error, PipelineRunKey, RepositoryKey, Timestamp};
use tokio::time::{Instant, sleep, timeout};

use crate::faults::Faults;
use crate::{Outage, Server, Time, Vandal, View, run, uid};

/// A store, empty at the start, on which a case opens as many managers as it needs.
///
/// The driver's test file calls the `with_` methods to say where its store is slower or less
/// exact than memory. Cases express durations as multiples of [`options`](Self::options).
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
    server: Option<Arc<dyn Server>>,
    managers: Mutex<Vec<ConcurrencyManager>>,
}

impl Fixture {
    /// A fixture over the store of a driver. Only the fixture may write to it while the case
    /// runs.
    ///
    /// On paused time, where waiting costs nothing, managers have production settings. In real
    /// time sessions live for 2 s and leases for 5 s; tolerance and expiry delay are 250 ms.
    #[must_use]
    pub fn over(driver: Arc<dyn Driver>, time: Time) -> Self {
        let (options, tolerance) = match time {
            Time::Paused => {
                let options = ManagerOptions::default()
                    .with_lease_ttl(Duration::from_secs(60 * 60))
                    // Paused time jumps over the deadlines of requests that a case holds.
                    .with_request_timeout(Duration::from_secs(24 * 60 * 60))
                    .with_keep_alive_on(KeepAliveOn::Task);
                (options, Duration::from_millis(1))
            }
            Time::Real => {
                let options = ManagerOptions::default()
                    .with_session_ttl(Duration::from_secs(2))
                    .with_lease_ttl(Duration::from_secs(5))
                    // Longer than any case waits for an event: the poll must not hide a missing
                    // wake-up.
                    .with_poll_interval(Duration::from_secs(20))
                    .with_sweep_interval(Duration::from_millis(200));
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
            server: None,
            managers: Mutex::default(),
        }
    }

    /// Sets the session TTL: the shortest that the store supports, but long enough that a busy
    /// machine does not lose sessions.
    #[must_use]
    pub fn with_session_ttl(mut self, ttl: Duration) -> Self {
        self.options.session_ttl = ttl;
        self
    }

    /// Sets the lease TTL: at least twice the session TTL.
    #[must_use]
    pub fn with_lease_ttl(mut self, ttl: Duration) -> Self {
        self.options.lease_ttl = Some(ttl);
        self
    }

    /// Sets how far a measured duration may deviate from the expected one, and the longest that
    /// an answer or the hint of a change may take on a busy machine.
    #[must_use]
    pub fn with_tolerance(mut self, tolerance: Duration) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Sets how long nothing must happen before a case concludes that nothing more will.
    /// Default: the tolerance. Cases wait this long many times, so set it lower for a store
    /// whose hints usually arrive well within its tolerance.
    #[must_use]
    pub fn with_quiet(mut self, quiet: Duration) -> Self {
        self.quiet = Some(quiet);
        self
    }

    /// Sets how much later than its TTL the store may notice that a session is over (never
    /// earlier). At most 2 s, because a case requires the next run to start by then.
    #[must_use]
    pub fn with_expiry_delay(mut self, delay: Duration) -> Self {
        assert!(delay <= Duration::from_secs(2), "{delay:?} is too late");
        self.expiry_delay = delay;
        self
    }

    /// Sets the fraction of their full number of runs that cases with many runs use. Default 1;
    /// use 0.1 for a store where every commit is a durable write.
    #[must_use]
    pub fn with_scale(mut self, scale: f64) -> Self {
        assert!(
            scale > 0.0 && scale <= 1.0,
            "a part of the whole, not {scale}"
        );
        self.scale = scale;
        self
    }

    /// Sets how to open another, empty store whose clock shows a given time. A driver that
    /// cannot do that must name case 41 in `except`.
    #[must_use]
    pub fn with_clock(
        mut self,
        open: impl Fn(Timestamp) -> Arc<dyn Driver> + Send + Sync + 'static,
    ) -> Self {
        self.reset = Some(Reset(Box::new(open)));
        self
    }

    /// Sets the means to write into the store past its driver. Without one, the cases on broken
    /// records damage only the answers on their way to the manager; with one, the stored records
    /// too.
    #[must_use]
    pub fn with_vandal(mut self, vandal: impl Vandal) -> Self {
        self.vandal = Some(Arc::new(vandal));
        self
    }

    /// Sets the server of the store, which nobody else may use. Without one, an
    /// [outage](Self::outage) is that of a line before the store.
    #[must_use]
    pub fn with_server(mut self, server: impl Server) -> Self {
        self.server = Some(Arc::new(server));
        self
    }

    /// The means to take the store away from managers, and to give it back.
    #[must_use]
    pub fn outage(&self) -> Outage {
        Outage::of(self.server.clone())
    }

    /// The driver itself: direct access to the store, without a manager or injected faults.
    #[must_use]
    pub fn driver(&self) -> &Arc<dyn Driver> {
        &self.driver
    }

    /// The means to write into the store past its driver, if there is one.
    #[must_use]
    pub fn vandal(&self) -> Option<&Arc<dyn Vandal>> {
        self.vandal.as_ref()
    }

    /// The default settings of managers. The back-stop poll is longer than a case waits for
    /// anything, so it cannot hide a missing wake-up.
    #[must_use]
    pub fn options(&self) -> ManagerOptions {
        self.options
    }

    /// The default settings with a back-stop poll short enough for a case to wait for.
    #[must_use]
    pub fn polling_options(&self) -> ManagerOptions {
        self.options.with_poll_interval(match self.time {
            Time::Paused => self.options.poll_interval,
            Time::Real => Duration::from_secs(1),
        })
    }

    /// How long the slots of durable runs outlive their manager's session.
    #[must_use]
    pub fn lease_ttl(&self) -> Duration {
        let usual = self.driver.descriptor().lease_ttl;
        self.options.lease_ttl.unwrap_or(usual)
    }

    /// How far a measured duration may deviate from the expected one.
    #[must_use]
    pub fn tolerance(&self) -> Duration {
        self.tolerance
    }

    /// The longest time from a session's last renewal until its runs have been cleaned up: its
    /// TTL, and the time that the store and the managers need to notice.
    #[must_use]
    pub fn session_end(&self) -> Duration {
        self.options.session_ttl + self.notice()
    }

    /// The longest time that the store and the managers need to act on a TTL that has passed.
    #[must_use]
    pub fn notice(&self) -> Duration {
        self.expiry_delay + self.options.sweep_interval * 2 + self.tolerance
    }

    /// Whether the case runs in real time, where waiting is expensive.
    #[must_use]
    pub fn is_real(&self) -> bool {
        self.time == Time::Real
    }

    /// `number` times the scale of [`with_scale`](Self::with_scale), at least 1.
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

    /// Applies `work` to each of `items`: in real time to all at once, since waiting is
    /// expensive there, on paused time to one after the other.
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

    /// Opens a manager with the default settings.
    pub async fn manager(&self) -> ConcurrencyManager {
        self.manager_with(self.options()).await
    }

    /// Opens a manager with the given settings.
    pub async fn manager_with(&self, options: ManagerOptions) -> ConcurrencyManager {
        let driver = Arc::clone(&self.driver);
        let manager = ConcurrencyManager::open(driver, options).await.unwrap();
        self.managers.lock().unwrap().push(manager.clone());
        manager
    }

    /// Opens a manager that reaches the store through `faults`. The case may kill it.
    pub async fn manager_behind(&self, faults: &Arc<Faults>) -> ConcurrencyManager {
        self.manager_behind_with(faults, self.options()).await
    }

    /// Like [`manager_behind`](Self::manager_behind), with the given settings.
    pub async fn manager_behind_with(
        &self,
        faults: &Arc<Faults>,
        options: ManagerOptions,
    ) -> ConcurrencyManager {
        let driver = faults.over(&self.driver);
        ConcurrencyManager::open(driver, options).await.unwrap()
    }

    /// Reads a repository from the store and audits what it read.
    pub async fn view(&self, repository: &RepositoryKey) -> View {
        let view = View::of(self.driver.load(repository, None).await.unwrap());
        view.audit();
        view
    }

    /// Waits until exactly these runs hold a slot (in any order) and wait (in this order); fails
    /// with the difference.
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

    /// How long [`settle`](Self::settle) waits.
    #[must_use]
    pub fn quiet(&self) -> Duration {
        let quiet = self.quiet.unwrap_or(self.tolerance);
        quiet.max(Duration::from_millis(100))
    }

    /// Waits long enough for a session that was renewed just now for the last time to end, and
    /// for the managers to clean up its runs.
    pub async fn outlive_session(&self) {
        sleep(self.session_end()).await;
    }

    /// Awaits a future that must complete without the back-stop poll's help.
    pub async fn soon<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        let longest = self.patience();
        let came = timeout(longest, future).await;
        came.unwrap_or_else(|_| panic!("{what} did not come within {longest:?}"))
    }

    /// Awaits a future that must complete once the store answers again: within a second, and the
    /// tolerance.
    pub async fn reconnected<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        let longest = Duration::from_secs(1) + self.tolerance;
        let came = timeout(longest, future).await;
        came.unwrap_or_else(|_| panic!("{what} did not come within {longest:?} of the outage"))
    }

    /// Waits until the waiter gets its lease.
    pub async fn turn(&self, waiter: Waiter) -> Lease {
        let run = waiter.run().clone();
        let turn = self.soon(&format!("the turn of {run}"), waiter).await;
        lease_of(&run, turn)
    }

    /// Waits until the waiter gets its lease after the connection has come back.
    pub async fn turn_when_reconnected(&self, waiter: Waiter) -> Lease {
        let run = waiter.run().clone();
        let turn = self
            .reconnected(&format!("the turn of {run}"), waiter)
            .await;
        lease_of(&run, turn)
    }

    /// Fails if the waiter ends within 100 ms.
    pub async fn waits_on(&self, waiter: &mut Waiter) {
        let run = waiter.run().clone();
        if let Ok(turn) = timeout(Duration::from_millis(100), waiter).await {
            panic!("{run} was not to be woken, and got {turn:?}");
        }
    }

    /// Releases a run by name with the token that the store shows, whichever manager admitted
    /// it.
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

    /// Releases the run with the oldest grant until none holds a slot. Returns the names in that
    /// order; fails if a run waits although no run holds a slot.
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

    /// Checks what must hold after every case: no manager has panicked, and the stored state of
    /// every repository is consistent.
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
            // Longer than any backoff, shorter than any back-stop poll.
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

/// Opens a store whose clock shows a given time.
struct Reset(Box<dyn Fn(Timestamp) -> Arc<dyn Driver> + Send + Sync>);

impl fmt::Debug for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reset")
    }
}
