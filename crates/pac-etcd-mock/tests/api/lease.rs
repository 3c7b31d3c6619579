//! Leases, in paused time.

use std::time::Duration;

use crate::support::{events, refused, started, watch};
use etcd_client::{
    Compare, CompareOp, LeaseGrantOptions, LeaseTimeToLiveOptions, PutOptions, Txn, TxnOp,
};
use tokio::time::sleep;

#[tokio::test(start_paused = true)]
async fn the_keys_of_a_lease_end_with_it_at_one_revision() {
    let (_etcd, mut client) = started().await;
    let lease = client.lease_grant(10, None).await.unwrap();
    assert_eq!(lease.ttl(), 10);
    let with = |id| Some(PutOptions::new().with_lease(id));
    client.put("b", "1", with(lease.id())).await.unwrap();
    client.put("a", "1", with(lease.id())).await.unwrap();
    client.put("c", "1", with(lease.id())).await.unwrap();
    // Written anew without it, a key no longer belongs to it.
    client.put("c", "2", None).await.unwrap();
    let keys = Some(LeaseTimeToLiveOptions::new().with_keys());
    let told = client.lease_time_to_live(lease.id(), keys).await.unwrap();
    assert_eq!(told.keys(), [b"a".to_vec(), b"b".to_vec()]);
    let (mut watch, _) = watch(
        &client,
        "",
        Some(etcd_client::WatchOptions::new().with_prefix()),
    )
    .await;
    sleep(Duration::from_millis(9_900)).await;
    assert_eq!(client.get("a", None).await.unwrap().count(), 1);
    assert_eq!(events(&mut watch).await, ["delete a @ 6", "delete b @ 6"]);
    assert_eq!(client.get("c", None).await.unwrap().count(), 1);
    let told = client.lease_time_to_live(lease.id(), None).await.unwrap();
    assert_eq!((told.ttl(), told.granted_ttl()), (-1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_kept_alive_lasts_and_one_that_is_over_has_no_ttl() {
    let (_etcd, mut client) = started().await;
    let lease = client.lease_grant(3, None).await.unwrap().id();
    let (mut keeper, mut kept) = client.lease_keep_alive(lease).await.unwrap();
    for _ in 0..5 {
        sleep(Duration::from_secs(2)).await;
        keeper.keep_alive().await.unwrap();
        assert_eq!(kept.message().await.unwrap().unwrap().ttl(), 3);
    }
    sleep(Duration::from_secs(4)).await;
    keeper.keep_alive().await.unwrap();
    assert_eq!(kept.message().await.unwrap().unwrap().ttl(), 0);
    assert_eq!(client.leases().await.unwrap().leases().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lease_may_have_an_id_of_its_clients() {
    let (_etcd, mut client) = started().await;
    let own = || Some(LeaseGrantOptions::new().with_id(7));
    let granted = client.lease_grant(1, own()).await.unwrap();
    assert_eq!((granted.id(), granted.ttl()), (7, 2));
    assert_eq!(
        refused(client.lease_grant(1, own()).await),
        "FailedPrecondition: etcdserver: lease already exists"
    );
    assert_eq!(
        refused(client.lease_grant(9_000_000_001, None).await),
        "OutOfRange: etcdserver: too large lease TTL"
    );
    client.lease_revoke(7).await.unwrap();
    assert_eq!(
        refused(client.lease_revoke(7).await),
        "NotFound: etcdserver: requested lease not found"
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_moves_from_one_lease_to_another_and_a_transaction_compares_it() {
    let (etcd, mut client) = started().await;
    let first = client.lease_grant(10, None).await.unwrap().id();
    let second = client.lease_grant(10, None).await.unwrap().id();
    let with = |id| Some(PutOptions::new().with_lease(id));
    client.put("a", "1", with(first)).await.unwrap();
    let txn = Txn::new()
        .when([Compare::lease("a", CompareOp::Equal, first)])
        .and_then([TxnOp::put("a", "2", with(second))]);
    assert!(client.txn(txn).await.unwrap().succeeded());
    assert!(etcd.faults().expire_lease(first));
    assert!(!etcd.faults().expire_lease(first));
    assert_eq!(client.get("a", None).await.unwrap().count(), 1);
    assert!(etcd.faults().expire_lease(second));
    assert_eq!(client.get("a", None).await.unwrap().count(), 0);
}
