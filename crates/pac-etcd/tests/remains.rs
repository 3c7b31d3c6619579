//! Which keys are left in the store: after a while, and in the end.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use crate::support;

use std::time::Duration;

use etcd_client::{EventType, WatchOptions, WatchStream};
use pac_conformance::{durable, ephemeral, queued, repository, started};
use pac_core::Limit;
use pac_core::driver::{Driver, Retention, SessionTtl};
use pac_core::state::RunOutcome;
use pac_etcd::EtcdOptions;
use tokio::time::{Instant, sleep, timeout};

const DONE: RunOutcome = RunOutcome::Completed;

fn on_the_oldest() -> EtcdOptions {
    support::options([support::member::variable("PAC_TEST_ETCD")])
}

/// The keys under the prefix of a test, without it.
async fn keys(options: &EtcdOptions) -> Vec<String> {
    let endpoint = options.endpoints.first().unwrap();
    let mut kv = support::raw(endpoint).await.kv_client();
    let all = etcd_client::GetOptions::new()
        .with_prefix()
        .with_keys_only();
    let found = kv.get(options.prefix.as_str(), Some(all)).await.unwrap();
    let key = |kv: &etcd_client::KeyValue| {
        let key = kv.key_str().unwrap();
        key.strip_prefix(&options.prefix).unwrap().to_owned()
    };
    found.kvs().iter().map(key).collect()
}

/// The largest number of keys under the prefix that one revision deletes, until nothing has been
/// deleted for a while.
async fn deleted_at_once(mut changes: WatchStream) -> usize {
    let (mut most, mut at, mut deleted) = (0, 0, 0);
    while let Ok(Some(told)) = timeout(Duration::from_secs(2), changes.message())
        .await
        .unwrap_or(Ok(None))
    {
        for event in told.events() {
            if event.event_type() == EventType::Delete {
                let revision = event.kv().unwrap().mod_revision();
                deleted = if revision == at { deleted + 1 } else { 1 };
                at = revision;
                most = most.max(deleted);
            }
        }
    }
    most
}

async fn changes(options: &EtcdOptions) -> WatchStream {
    let mut client = support::raw(options.endpoints.first().unwrap()).await;
    let all = WatchOptions::new().with_prefix();
    client
        .watch(options.prefix.as_str(), Some(all))
        .await
        .unwrap()
}

/// A delete of many keys at once leaves etcd slow for all of its clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_runs_are_deleted_in_steps() {
    let options = on_the_oldest();
    let manager = support::manager(&options).await;
    let web = repository("web");
    manager
        .set_limit(&web, Limit::new(400), None)
        .await
        .unwrap();
    let ends = (0..400).map(|n| {
        let (manager, web) = (manager.clone(), web.clone());
        tokio::spawn(async move {
            let lease = started(&manager, &web, durable(&format!("run-{n}"))).await;
            if n % 4 > 0 {
                manager.release(lease, DONE).await.unwrap();
            }
        })
    });
    for end in ends.collect::<Vec<_>>() {
        end.await.unwrap();
    }
    let changes = changes(&options).await;
    manager.remove_repository(&web).await.unwrap();
    assert!(!manager.status(&web).await.unwrap().exists);
    let most = deleted_at_once(changes).await;
    assert!((1..=50).contains(&most), "{most} keys at once");
    let left = keys(&options).await;
    assert!(left.iter().all(|key| !key.contains("web")), "{left:?}");
    manager.close().await.unwrap();
}

#[cfg(feature = "bench")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_measurement_has_written_is_deleted_in_steps() {
    use pac_core::raw::RawStore;

    let options = on_the_oldest();
    let raw = pac_etcd::RawEtcd::connect(&options).await.unwrap();
    for writer in 0..600 {
        raw.write(writer).await.unwrap();
    }
    let changes = changes(&options).await;
    raw.clear().await.unwrap();
    let most = deleted_at_once(changes).await;
    assert!((100..=250).contains(&most), "{most} keys at once");
    assert_eq!(keys(&options).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_repository_and_a_closed_manager_leave_nothing() {
    let options = on_the_oldest();
    let (manager, other) = (
        support::manager(&options).await,
        support::manager(&options).await,
    );
    for name in ["web", "api"] {
        let key = repository(name);
        manager.set_limit(&key, Limit::new(1), None).await.unwrap();
        let a = started(&manager, &key, durable("a")).await;
        drop(queued(&other, &key, ephemeral("b")).await);
        drop(queued(&other, &key, durable("c")).await);
        manager.release(a, DONE).await.unwrap();
        other.remove_repository(&key).await.unwrap();
    }
    for manager in [manager, other] {
        manager.close().await.unwrap();
    }
    let begun = Instant::now();
    // The second one says on which lease the finished runs were that vanish by themselves.
    while keys(&options).await != ["finished", "floor"] {
        let left = keys(&options).await;
        assert!(begun.elapsed() < Duration::from_secs(10), "left: {left:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// The session of a killed controller that had no runs is forgotten by any manager that is still
/// there, however long its lease TTL is, and its lease ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_session_without_runs_is_forgotten_at_once() {
    let options = on_the_oldest();
    let manager = support::manager(&options).await;
    let driver = support::driver(&options).await;
    // This session is never renewed.
    let ttl = SessionTtl::new(Duration::from_secs(2), Duration::from_secs(36_000));

    let dead = driver.open_session(ttl, &support::me()).await.unwrap();
    let of_the_dead = format!("sessions/{:016x}/", dead.get());
    let begun = Instant::now();
    let is_there = async || {
        let keys = keys(&options).await;
        keys.iter().any(|key| key.starts_with(&of_the_dead))
    };
    assert!(is_there().await);
    while is_there().await {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "it is still there"
        );
        sleep(Duration::from_millis(200)).await;
    }
    manager.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_keys_stays_flat() {
    let mut options = on_the_oldest();
    options.retention = Retention::new(Duration::from_secs(3_600), 40);
    let manager = support::manager(&options).await;
    let web = repository("web");
    let mut most = 0;
    for n in 0..1_000 {
        let lease = started(&manager, &web, durable(&format!("run-{n}"))).await;
        manager.release(lease, DONE).await.unwrap();
        if n % 100 == 99 {
            // Leaves time for a sweep.
            sleep(Duration::from_millis(1_200)).await;
            most = most.max(keys(&options).await.len());
        }
    }
    // The runs that are kept, a few more for which tidying is not due yet, and the keys of the
    // repository and the session.
    assert!((40..=60).contains(&most), "{most} keys");
    let endpoint = options.endpoints.first().unwrap();
    let mut kv = support::raw(endpoint).await.kv_client();
    let entries = format!("{}entries/", options.prefix);
    let all = etcd_client::GetOptions::new().with_prefix();
    let found = kv.get(entries, Some(all)).await.unwrap();
    assert!(
        found.kvs().iter().all(|entry| entry.lease() != 0),
        "a finished run that does not go by itself"
    );
}
