//! A server that is restored from an older copy of its data.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::support;

use std::time::Duration;

use pac_conformance::{durable, queued, repository, started};
use pac_core::driver::Driver;
use pac_core::manager::{ConcurrencyManager, Event, Heard, ManagerOptions, Turn};
use pac_core::state::RunOutcome;
use pac_core::{FencingToken, Limit};
use pac_etcd::EtcdOptions;
use support::own::Member;
use tokio::time::{Instant, sleep, timeout};

const DONE: RunOutcome = RunOutcome::Completed;

/// A manager whose poll forgets no repository while the test runs: with one that is not in use it
/// would forget the counters.
async fn manager(options: &EtcdOptions) -> ConcurrencyManager {
    let patient = ManagerOptions::default()
        .with_session_ttl(Duration::from_secs(6))
        .with_command_timeout(Duration::from_secs(20))
        .with_poll_interval(Duration::from_secs(600))
        .with_sweep_interval(Duration::from_millis(500));
    let driver = support::driver(options).await;
    ConcurrencyManager::open(driver, patient).await.unwrap()
}

/// Admits and releases a run; returns its token.
async fn cycle(manager: &ConcurrencyManager, name: &str) -> FencingToken {
    let lease = started(manager, &repository("web"), durable(name)).await;
    let token = lease.token();
    manager.release(lease, DONE).await.unwrap();
    token
}

/// The manager says so once, opens another session, and goes on at once; a run that waits keeps
/// its place, and no token that it knew of is given out twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_server_is_told_as_such_and_work_goes_on() {
    let mut member = Member::single(&[]);
    let options = support::options([member.endpoint()]);
    let manager = manager(&options).await;
    let (web, busy) = (repository("web"), repository("busy"));
    for key in [&web, &busy] {
        manager.set_limit(key, Limit::new(1), None).await.unwrap();
    }
    cycle(&manager, "a").await;
    let held = started(&manager, &busy, durable("held")).await;
    let waiter = queued(&manager, &busy, durable("waits")).await;
    member.kill();
    let copy = member.copy_of_data();
    member.start();
    member.wait_until_healthy();
    let mut newest = FencingToken::default();
    for name in ["b", "c", "d"] {
        newest = cycle(&manager, name).await;
    }
    let before = manager.health();
    let mut events = manager.events();
    member.kill();
    member.put_back(&copy);
    member.start();
    member.wait_until_healthy();

    let restored = Instant::now();
    let token = cycle(&manager, "e").await;
    assert!(
        restored.elapsed() < Duration::from_secs(18),
        "not by a time-out"
    );
    assert!(token > newest, "{token} after {newest}");
    let told = async {
        while !matches!(
            events.next().await,
            Some(Heard::Event(Event::StoreRewound { .. }))
        ) {}
    };
    timeout(Duration::from_secs(10), told).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while manager.health().session == before.session || !manager.health().is_ready() {
        assert!(Instant::now() < deadline, "no other session");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(manager.health().rewinds, 1);
    assert!(held.lost().reason().is_some());
    manager
        .release_run(&busy, held.run(), held.uid(), None, DONE)
        .await
        .unwrap();
    let turn = timeout(Duration::from_secs(20), waiter).await.unwrap();
    assert!(matches!(turn, Ok(Turn::Started(_))), "{turn:?}");
}

/// A repository that has come back to a revision that was known, or beyond, with other content, is
/// not taken for what was known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_head_at_a_known_revision_is_another() {
    let mut member = Member::single(&[]);
    let options = support::options([member.endpoint()]);
    let web = repository("web");
    let first = manager(&options).await;
    first.set_limit(&web, Limit::new(5), None).await.unwrap();
    first.close().await.unwrap();
    member.kill();
    let copy = member.copy_of_data();
    member.start();
    member.wait_until_healthy();
    let second = manager(&options).await;
    for name in ["x", "y"] {
        cycle(&second, name).await;
    }
    let driver = support::driver(&options).await;
    let known = driver.load(&web, None).await.unwrap();
    drop((second, driver));
    member.kill();
    member.put_back(&copy);
    member.start();
    member.wait_until_healthy();

    let manager = manager(&options).await;
    let driver = support::driver(&options).await;
    let since = Some(known.head.version());
    for n in 0..20 {
        cycle(&manager, &format!("other-{n}")).await;
        let all = driver.load(&web, None).await.unwrap();
        let told = driver.load(&web, since).await.unwrap();
        assert_eq!(
            (told.since, told.entries.len()),
            (None, all.entries.len()),
            "all of it"
        );
        assert_ne!(all.head.stamp, known.head.stamp);
        if all.head.revision > known.head.revision {
            return;
        }
    }
    panic!("it did not come as far as it was");
}
