//! Slots of several repositories, held together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pac_core::manager::{ConcurrencyManager, FinishedRun, Permit, Permits, RepositoryStatus};
use pac_core::state::RunOutcome;
use pac_core::{Error, ErrorKind, Limit, RepositoryKey};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use crate::{Fixture, repository};

/// How many ask at once.
const CROWD: usize = 12;

/// Those who ask for the same ones in another order do not wait for each other; what comes first is
/// held while the rest is waited for, and given back when the caller gives up, when the time is
/// over, and when it is lost.
pub async fn slots_of_several_repositories_come_together(fixture: &Fixture) {
    let managers = [fixture.manager().await, fixture.manager().await];
    let (first, second) = (repository("a"), repository("b"));
    for key in [&first, &second] {
        let set = managers[0].set_limit(key, Limit::new(1), None);
        set.await.unwrap();
    }
    all_of_a_crowd_come(fixture, &managers, &first, &second).await;

    let [near, far] = &managers;
    let taken = near.acquire(&second).await.unwrap();
    let running = |permit: &Permit| permit.lease().run().name().to_owned();
    let held = running(&taken);
    let twice = far.acquire_all([&first, &second, &first]).await;
    assert_eq!(twice.unwrap_err().kind(), ErrorKind::InvalidInput);
    let short = Duration::from_millis(200);
    let late = far.acquire_all_timeout([&second, &first], short).await;
    assert!(late.unwrap().is_none());
    fixture.comes_to(&first, &[], &[]).await;
    fixture.comes_to(&second, &[&held], &[]).await;

    // The caller gives up with one of two.
    let waiting = spawn_both(far, &first, &second);
    let name = the_holder(fixture, near, &first).await;
    a_waiter(fixture, near, &second).await;
    waiting.abort();
    fixture.comes_to(&first, &[], &[]).await;
    fixture.comes_to(&second, &[&held], &[]).await;

    // Somebody takes away what is held while the rest is waited for.
    let waiting = spawn_both(far, &first, &second);
    let next = the_holder(fixture, near, &first).await;
    assert_ne!(next, name);
    a_waiter(fixture, near, &second).await;
    near.cancel(&first, &crate::run(&next), None).await.unwrap();
    let lost = fixture.soon("the loss", waiting).await.unwrap();
    assert_eq!(lost.unwrap_err().kind(), ErrorKind::RunEnded);
    fixture.comes_to(&second, &[&held], &[]).await;

    // All come at last.
    let waiting = spawn_both(far, &first, &second);
    the_holder(fixture, near, &first).await;
    taken.release().await.unwrap();
    let permits = fixture.soon("both", waiting).await.unwrap().unwrap();
    let before = near.status(&first).await.unwrap();
    let is_cancelled = |run: &&FinishedRun| run.outcome == RunOutcome::Cancelled;
    let cancelled = before.finished.iter().filter(is_cancelled).count();
    assert_eq!(
        (before.finished.len(), cancelled),
        (CROWD + 3, 3),
        "no work had begun"
    );
    assert!(permits.is_held());
    let names: Vec<_> = permits
        .iter()
        .map(|permit| permit.lease().repository())
        .collect();
    assert_eq!(names, [&first, &second]);
    let gone = permits.lost();
    let second_run = running(permits.of(&second).unwrap());
    near.cancel(&second, &crate::run(&second_run), None)
        .await
        .unwrap();
    let (lost, _) = fixture.soon("the loss of the second", gone).await;
    assert_eq!(lost, second);
    permits.release().await.unwrap();
    fixture.comes_to(&first, &[], &[]).await;
    fixture.comes_to(&second, &[], &[]).await;
}

async fn all_of_a_crowd_come(
    fixture: &Fixture,
    managers: &[ConcurrencyManager; 2],
    first: &RepositoryKey,
    second: &RepositoryKey,
) {
    let at_work = Arc::new(AtomicUsize::new(0));
    let mut crowd = JoinSet::new();
    for n in 0..CROWD {
        let manager = managers[n / 2 % 2].clone();
        let (first, second) = (first.clone(), second.clone());
        let at_work = Arc::clone(&at_work);
        crowd.spawn(async move {
            let order = if n % 2 == 0 {
                [&first, &second]
            } else {
                [&second, &first]
            };
            let permits = manager.acquire_all(order).await.unwrap();
            assert_eq!(
                at_work.fetch_add(1, Ordering::SeqCst),
                0,
                "both limits are 1"
            );
            sleep(Duration::from_millis(5)).await;
            at_work.fetch_sub(1, Ordering::SeqCst);
            permits.release().await.unwrap();
        });
    }
    fixture.soon("all of them", crowd.join_all()).await;
    fixture.comes_to(first, &[], &[]).await;
    fixture.comes_to(second, &[], &[]).await;
}

fn spawn_both(
    manager: &ConcurrencyManager,
    first: &RepositoryKey,
    second: &RepositoryKey,
) -> JoinHandle<Result<Permits, Error>> {
    let (manager, first, second) = (manager.clone(), first.clone(), second.clone());
    tokio::spawn(async move { manager.acquire_all([&second, &first]).await })
}

/// The run that holds the only slot, once there is one.
async fn the_holder(
    fixture: &Fixture,
    manager: &ConcurrencyManager,
    key: &RepositoryKey,
) -> String {
    let holder = |status: RepositoryStatus| {
        let run = status.running.first()?;
        Some(run.run.name().to_owned())
    };
    once(fixture, manager, key, holder).await
}

/// Waits until a run waits.
async fn a_waiter(fixture: &Fixture, manager: &ConcurrencyManager, key: &RepositoryKey) {
    let waits = |status: RepositoryStatus| (!status.queued.is_empty()).then_some(());
    once(fixture, manager, key, waits).await;
}

async fn once<T>(
    fixture: &Fixture,
    manager: &ConcurrencyManager,
    key: &RepositoryKey,
    look: impl Fn(RepositoryStatus) -> Option<T>,
) -> T {
    let found = async {
        loop {
            match look(manager.status(key).await.unwrap()) {
                Some(found) => return found,
                None => sleep(Duration::from_millis(5)).await,
            }
        }
    };
    fixture.soon("the state that is waited for", found).await
}
