//! Many tasks and several managers at once, on real threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use pac_core::driver::ListFilter;
use pac_core::manager::{Admission, ConcurrencyManager, Lease, Turn};
use pac_core::state::RunOutcome;
use pac_core::{ErrorKind, Limit, RepositoryKey};
use tokio::task::{JoinSet, yield_now};
use tokio::time::sleep;

use crate::faults::{Fault, Faults, Request, When};
use crate::{Fixture, History, at_priority, durable, queued, repository, run, started};

/// (6) A newcomer never takes a slot while somebody waits (no barging), also in the instant of a
/// release.
pub async fn no_barging(fixture: &Fixture) {
    let managers = [fixture.manager().await, fixture.manager().await];
    let web = repository("web");
    managers[0]
        .set_limit(&web, Limit::new(3), None)
        .await
        .unwrap();
    let history = Arc::new(History::default());
    let mut tasks = JoinSet::new();
    let runs = fixture.scaled(40).max(10);
    for task in 0..16 {
        let manager = managers[task % 2].clone();
        let (repository, history) = (web.clone(), Arc::clone(&history));
        tasks.spawn(async move {
            for n in 0..runs {
                live(&manager, &repository, &format!("{task}-{n}"), &history).await;
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(history.len(), 16 * runs);
    assert_eq!(history.assert_limit(3), 3, "it was never crowded");
    history.assert_tokens_increase();
    history.assert_first_in_first_out();

    // At the same moment: A is released and C arrives, while B waits between them.
    let instant = repository("instant");
    managers[0]
        .set_limit(&instant, Limit::new(1), None)
        .await
        .unwrap();
    for n in 0..fixture.scaled(200) {
        let names = ["a", "b", "c"].map(|name| format!("{name}-{n}"));
        let (left, right) = (&managers[n % 2], &managers[(n + n / 2) % 2]);
        let a = started(left, &instant, durable(&names[0])).await;
        let b = queued(&managers[0], &instant, durable(&names[1])).await;
        let (ending, c) = tokio::join!(
            left.release(a, RunOutcome::Completed),
            right.admit(&instant, durable(&names[2])),
        );
        let b = fixture.turn(b).await;
        let Admission::Queued(c) = c.unwrap() else {
            panic!("c took the slot that was b's: {ending:?}");
        };
        managers[0].release(b, RunOutcome::Completed).await.unwrap();
        let c = fixture.turn(c).await;
        right.release(c, RunOutcome::Completed).await.unwrap();
    }
}

/// (11) Runs of 64 tasks and 4 managers on one repository with limit 5: at no time more than 5
/// live leases (the store's own view and the holders' view).
pub async fn limit_holds_under_contention(fixture: &Fixture) {
    let repository = repository("web");
    let conflicts = Faults::none();
    conflicts.inject([Request::Commit], Fault::Conflict, When::Every(7));
    let managers = [
        fixture.manager().await,
        fixture.manager().await,
        fixture.manager_behind(&conflicts).await,
        fixture.manager_behind(&conflicts).await,
    ];
    managers[0]
        .set_limit(&repository, Limit::new(5), None)
        .await
        .unwrap();
    let history = Arc::new(History::default());
    let mut tasks = JoinSet::new();
    let runs = fixture.scaled(12).max(4);
    for task in 0..64 {
        let manager = managers[task % 4].clone();
        let (repository, history) = (repository.clone(), Arc::clone(&history));
        tasks.spawn(async move {
            for n in 0..runs {
                live(&manager, &repository, &format!("{task}-{n}"), &history).await;
            }
        });
    }
    let over = AtomicBool::new(false);
    let watch_store = async {
        let mut peak = 0;
        while !over.load(Ordering::Relaxed) {
            let running = fixture.view(&repository).await.running.len();
            assert!(running <= 5, "{running} live leases in the store");
            peak = peak.max(running);
            yield_now().await;
        }
        peak
    };
    let work = async {
        tasks.join_all().await;
        over.store(true, Ordering::Relaxed);
    };
    let (peak, ()) = tokio::join!(watch_store, work);
    assert_eq!(history.len(), 64 * runs);
    assert_eq!(
        (history.assert_limit(5), peak),
        (5, 5),
        "it was never crowded"
    );
    history.assert_tokens_increase();
    history.assert_first_in_first_out();
    let view = fixture.view(&repository).await;
    view.assert(&[], &[]);
    assert_eq!(
        view.head.last_token.get(),
        64 * runs as u64,
        "a run got more than one grant"
    );
}

/// (12) 100 repositories with concurrent admit, release, cancel and removal: no deadlock, no
/// panic, everything drains.
pub async fn hundred_repositories_drain(fixture: &Fixture) {
    let repositories: Arc<Vec<_>> =
        Arc::new((0..100).map(|n| repository(&format!("repo-{n}"))).collect());
    let mut managers = Vec::new();
    for _ in 0..4 {
        managers.push(fixture.manager().await);
    }
    let mut tasks = JoinSet::new();
    let steps = fixture.scaled(400);
    for task in 0..16 {
        let manager = managers[task % 4].clone();
        let repositories = Arc::clone(&repositories);
        tasks.spawn(async move {
            // A fixed seed per task, so that a failure can be reproduced.
            let mut random = Rng::with_seed(task as u64);
            for _ in 0..steps {
                let repository = &repositories[random.usize(..repositories.len())];
                act(&manager, repository, &mut random).await;
            }
        });
    }
    tasks.join_all().await;
    for repository in repositories.iter() {
        for entry in fixture.view(repository).await.entries() {
            if !entry.is_finished() {
                managers[0]
                    .cancel(repository, &entry.run, None)
                    .await
                    .unwrap();
            }
        }
    }
    for repository in repositories.iter() {
        fixture.comes_to(repository, &[], &[]).await;
        managers[1].remove_repository(repository).await.unwrap();
    }
    assert_eq!(
        fixture
            .driver()
            .list(ListFilter::All, None, 200)
            .await
            .unwrap(),
        []
    );
    for manager in &managers {
        let driver = fixture.driver();
        assert_eq!(driver.repositories_of(manager.session()).await.unwrap(), []);
    }
}

/// Runs one run's whole life: asks, waits, holds the slot for a moment, gives it back.
async fn live(
    manager: &ConcurrencyManager,
    repository: &RepositoryKey,
    name: &str,
    history: &Arc<History>,
) {
    let mut span = history.ask(name);
    let admission = manager.admit(repository, durable(name)).await.unwrap();
    span.answered();
    let lease = match admission {
        Admission::Started(lease) => lease,
        Admission::Queued(waiter) => match waiter.await.unwrap() {
            Turn::Started(lease) => lease,
            other => panic!("{name} waited for a lease and got {other:?}"),
        },
        Admission::Finished(outcome) => panic!("{name} is {outcome}"),
    };
    span.held(lease.token());
    // Most slots are held as briefly as possible; some long enough for other calls to meet them.
    if lease.token().get().is_multiple_of(4) {
        sleep(Duration::from_millis(2)).await;
    } else {
        yield_now().await;
    }
    span.gives_back();
    manager.release(lease, RunOutcome::Completed).await.unwrap();
}

/// Makes one random call of those that may come at any moment.
async fn act(manager: &ConcurrencyManager, repository: &RepositoryKey, random: &mut Rng) {
    let name = format!("run-{}", random.u32(..8));
    let done = match random.u32(..20) {
        0 => manager.remove_repository(repository).await.map(drop),
        1 => {
            let limit = Limit::new(random.u32(..4));
            manager.set_limit(repository, limit, None).await.map(drop)
        }
        2..6 => manager
            .cancel(repository, &run(&name), None)
            .await
            .map(drop),
        _ => {
            let mut request = at_priority(&name, random.i32(-1..2));
            request.uid = format!("uid-{}", random.u32(..1_000)).parse().unwrap();
            match manager.admit(repository, request).await {
                Ok(Admission::Started(lease)) => end(manager, lease, random).await,
                Ok(Admission::Queued(waiter)) => match random.u32(..4) {
                    0 => {
                        drop(waiter);
                        Ok(())
                    }
                    1 => {
                        waiter.detach();
                        Ok(())
                    }
                    _ => match waiter
                        .wait_for(Duration::from_millis(random.u64(..3)))
                        .await
                    {
                        Ok(Some(Turn::Started(lease))) => end(manager, lease, random).await,
                        other => other.map(drop),
                    },
                },
                other => other.map(drop),
            }
        }
    };
    // The only allowed failure: the repository was removed at the moment of the admission.
    if let Err(error) = done {
        assert_eq!(error.kind(), ErrorKind::Contended, "{error}");
    }
}

async fn end(
    manager: &ConcurrencyManager,
    lease: Lease,
    random: &mut Rng,
) -> Result<(), pac_core::Error> {
    match random.u32(..4) {
        0 => Ok(()),
        1 => manager.requeue(lease).await.map(drop),
        _ => {
            sleep(Duration::from_micros(random.u64(..500))).await;
            manager
                .release(lease, RunOutcome::Completed)
                .await
                .map(drop)
        }
    }
}
