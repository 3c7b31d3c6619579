//! Faults, in paused time.

use std::time::Duration;

use crate::support::{events, refused, started, watch};
use etcd_client::{Client, ConnectOptions, GetOptions, WatchOptions};
use pac_etcd_mock::{Fault, MockEtcd, Operation};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_request_is_delayed_refused_or_done_without_its_client_knowing() {
    let (etcd, mut client) = started().await;
    let faults = etcd.faults();
    let delay = Fault::Delayed(Duration::from_secs(3));
    let delayed = faults.inject([Operation::Put], 1, delay);
    let refusing = faults.inject([Operation::Put], 1, Fault::Refused("busy".to_owned()));
    faults.inject([Operation::Put], 1, Fault::TimedOut);
    let begun = Instant::now();
    client.put("a", "1", None).await.unwrap();
    assert_eq!((begun.elapsed().as_secs(), delayed.hits()), (3, 1));
    assert_eq!(
        refused(client.put("a", "2", None).await),
        "Unavailable: busy"
    );
    assert_eq!(refusing.hits(), 1);
    assert_eq!(
        refused(client.put("a", "3", None).await),
        "Unavailable: etcdserver: request timed out"
    );
    let got = client.get("a", None).await.unwrap();
    assert_eq!(got.kvs()[0].value(), b"3");
    let counts = etcd.counts();
    assert_eq!((counts[&Operation::Put], counts[&Operation::Range]), (3, 1));
    assert_eq!(counts[&Operation::Txn], 0);
}

#[tokio::test]
async fn a_connection_is_cut_before_or_after_the_request_is_done() {
    let any = ([127, 0, 0, 1], 0).into();
    let etcd = MockEtcd::builder().listen(any).start().await.unwrap();
    let tcp = Client::connect([etcd.endpoint()], None).await.unwrap();
    for (mut client, key) in [(etcd.client().await.unwrap(), "a"), (tcp, "b")] {
        etcd.faults().inject([Operation::Put], 1, Fault::CutBefore);
        client.put(key, "1", None).await.unwrap_err();
        assert_eq!(client.get(key, None).await.unwrap().count(), 0);
        etcd.faults().inject([Operation::Put], 1, Fault::CutAfter);
        client.put(key, "1", None).await.unwrap_err();
        assert_eq!(client.get(key, None).await.unwrap().count(), 1);
        let (mut watch, _) = watch(&client, key, None).await;
        etcd.faults().cut_connections();
        watch.message().await.unwrap_err();
    }
}

#[tokio::test(start_paused = true)]
async fn events_are_lost_or_late() {
    let (etcd, mut client) = started().await;
    let (mut watch, _) = watch(&client, "a", None).await;
    etcd.faults().lose_events(1);
    client.put("a", "1", None).await.unwrap();
    client.put("a", "2", None).await.unwrap();
    assert_eq!(events(&mut watch).await, ["put a 2 @ 3"]);
    etcd.faults().delay_events(Duration::from_secs(5));
    let begun = Instant::now();
    client.put("a", "3", None).await.unwrap();
    assert_eq!(events(&mut watch).await, ["put a 3 @ 4"]);
    assert_eq!(begun.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_requests_time_out_and_streams_that_want_one_end() {
    let (etcd, mut client) = started().await;
    let wants = ConnectOptions::new().with_require_leader(true);
    let mut strict = Client::from_channel(etcd.channel(), Some(wants))
        .await
        .unwrap();
    let lease = client.lease_grant(5, None).await.unwrap().id();
    let (mut patient, _) = watch(&client, "a", None).await;
    let (mut watch, _) = watch(&strict, "a", None).await;
    etcd.faults().lose_leader();
    let no_leader = "Unavailable: etcdserver: no leader";
    assert_eq!(refused(watch.message().await), no_leader);
    assert_eq!(refused(strict.get("a", None).await), no_leader);
    let begun = Instant::now();
    assert_eq!(
        refused(client.get("a", None).await),
        "Unavailable: etcdserver: request timed out"
    );
    assert_eq!(begun.elapsed().as_secs(), 7);
    let serializable = GetOptions::new().with_serializable();
    client.get("a", Some(serializable)).await.unwrap();
    assert_eq!(client.status().await.unwrap().leader(), 0);
    etcd.faults().elect_leader();
    let told = client.lease_time_to_live(lease, None).await.unwrap();
    assert_eq!(told.ttl(), 5);
    client.put("a", "1", None).await.unwrap();
    assert_eq!(events(&mut patient).await, ["put a 1 @ 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_ends_leases_at_once() {
    let (etcd, mut client) = started().await;
    let lease = client.lease_grant(3600, None).await.unwrap().id();
    let with = etcd_client::PutOptions::new().with_lease(lease);
    client.put("a", "1", Some(with)).await.unwrap();
    let from = WatchOptions::new().with_start_revision(3);
    let (mut watch, _) = watch(&client, "a", Some(from)).await;
    let begun = Instant::now();
    etcd.faults().jump_clock(Duration::from_secs(3601));
    assert_eq!(events(&mut watch).await, ["delete a @ 3"]);
    assert!(begun.elapsed() < Duration::from_secs(1));

    // The very next request sees it.
    let mut direct = direct(&etcd).await;
    let lease = direct.lease_grant(3600, None).await.unwrap().id();
    let with = etcd_client::PutOptions::new().with_lease(lease);
    direct.put("a", "1", Some(with)).await.unwrap();
    etcd.faults().jump_clock(Duration::from_secs(3601));
    assert_eq!(direct.get("a", None).await.unwrap().count(), 0);
    // However far it jumps.
    etcd.faults().jump_clock(Duration::MAX);
    direct.lease_grant(3600, None).await.unwrap();
}

#[tokio::test]
async fn the_end_of_a_server_ends_what_waits_on_a_direct_way() {
    let etcd = MockEtcd::builder().start().await.unwrap();
    let mut client = direct(&etcd).await;
    let (mut watch, _) = watch(&client, "a", None).await;
    client.lock("l", None).await.unwrap();
    let waiting = tokio::spawn({
        let mut client = client.clone();
        async move { client.lock("l", None).await }
    });
    let line = || GetOptions::new().with_prefix();
    while client.get("l/", Some(line())).await.unwrap().count() < 2 {
        tokio::task::yield_now().await;
    }
    drop(etcd);
    let ended = "Unavailable: the mock etcd has ended";
    assert_eq!(refused(watch.message().await), ended);
    assert_eq!(
        refused(waiting.await.unwrap()),
        "Unknown: the mock etcd has ended"
    );
    assert_eq!(refused(client.get("a", None).await), ended);
}

async fn direct(etcd: &MockEtcd) -> Client {
    Client::from_channel(etcd.direct_channel(), None)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_full_server_writes_nothing_and_deletes() {
    let (etcd, mut client) = started().await;
    client.put("a", "1", None).await.unwrap();
    etcd.faults().exceed_quota(true);
    let no_space = "ResourceExhausted: etcdserver: mvcc: database space exceeded";
    assert_eq!(refused(client.put("a", "2", None).await), no_space);
    assert_eq!(refused(client.lease_grant(5, None).await), no_space);
    let alarms = client
        .alarm(
            etcd_client::AlarmAction::Get,
            etcd_client::AlarmType::None,
            None,
        )
        .await
        .unwrap();
    assert_eq!(alarms.alarms().len(), 1);
    assert_eq!(client.delete("a", None).await.unwrap().deleted(), 1);
    etcd.faults().exceed_quota(false);
    client.put("a", "2", None).await.unwrap();

    let small = MockEtcd::builder().quota(10_000).start().await.unwrap();
    let mut client = small.client().await.unwrap();
    client.put("a", vec![0; 9000], None).await.unwrap();
    assert_eq!(
        refused(client.put("b", vec![0; 2000], None).await),
        no_space
    );
    // The alarm stays until it is cleared.
    assert_eq!(refused(client.put("b", "1", None).await), no_space);
}
