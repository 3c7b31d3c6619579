//! Which keys are left in the store: after a while, and in the end.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use crate::support;

use std::time::Duration;

use pac_conformance::{durable, ephemeral, queued, repository, started};
use pac_core::Limit;
use pac_core::driver::{Driver, Retention, SessionTtl};
use pac_core::state::RunOutcome;
use pac_etcd::EtcdOptions;
use tokio::time::{Instant, sleep};

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

    let dead = driver.open_session(ttl).await.unwrap();
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
