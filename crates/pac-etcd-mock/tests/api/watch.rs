//! Watches.

use std::time::Duration;

use crate::support::{events, next, started, watch};
use etcd_client::{
    Client, Compare, CompareOp, PutOptions, Txn, TxnOp, WatchFilterType, WatchOptions,
};
use pac_etcd_mock::MockEtcd;

#[tokio::test]
async fn a_watch_gets_each_revision_as_it_comes_and_what_came_before_in_one() {
    let (etcd, mut client) = started().await;
    for value in ["1", "2", "3"] {
        client.put("a", value, None).await.unwrap();
    }
    let from = WatchOptions::new().with_start_revision(3).with_prev_key();
    let (mut watch, _) = watch(&client, "a", Some(from)).await;
    let response = next(&mut watch).await;
    assert_eq!(response.header().unwrap().revision(), 4);
    let [second, third] = response.events() else {
        panic!("{response:?}");
    };
    assert_eq!(second.prev_kv().unwrap().value(), b"1");
    assert_eq!(third.kv().unwrap().value(), b"3");
    client.put("b", "1", None).await.unwrap();
    client.delete("a", None).await.unwrap();
    client.put("a", "4", None).await.unwrap();
    assert_eq!(events(&mut watch).await, ["delete a @ 6"]);
    assert_eq!(events(&mut watch).await, ["put a 4 @ 7"]);
    assert_eq!(etcd.watches(), 1);
    drop((watch, client));
    while etcd.watches() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn filters_leave_out_what_they_name_and_ranges_what_they_do_not() {
    let (_etcd, mut client) = started().await;
    let puts = WatchOptions::new()
        .with_range("c")
        .with_filters([WatchFilterType::NoDelete]);
    let (mut puts, _) = watch(&client, "a", Some(puts)).await;
    let deletions = WatchOptions::new()
        .with_from_key()
        .with_filters([WatchFilterType::NoPut]);
    let (mut deletions, _) = watch(&client, "b", Some(deletions)).await;
    for key in ["a", "b", "c"] {
        client.put(key, "1", None).await.unwrap();
        client.delete(key, None).await.unwrap();
    }
    assert_eq!(events(&mut puts).await, ["put a 1 @ 2"]);
    assert_eq!(events(&mut puts).await, ["put b 1 @ 4"]);
    assert_eq!(events(&mut deletions).await, ["delete b @ 5"]);
    assert_eq!(events(&mut deletions).await, ["delete c @ 7"]);
}

#[tokio::test]
async fn a_transaction_is_told_as_one() {
    let (_etcd, mut client) = started().await;
    let all = WatchOptions::new().with_prefix();
    let (mut watch, _) = watch(&client, "", Some(all)).await;
    let txn = Txn::new()
        .when([Compare::version("a", CompareOp::Equal, 0)])
        .and_then([TxnOp::put("b", "1", None), TxnOp::put("a", "1", None)]);
    client.txn(txn).await.unwrap();
    assert_eq!(events(&mut watch).await, ["put b 1 @ 2", "put a 1 @ 2"]);
}

#[tokio::test]
async fn several_watches_share_a_stream_and_are_cancelled_one_by_one() {
    let (_etcd, mut client) = started().await;
    let own = WatchOptions::new().with_watch_id(5);
    let (mut watch, created) = watch(&client, "a", Some(own.clone())).await;
    assert_eq!(created.watch_id(), 5);
    watch.watch("b", None).await.unwrap();
    let created = next(&mut watch).await;
    assert!(created.created() && created.watch_id() == 0);
    watch.watch("c", Some(own)).await.unwrap();
    let refused = next(&mut watch).await;
    assert!(refused.created() && refused.canceled());
    assert_eq!(refused.watch_id(), -1);
    assert_eq!(
        refused.cancel_reason(),
        "mvcc: duplicate watch ID provided on the WatchStream"
    );
    let empty = WatchOptions::new().with_range("a");
    watch.watch("b", Some(empty)).await.unwrap();
    let refused = next(&mut watch).await;
    assert_eq!(refused.cancel_reason(), "mvcc: watcher range is empty");
    watch.cancel(5).await.unwrap();
    let cancelled = next(&mut watch).await;
    assert!(cancelled.canceled() && cancelled.watch_id() == 5);
    client.put("a", "1", None).await.unwrap();
    client.put("b", "1", None).await.unwrap();
    assert_eq!(events(&mut watch).await, ["put b 1 @ 3"]);
}

#[tokio::test]
async fn a_watch_from_before_a_compaction_is_cancelled() {
    let (_etcd, mut client) = started().await;
    for value in ["1", "2", "3"] {
        client.put("a", value, None).await.unwrap();
    }
    // It has been told everything up to here, and loses nothing.
    let (mut synced, _) = watch(&client, "a", None).await;
    client.put("a", "4", None).await.unwrap();
    client.put("a", "5", None).await.unwrap();
    client.compact(6, None).await.unwrap();
    let from = WatchOptions::new().with_start_revision(3);
    let (mut late, _) = watch(&client, "a", Some(from)).await;
    let cancelled = next(&mut late).await;
    assert!(cancelled.canceled());
    assert_eq!(cancelled.compact_revision(), 6);
    assert_eq!(events(&mut synced).await, ["put a 4 @ 5"]);
    assert_eq!(events(&mut synced).await, ["put a 5 @ 6"]);
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_on_request_and_by_itself_where_it_is_wanted() {
    let etcd = MockEtcd::builder().progress_interval(Duration::from_secs(60));
    let etcd = etcd.start().await.unwrap();
    let mut client = etcd.client().await.unwrap();
    client.put("b", "1", None).await.unwrap();
    let wanted = WatchOptions::new().with_progress_notify();
    let (mut watch, created) = watch(&client, "a", Some(wanted)).await;
    watch.request_progress().await.unwrap();
    let progress = next(&mut watch).await;
    assert_eq!(progress.watch_id(), -1);
    assert_eq!(progress.header().unwrap().revision(), 2);
    let asleep = tokio::time::Instant::now();
    client.put("b", "2", None).await.unwrap();
    let progress = next(&mut watch).await;
    assert_eq!(progress.watch_id(), created.watch_id());
    assert!(progress.events().is_empty());
    assert_eq!(progress.header().unwrap().revision(), 3);
    assert!(asleep.elapsed() >= Duration::from_secs(59));
}

#[tokio::test]
async fn a_large_response_is_fragmented_where_the_client_wants_that() {
    let (_etcd, mut client) = started().await;
    let value = vec![b'x'; 1000 * 1024];
    for key in ["a1", "a2", "a3", "a4"] {
        let lease = PutOptions::new();
        client.put(key, value.clone(), Some(lease)).await.unwrap();
    }
    let from = WatchOptions::new()
        .with_prefix()
        .with_start_revision(2)
        .with_fragment();
    let (mut watch, _) = watch(&client, "a", Some(from)).await;
    let (first, second) = (events(&mut watch).await, events(&mut watch).await);
    assert_eq!((first.len(), second.len()), (2, 2));
}

#[tokio::test]
async fn a_watch_that_nobody_reads_is_ended_by_compactions() {
    let etcd = MockEtcd::builder()
        .auto_compaction(10)
        .start()
        .await
        .unwrap();
    let direct = Client::from_channel(etcd.direct_channel(), None).await;
    let mut client = direct.unwrap();
    let (mut stream, _) = watch(&client, "a", None).await;
    for n in 0..3_000 {
        client.put("a", n.to_string(), None).await.unwrap();
    }
    let mut told = 0;
    loop {
        let response = next(&mut stream).await;
        if response.canceled() {
            assert!(response.compact_revision() > 0);
            break;
        }
        told += response.events().len();
    }
    assert!((1_000..1_200).contains(&told), "{told} events were kept");
}
