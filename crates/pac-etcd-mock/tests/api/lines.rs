//! Locks and elections.

use std::time::Duration;

use crate::support::{refused, started};
use etcd_client::{LockOptions, ProclaimOptions, ResignOptions};

#[tokio::test(start_paused = true)]
async fn a_lock_is_taken_in_the_order_of_the_requests() {
    let (etcd, mut client) = started().await;
    let lease = client.lease_grant(3600, None).await.unwrap().id();
    let own = LockOptions::new().with_lease(lease);
    let first = client.lock("l", Some(own.clone())).await.unwrap();
    assert_eq!(first.key(), format!("l/{lease:x}").as_bytes());
    // The same lease has the same place.
    assert_eq!(
        client.lock("l", Some(own)).await.unwrap().key(),
        first.key()
    );
    let mut waiting = Vec::new();
    for n in 0..3 {
        let mut other = etcd.client().await.unwrap();
        waiting.push(tokio::spawn(async move {
            let taken = other.lock("l", None).await.unwrap();
            (n, taken.key().to_vec())
        }));
        while client
            .get("l/", Some(etcd_client::GetOptions::new().with_prefix()))
            .await
            .unwrap()
            .count()
            < n + 2
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    // One that gives up leaves no key.
    waiting.remove(1).abort();
    let mut held = first.key().to_vec();
    for waiter in waiting {
        assert!(!waiter.is_finished());
        client.unlock(held).await.unwrap();
        held = waiter.await.unwrap().1;
    }
    client.unlock(held).await.unwrap();
    let all = etcd_client::GetOptions::new().with_prefix();
    assert_eq!(client.get("l/", Some(all)).await.unwrap().count(), 0);
    assert_eq!(etcd.watches(), 0);
    let gone = LockOptions::new().with_lease(7);
    assert_eq!(
        refused(client.lock("l", Some(gone)).await),
        "Unknown: etcdserver: requested lease not found"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lock_is_free_once_its_lease_is_over() {
    let (_etcd, mut client) = started().await;
    let begun = tokio::time::Instant::now();
    client.lock("l", None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    // It gets a lease of its own, which lasts a second longer.
    client.lock("l", None).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn an_election_has_one_leader_who_is_observed() {
    let (etcd, mut client) = started().await;
    assert_eq!(
        refused(client.leader("e").await),
        "Unknown: election: no leader"
    );
    let mut observed = client.observe("e").await.unwrap();
    let lease = client.lease_grant(10, None).await.unwrap().id();
    let elected = client.campaign("e", "first", lease).await.unwrap();
    let leader = elected.leader().unwrap().clone();
    let told = observed.message().await.unwrap().unwrap();
    assert_eq!(told.kv().unwrap().value(), b"first");
    let mut other = etcd.client().await.unwrap();
    let next = tokio::spawn(async move {
        let lease = other.lease_grant(10, None).await.unwrap().id();
        let elected = other.campaign("e", "second", lease).await.unwrap();
        elected.leader().unwrap().clone()
    });
    let as_leader = ProclaimOptions::new().with_leader(leader.clone());
    client
        .proclaim("news", Some(as_leader.clone()))
        .await
        .unwrap();
    let told = observed.message().await.unwrap().unwrap();
    assert_eq!(told.kv().unwrap().value(), b"news");
    assert_eq!(
        client.leader("e").await.unwrap().kv().unwrap().value(),
        b"news"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!next.is_finished());
    let resign = ResignOptions::new().with_leader(leader);
    client.resign(Some(resign)).await.unwrap();
    next.await.unwrap();
    let told = observed.message().await.unwrap().unwrap();
    assert_eq!(told.kv().unwrap().value(), b"second");
    assert_eq!(
        refused(client.proclaim("late", Some(as_leader)).await),
        "Unknown: election: not leader"
    );
}
