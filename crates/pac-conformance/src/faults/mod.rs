//! What networks, crashes and bugs do between a manager and its store, for anybody's tests.
//!
//! [`Faults`] is a plan of what goes wrong. [`Faults::over`] puts it before a driver; what comes
//! out is a driver too, so several plans can be put before one another, and managers that share
//! a plan share its connection. A plan can be changed while it is in use.
//!
//! - The whole connection: [`cut`](Faults::cut), [`hold`](Faults::hold), [`open`](Faults::open).
//! - Requests of some kinds, now and then or so many of them: [`inject`](Faults::inject) a
//!   [`Fault`]: delayed, failed, question or answer lost, conflict, hanging, a panic. Or those
//!   about one repository alone: [`inject_at`](Faults::inject_at).
//! - Hints of the watch: [`inject_hints`](Faults::inject_hints) a [`HintFault`]: dropped,
//!   late, twice, overtaken by others.
//! - What is read of one repository: [`ruin`](Faults::ruin) it.
//! - The whole store: [`rewind`](Faults::rewind) it, as a restore from an older copy does.
//! - What the driver says of itself: [`describe`](Faults::describe).
//!
//! What is left to chance is drawn from a seed: the same requests in the same order meet the
//! same faults.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use pac_conformance::faults::{Fault, Faults, HintFault, Request, When};
//! use pac_core::driver::Driver;
//! use pac_core::manager::{Admission, ConcurrencyManager, ManagerOptions};
//! use pac_core::protocol::RunRequest;
//! use pac_core::{Error, ErrorKind, Limit};
//! use pac_memory::{MemoryDriver, MemoryOptions};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store: Arc<dyn Driver> = Arc::new(MemoryDriver::new(MemoryOptions::default()));
//! // A slow line, before a store that is busy with others.
//! let line = Faults::seeded(7);
//! line.inject(Request::ALL, Fault::Delay(Duration::from_millis(2)), When::Always);
//! let store_is_busy = Faults::seeded(8);
//! store_is_busy.inject([Request::Commit], Fault::Conflict, When::Chance(0.3));
//! store_is_busy.inject_hints(HintFault::Drop, When::Chance(0.5));
//! let driver = line.over(&store_is_busy.over(&store));
//!
//! let options = ManagerOptions::default();
//! let manager = ConcurrencyManager::open(driver, options).await?;
//! let repository = "team/web".parse()?;
//! manager.set_limit(&repository, Limit::new(1), None).await?;
//!
//! // The commit is done, and nobody is told: it is recognised, not done again.
//! line.inject([Request::Commit], Fault::LoseAnswer, When::Next(1));
//! let run = RunRequest::durable("team/run-1".parse()?, "uid-1".parse()?);
//! let admission = manager.admit(&repository, run).await?;
//! assert!(matches!(admission, Admission::Started(_)));
//! assert!(line.is_used_up());
//!
//! // Away for longer than anybody waits.
//! line.cut();
//! let failed: Error = manager.status(&repository).await.unwrap_err();
//! assert_eq!(failed.kind(), ErrorKind::Unavailable);
//! line.open();
//! assert_eq!(manager.status(&repository).await?.running.len(), 1);
//! # Ok(())
//! # }
//! ```

mod driver;
mod fault;
mod plan;
mod rewind;
mod ruin;
mod watch;

pub use fault::{Fault, HintFault, Request, When};
pub use plan::{Faults, Traffic};
pub use ruin::Ruin;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use pac_core::driver::{Driver, SessionTtl, Watch, WatchEvent};
    use pac_core::manager::{ConcurrencyManager, ManagerOptions};
    use pac_core::{RepositoryKey, SessionIdentity};
    use pac_memory::{MemoryDriver, MemoryOptions};
    use tokio::time::Instant;

    use super::*;
    use crate::{durable, repository, started};

    fn memory() -> Arc<dyn Driver> {
        Arc::new(MemoryDriver::new(MemoryOptions::default()))
    }

    async fn watch(driver: &dyn Driver) -> Box<dyn Watch> {
        let ttl = SessionTtl::new(Duration::from_secs(60), Duration::from_secs(60));
        let session = driver
            .open_session(ttl, &SessionIdentity::of_this_process())
            .await
            .unwrap();
        driver.watch(session).await.unwrap()
    }

    async fn changed(watch: &mut Box<dyn Watch>) -> RepositoryKey {
        match watch.next().await.unwrap() {
            WatchEvent::Changed { repository, .. } => repository,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn the_same_seed_draws_the_same_faults() {
        let mut drawn = Vec::new();
        for seed in [1, 1, 2] {
            let faults = Faults::seeded(seed);
            faults.inject(Request::ALL, Fault::Conflict, When::Chance(0.5));
            faults.inject([Request::Load], Fault::Fail, When::Chance(0.1));
            let mut met = Vec::new();
            for _ in 0..100 {
                met.push(faults.meet(Request::Load, &[]).await.unwrap());
            }
            drawn.push(met);
        }
        assert!(drawn[0] == drawn[1] && drawn[0] != drawn[2]);
    }

    #[tokio::test(start_paused = true)]
    async fn plans_are_stacked_and_delay_both_ways() {
        let (near, far) = (Faults::none(), Faults::none());
        let step = Duration::from_millis(10);
        near.inject([Request::List], Fault::Delay(step), When::Always);
        far.inject([Request::List], Fault::Delay(step * 2), When::Every(2));
        let driver = near.over(&far.over(&memory()));
        for expected in [2, 6] {
            let asked = Instant::now();
            let filter = pac_core::driver::ListFilter::All;
            driver.list(filter, None, 1).await.unwrap();
            assert_eq!(asked.elapsed(), step * expected);
        }
        assert_eq!(
            (near.requests(Request::List), far.requests(Request::List)),
            (2, 2)
        );
    }

    #[tokio::test]
    async fn one_repository_meets_what_is_planned_for_it_alone() {
        let (web, api) = (repository("web"), repository("api"));
        let faults = Faults::none();
        faults.inject_at(&web, [Request::Load], Fault::Fail, When::Next(1));
        let driver = faults.over(&memory());
        assert!(driver.load(&api, None).await.is_ok() && !faults.is_used_up());
        assert!(driver.load(&web, None).await.is_err() && faults.is_used_up());
        assert!(driver.load(&web, None).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn hints_are_late_overtaken_and_held() {
        let store = memory();
        let manager = ConcurrencyManager::open(Arc::clone(&store), ManagerOptions::default());
        let manager = manager.await.unwrap();
        let faults = Faults::none();
        let mut watch = watch(&*faults.over(&store)).await;
        let late = Duration::from_secs(1);
        faults.inject_hints(HintFault::Late(late), When::Next(1));
        faults.inject_hints(HintFault::Overtaken, When::Next(1));
        let begun = Instant::now();
        for name in ["late", "overtaken", "first"] {
            drop(started(&manager, &repository(name), durable("a")).await);
        }
        for name in ["first", "overtaken"] {
            assert_eq!(changed(&mut watch).await, repository(name));
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        faults.hold();
        let held = tokio::time::timeout(late * 2, watch.next()).await;
        assert!(held.is_err(), "{held:?}");
        faults.open();
        assert_eq!(changed(&mut watch).await, repository("late"));
        assert!(faults.hints_hit() == 2 && faults.is_used_up());
        faults.cut();
        assert!(watch.next().await.is_err());
    }
}
