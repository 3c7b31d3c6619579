//! A reader of the store, which is not a controller.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use pac_concurrency::{
    Change, ErrorKind, Limit, MemoryDriver, MemoryOptions, RunOutcome, RunStep, StoreReader,
    StoreWatch,
};
use pac_conformance::faults::{Fault, Faults, Request, When};
use pac_conformance::{Fixture, Time, durable, ephemeral, queued, repository, run_case, started};
use tokio::time::timeout;

async fn memory(time: Time) -> Fixture {
    Fixture::over(Arc::new(MemoryDriver::new(MemoryOptions::default())), time)
}

/// Waits for the next change, and puts it in words.
async fn told(watch: &mut StoreWatch) -> String {
    let change = timeout(Duration::from_secs(60), watch.next()).await;
    match change.unwrap().unwrap() {
        Change::Run(run) => {
            let step = match run.step {
                RunStep::Queued { owner } => format!("queued {}", owner.is_some()),
                RunStep::Started { orphaned, .. } => format!("started {}", !orphaned),
                RunStep::Finished(outcome) => outcome.to_string(),
            };
            let (run, running, queued) = (run.run.name().to_owned(), run.running, run.queued);
            format!("{run} {step} {running}+{queued}")
        }
        Change::Limit {
            repository, limit, ..
        } => format!("{repository} limit {limit}"),
        Change::Removed(repository) => format!("{repository} removed"),
        Change::Unreadable(error) => format!("unreadable {error}"),
        Change::Interrupted(_) => "interrupted".to_owned(),
        Change::Resumed => "resumed".to_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_reader_sees_what_controllers_have_put_there_and_opens_no_session() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let (web, manager) = (repository("web"), fixture.manager().await);
        let reader = StoreReader::new(Arc::clone(fixture.driver()));
        assert!(!reader.status(&web).await.unwrap().exists);
        manager.set_limit(&web, Limit::new(1), None).await.unwrap();
        let _a = started(&manager, &web, durable("a")).await;
        let _b = queued(&manager, &web, durable("b")).await;
        assert_eq!(
            reader.status(&web).await.unwrap(),
            manager.status(&web).await.unwrap()
        );
        let page = reader.list(None, 10).await.unwrap();
        assert_eq!(page, manager.list(None, 10).await.unwrap());
        assert_eq!((page[0].running, page[0].queued), (1, 1));
        assert!(reader.list(Some(&web), 10).await.unwrap().is_empty());
        assert!(reader.dead_sessions().await.unwrap().is_empty());
        let session = manager.session();
        fixture.driver().close_session(session).await.unwrap();
        assert_eq!(reader.dead_sessions().await.unwrap(), [session]);
    });
}

#[test]
fn a_watch_tells_every_run_at_its_latest_step() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let (web, api) = (repository("web"), repository("api"));
        let manager = fixture.manager().await;
        manager.set_limit(&web, Limit::new(1), None).await.unwrap();
        let reader = StoreReader::new(Arc::clone(fixture.driver()));
        let mut all = reader.watch(None).await.unwrap();
        let mut one = reader.watch(Some(web.clone())).await.unwrap();

        let a = started(&manager, &web, durable("a")).await;
        assert_eq!(told(&mut all).await, "a started true 1+0");
        let b = queued(&manager, &web, durable("b")).await;
        assert_eq!(told(&mut all).await, "b queued true 1+1");
        manager.release(a, RunOutcome::Completed).await.unwrap();
        assert_eq!(told(&mut all).await, "a completed 1+0");
        assert_eq!(told(&mut all).await, "b started true 1+0");
        drop(b);
        let _c = started(&manager, &api, ephemeral("c")).await;
        let (limit, c) = (format!("{api} limit none"), "c started true 1+0");
        while told(&mut all).await != limit {}
        assert_eq!(told(&mut all).await, c);
        manager.remove_repository(&web).await.unwrap();
        while told(&mut all).await != format!("{web} removed") {}

        // This watch has read nothing in time, so it reports only the removal; it reports
        // nothing of other repositories.
        assert_eq!(told(&mut one).await, format!("{web} removed"));
        let nothing = timeout(Duration::from_secs(30), one.next()).await;
        assert!(nothing.is_err(), "{nothing:?}");
    });
}

#[test]
fn a_watch_goes_on_where_it_was_when_the_store_is_back() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let (web, manager) = (repository("web"), fixture.manager().await);
        manager.set_limit(&web, Limit::new(1), None).await.unwrap();
        let outage = Faults::none();
        let reader = StoreReader::new(outage.over(fixture.driver()));
        let mut watch = reader.watch(None).await.unwrap();
        let a = started(&manager, &web, durable("a")).await;
        outage.inject([Request::Load], Fault::Fail, When::Always);
        assert_eq!(told(&mut watch).await, "interrupted");
        let error = reader.watch(Some(web.clone())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        manager.release(a, RunOutcome::Failed).await.unwrap();
        let waiting = timeout(Duration::from_secs(60), watch.next()).await;
        assert!(waiting.is_err(), "{waiting:?}");
        outage.clear();
        assert_eq!(told(&mut watch).await, "resumed");
        assert_eq!(told(&mut watch).await, "a failed 0+0");
    });
}
