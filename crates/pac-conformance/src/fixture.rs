//! One store, and the managers that a case opens on it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use pac_core::RepositoryKey;
use pac_core::driver::{Driver, ListFilter};
use pac_core::manager::{
    Admission, ConcurrencyManager, Ending, Lease, ManagerOptions, Turn, Waiter,
};
use pac_core::protocol::RunRequest;
use pac_core::state::RunOutcome;
use tokio::time::{Instant, sleep, timeout};

use crate::faults::{Fault, Faulty};
use crate::{Time, View, run, uid};

/// Over one store, empty at the start.
#[derive(Debug)]
pub struct Fixture {
    driver: Arc<dyn Driver>,
    time: Time,
    managers: Mutex<Vec<ConcurrencyManager>>,
}

impl Fixture {
    /// Over the store of a driver. Nobody else writes to it while the case runs.
    #[must_use]
    pub fn over(driver: Arc<dyn Driver>, time: Time) -> Self {
        Self {
            driver,
            time,
            managers: Mutex::default(),
        }
    }

    /// The driver itself: the store as it is, past every manager and every fault.
    #[must_use]
    pub fn driver(&self) -> &Arc<dyn Driver> {
        &self.driver
    }

    /// The settings of managers: those of production where time costs nothing, else as short
    /// as a busy machine allows. Cases name durations as multiples of these.
    #[must_use]
    pub fn options(&self) -> ManagerOptions {
        match self.time {
            Time::Paused => ManagerOptions {
                lease_ttl: Some(Duration::from_secs(60 * 60)),
                ..ManagerOptions::default()
            },
            Time::Real => ManagerOptions {
                session_ttl: Duration::from_secs(2),
                lease_ttl: Some(Duration::from_secs(5)),
                poll_interval: Duration::from_secs(1),
                sweep_interval: Duration::from_millis(200),
                ..ManagerOptions::default()
            },
        }
    }

    /// How far a duration that was measured may be from what it has to be.
    #[must_use]
    pub fn tolerance(&self) -> Duration {
        match self.time {
            Time::Paused => Duration::from_millis(1),
            Time::Real => Duration::from_millis(250),
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

    /// A manager with a fault between it and the store. The case may kill it.
    pub async fn manager_behind<F: Fault>(&self, fault: &Arc<F>) -> ConcurrencyManager {
        self.manager_behind_with(fault, self.options()).await
    }

    /// The same with settings of its own.
    pub async fn manager_behind_with<F: Fault>(
        &self,
        fault: &Arc<F>,
        options: ManagerOptions,
    ) -> ConcurrencyManager {
        let driver = Faulty::over(&self.driver, fault);
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
        sleep(Duration::from_millis(100)).await;
    }

    /// Awaits something that has to come without a back-stop's help.
    pub async fn soon<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        let longest = self.patience();
        let came = timeout(longest, future).await;
        came.unwrap_or_else(|_| panic!("{what} did not come within {longest:?}"))
    }

    /// The lease that a waiter gets now.
    pub async fn turn(&self, waiter: Waiter) -> Lease {
        let run = waiter.run().clone();
        match self.soon(&format!("the turn of {run}"), waiter).await {
            Ok(Turn::Started(lease)) => lease,
            other => panic!("{run} waited for a lease and got {other:?}"),
        }
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
            Time::Real => Duration::from_secs(10),
        }
    }
}

/// Admits a run that has to start.
pub async fn started(
    manager: &ConcurrencyManager,
    repository: &RepositoryKey,
    request: RunRequest,
) -> Lease {
    let run = request.run.clone();
    match manager.admit(repository, request).await {
        Ok(Admission::Started(lease)) => lease,
        other => panic!("{run} had to start, not {other:?}"),
    }
}

/// Admits a run that has to wait.
pub async fn queued(
    manager: &ConcurrencyManager,
    repository: &RepositoryKey,
    request: RunRequest,
) -> Waiter {
    let run = request.run.clone();
    match manager.admit(repository, request).await {
        Ok(Admission::Queued(waiter)) => waiter,
        other => panic!("{run} had to wait, not {other:?}"),
    }
}

/// Admits a run that has ended before.
pub async fn finished(
    manager: &ConcurrencyManager,
    repository: &RepositoryKey,
    request: RunRequest,
) -> RunOutcome {
    let run = request.run.clone();
    match manager.admit(repository, request).await {
        Ok(Admission::Finished(outcome)) => outcome,
        other => panic!("{run} had ended, not {other:?}"),
    }
}

/// Polls a future so many times, with everything else going on a little in between, and then
/// drops it. Its output if it was ready before.
pub async fn poll_times<T>(future: impl Future<Output = T>, times: usize) -> Option<T> {
    /// Paused time goes on only when nothing else does; so many polls are without it.
    const TIMELESS: usize = 50;
    let mut future = pin!(future);
    for n in 0..times {
        let polled = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        if n < TIMELESS {
            tokio::task::yield_now().await;
        } else {
            sleep(Duration::from_millis(1)).await;
        }
    }
    None
}
