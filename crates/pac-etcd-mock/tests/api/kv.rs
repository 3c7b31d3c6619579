//! Keys and values over the wire, in memory and by TCP.

use crate::support::refused;
use etcd_client::{Client, Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, Txn, TxnOp};
use pac_etcd_mock::MockEtcd;

async fn both() -> (MockEtcd, [Client; 2]) {
    let any = ([127, 0, 0, 1], 0).into();
    let etcd = MockEtcd::builder().listen(any).start().await.unwrap();
    let in_memory = etcd.client().await.unwrap();
    let by_tcp = Client::connect([etcd.endpoint()], None).await.unwrap();
    (etcd, [in_memory, by_tcp])
}

#[tokio::test]
async fn what_one_way_in_writes_the_other_reads() {
    let (_etcd, [mut memory, mut tcp]) = both().await;
    let put = memory.put("a", "1", None).await.unwrap();
    assert_eq!(put.header().unwrap().revision(), 2);
    let with_previous = PutOptions::new().with_prev_key();
    let put = tcp.put("a", "2", Some(with_previous)).await.unwrap();
    assert_eq!(put.prev_key().unwrap().value(), b"1");
    let got = memory.get("a", None).await.unwrap();
    let entry = &got.kvs()[0];
    assert_eq!(
        (entry.value(), entry.version(), entry.mod_revision()),
        (&b"2"[..], 2, 3)
    );
    let prefix = DeleteOptions::new().with_prefix().with_prev_key();
    let deleted = tcp.delete("", Some(prefix)).await.unwrap();
    assert_eq!((deleted.deleted(), deleted.prev_kvs().len()), (1, 1));
    let got = memory.get("a", None).await.unwrap();
    assert_eq!((got.count(), got.header().unwrap().revision()), (0, 4));
}

#[tokio::test]
async fn a_transaction_reads_its_own_writes_and_takes_one_revision() {
    let (_etcd, [mut client, _]) = both().await;
    client.put("a", "1", None).await.unwrap();
    let nested = Txn::new()
        .when([Compare::value("a", CompareOp::Equal, "1")])
        .and_then([TxnOp::put("b", "then", None)])
        .or_else([TxnOp::put("b", "else", None)]);
    let txn = Txn::new()
        .when([Compare::version("a", CompareOp::Greater, 0)])
        .and_then([
            TxnOp::put("a", "2", None),
            TxnOp::txn(nested),
            TxnOp::get("", Some(GetOptions::new().with_prefix())),
        ]);
    let done = client.txn(txn).await.unwrap();
    assert!(done.succeeded());
    assert_eq!(done.header().unwrap().revision(), 3);
    let responses = done.op_responses();
    let etcd_client::TxnOpResponse::Get(got) = &responses[2] else {
        panic!("{responses:?}");
    };
    let values: Vec<_> = got.kvs().iter().map(etcd_client::KeyValue::value).collect();
    assert_eq!(values, [b"2".as_slice(), b"then"]);
}

#[tokio::test]
async fn refusals_are_worded_as_etcd_words_them() {
    let (_etcd, [mut client, _]) = both().await;
    assert_eq!(
        refused(client.put("", "1", None).await),
        "InvalidArgument: etcdserver: key is not provided"
    );
    let at = GetOptions::new().with_revision(9);
    assert_eq!(
        refused(client.get("a", Some(at)).await),
        "OutOfRange: etcdserver: mvcc: required revision is a future revision"
    );
    let twice = [TxnOp::put("a", "1", None), TxnOp::put("a", "2", None)];
    assert_eq!(
        refused(client.txn(Txn::new().and_then(twice)).await),
        "InvalidArgument: etcdserver: duplicate key given in txn request"
    );
    let many: Vec<_> = (0..129).map(|n| TxnOp::get(n.to_string(), None)).collect();
    assert_eq!(
        refused(client.txn(Txn::new().and_then(many)).await),
        "InvalidArgument: etcdserver: too many operations in txn request"
    );
    assert_eq!(
        refused(client.put("a", vec![0; 1600 * 1024], None).await),
        "InvalidArgument: etcdserver: request is too large"
    );
    let unleased = PutOptions::new().with_lease(7);
    assert_eq!(
        refused(client.put("a", "1", Some(unleased)).await),
        "NotFound: etcdserver: requested lease not found"
    );
    let got = client.get("a", None).await.unwrap();
    assert_eq!(got.header().unwrap().revision(), 1);
}

#[tokio::test]
async fn a_put_that_keeps_what_its_transaction_deletes_refuses_the_whole() {
    let (_etcd, [mut client, _]) = both().await;
    client.put("a", "1", None).await.unwrap();
    let to_the_end = DeleteOptions::new().with_from_key();
    let keeping = PutOptions::new().with_ignore_value();
    let operations = [
        TxnOp::delete("a", Some(to_the_end)),
        TxnOp::put("a", "", Some(keeping)),
    ];
    assert_eq!(
        refused(client.txn(Txn::new().and_then(operations)).await),
        "InvalidArgument: etcdserver: key not found"
    );
    let got = client.get("a", None).await.unwrap();
    assert_eq!((got.count(), got.header().unwrap().revision()), (1, 2));
}
